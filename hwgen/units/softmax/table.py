"""Widths, constants and tables that the softmax module's golden model and RTL share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache

from hwgen.units.quadratic import DIGITS, Quadratic
from hwgen.units.softmax.spec import SoftmaxSpec

GUARD = 6
"""Bits that the internal fraction has beyond the output's, so that all errors but the last rounding
stay below a quarter of an ulp together."""

DROPPED = 2
"""Bits of that fraction that an exponential loses before it is multiplied by the reciprocal."""

WHOLE = 6
"""Bits of the exponential's power of two before the point: 2^−63 is nothing in any format."""

SHIFT_MAXIMUM = 63
"""Largest right shift of the power of two; it leaves nothing of any product."""


@dataclass(frozen=True)
class Format:
    """Derived widths of a softmax module.

    Parameters
    ----------
    bits : width of input and output
    fraction : bits after the point of the exponent, 2^−f, the reciprocal
    growth : ⌈log2 max_row⌉, bits by which a sum outgrows its terms, and by which the terms'
        fraction is longer so that cutting off max_row terms costs one unit of `fraction`
    """

    bits: int
    fraction: int
    growth: int

    @classmethod
    def of(cls, spec: SoftmaxSpec) -> Format:
        """Widths of a spec."""
        return cls(spec.bits, spec.bits - 1 + GUARD, (spec.max_row - 1).bit_length())

    @property
    def log2e(self) -> int:
        """log2 e with `fraction` bits after the point."""
        with localcontext() as context:
            context.prec = DIGITS
            return int((2**self.fraction / Decimal(2).ln()).to_integral_value())

    @property
    def product(self) -> int:
        """Width of (maximum − x) · log2 e · 2^WHOLE."""
        return self.bits + self.fraction + 1 + WHOLE

    @property
    def term(self) -> int:
        """Width of an exponential, which is at most 1."""
        return self.fraction + self.growth + 1

    @property
    def kept(self) -> int:
        """Bits after the point of an exponential divided by the sum's power of two."""
        return self.fraction - DROPPED

    @property
    def round_bits(self) -> int:
        """Bits that the one rounding takes off the product with the reciprocal."""
        return self.kept + self.fraction - (self.bits - 1)


def shift_of(i_exponent: int) -> int:
    """Right shift of (maximum − x) · log2 e · 2^WHOLE that makes it the power of two.

    Exponents of WHOLE and more are alike: two unequal scores are then so far apart that the smaller
    one's exponential is 0.
    """
    return min(max(WHOLE - i_exponent, 0), SHIFT_MAXIMUM)


@cache
def exponential(fraction: int) -> Quadratic:
    """2^−f for f in [0, 1); the parabolas' error is 0.0027·8^−index_bits, below 2^−fraction."""
    return Quadratic.interpolate(
        lambda f: Decimal(2) ** -f, -(-(fraction - 8) // 3), fraction, fraction
    )


@cache
def reciprocal(fraction: int) -> Quadratic:
    """1 / (1 + f) for f in [0, 1); the parabolas' error is 0.048·8^−index_bits."""
    return Quadratic.interpolate(
        lambda f: 1 / (1 + f), -(-(fraction - 4) // 3), fraction, fraction
    )
