"""Widths, constants and the table of the layer-norm module."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import cache

from hwgen.units.quadratic import Quadratic

GUARD = 6
"""Bits that the reciprocal root has after the point beyond the output's."""

MANTISSA = 58
"""A variance is held as m · 2^e with e even and 2^58 <= m < 2^60."""

TERM_FRACTION = 8
"""Bits after the point, in ulps of the output, of the scaled row and of β as they are added."""

HEADROOM = 2
"""Both saturate at 2^(bits + 2) ulps, eight times the output's range, before they are added."""


def fraction_bits(bits: int) -> int:
    """Bits after the point of the reciprocal root."""
    return bits - 1 + GUARD


@cache
def reciprocal_root(fraction: int) -> Quadratic:
    """1/√m for m in [1, 4), as a function of f in [0, 1): m is 1 + 2f below a half, else 4f.

    Each octave has an equal number of segments; the parabolas' error is 0.015·8^−segment_bits.
    """

    def value(f: Decimal) -> Decimal:
        return 1 / (1 + 2 * f if 2 * f < 1 else 4 * f).sqrt()

    return Quadratic.interpolate(
        value, -(-(fraction - 6) // 3) + 1, fraction + 1, fraction
    )


def epsilon_term(epsilon: float, n: int, i_exponent: int) -> tuple[int, int]:
    """ε · n² · 2^(−2·i_exponent) as mantissa and even exponent, cut off to 60 bits.

    This is ε beside n·Σx² − (Σx)². It depends on the row's length and exponent only, so it is part
    of a job's description, not of the datapath.
    """
    exact = Fraction(epsilon) * n * n / Fraction(4) ** i_exponent
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length() - MANTISSA
    exponent -= exponent % 2
    while int(exact / Fraction(2) ** exponent) >= 4 << MANTISSA:
        exponent += 2
    while int(exact / Fraction(2) ** exponent) < 1 << MANTISSA:
        exponent -= 2
    return int(exact / Fraction(2) ** exponent), exponent
