"""Widths, constants and the table that the layer-norm module's golden model and RTL share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache

from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.quadratic import Quadratic

GUARD = 6
"""Bits that the reciprocal root has after the point beyond the output's."""

ROOT_GUARD = 2
"""Further bits after the point of the root's polynomial, rounded off its result."""

VARIANCE_GUARD = 2
"""Bits that the variance's mantissa has after the point beyond the root's."""

TERM_FRACTION = 4
"""Bits after the point, in ulps of the output, of the scaled row and of β as they are added."""

HEADROOM = 2
"""β saturates at 2^(bits + 2) ulps, eight times the output's range, before it is added; the scaled
row at twice that before it is multiplied by the root, which is between a half and 1."""


@dataclass(frozen=True)
class Format:
    """Derived widths of a layer-norm module.

    Parameters
    ----------
    bits : width of input and output
    growth : ⌈log2 max_row⌉, bits by which a sum outgrows its terms
    fraction : bits after the point of the reciprocal root
    mantissa : bits after the point of the variance's mantissa, which is at least 1 and below 4
    """

    bits: int
    growth: int
    fraction: int
    mantissa: int

    @classmethod
    def of(cls, spec: LayerNormSpec) -> Format:
        """Widths of a spec."""
        fraction = fraction_bits(spec.bits)
        return cls(spec.bits, (spec.max_row - 1).bit_length(), fraction, fraction + VARIANCE_GUARD)

    @property
    def variance(self) -> int:
        """Width of n·Σx² − (Σx)², which is below n²·4^(bits − 1); even."""
        return 2 * (self.bits - 1 + self.growth)

    @property
    def product(self) -> int:
        """Width of (n·x − Σx)·γ, signed."""
        return 2 * self.bits + self.growth

    @property
    def window(self) -> int:
        """Width of the scaled row before it is multiplied by the root, signed."""
        return self.bits + HEADROOM + 2 + TERM_FRACTION

    @property
    def offset(self) -> int:
        """Width of β as it is added, signed."""
        return self.bits + HEADROOM + 1 + TERM_FRACTION


def fraction_bits(bits: int) -> int:
    """Bits after the point of the reciprocal root."""
    return bits - 1 + GUARD


@cache
def reciprocal_root(fraction: int) -> Quadratic:
    """1/√m for m in [1, 4), as a function of f in [0, 1): m is 1 + 2f below a half, else 4f.

    Arguments have `fraction` + 1 bits, values `fraction` + ROOT_GUARD bits after the point. Each
    octave has an equal number of segments; the parabolas' error is 0.015·8^−segment_bits.
    """

    def value(f: Decimal) -> Decimal:
        return 1 / (1 + 2 * f if 2 * f < 1 else 4 * f).sqrt()

    precise = fraction + ROOT_GUARD
    return Quadratic.interpolate(value, -(-(precise - 6) // 3) + 1, fraction + 1, precise)


def epsilon_mantissa(epsilon: float, mantissa: int) -> tuple[int, int]:
    """ε as m · 4^e with `mantissa` bits after the point of m, which is at least 1 and below 4.

    Returns
    -------
    (m · 2^mantissa, cut off; e)
    """
    exact, power = Fraction(epsilon), 0
    while exact < 1:
        exact, power = 4 * exact, power - 1
    return int(exact * 2**mantissa), power
