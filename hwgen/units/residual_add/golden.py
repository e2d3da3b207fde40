"""Sum of two tensors of different exponents on integers."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from hwgen.fixed_point import round_shift, saturate
from hwgen.units.residual_add.spec import ResidualAddSpec

WINDOW = 36
"""Bits that the larger exponent's operand is moved left at most; the rest of the distance moves the
other operand right. 24-bit operands and their sum stay within 61 bits."""


def rescale(value: Any, exponent: int, o_exponent: int, bits: int) -> Any:
    """Give integers another exponent: one rounding, ties to even, saturating at `bits` bits.

    Parameters
    ----------
    value : int64 array, magnitudes below 2^62
    exponent, o_exponent : exponents before and after
    bits : width of the result
    """
    if o_exponent >= exponent:
        return saturate(round_shift(value, o_exponent - exponent), bits)
    # What saturates before the shift also saturates after it.
    return saturate(saturate(value, bits + 1) << min(exponent - o_exponent, bits), bits)


def golden(
    a: Any, a_exponent: int, b: Any, b_exponent: int, o_exponent: int, spec: ResidualAddSpec
) -> Any:
    """a + b exactly, rounded once to the output's exponent (ties to even), saturating.

    Parameters
    ----------
    a, b : int64 arrays that broadcast, `bits` wide
    a_exponent, b_exponent, o_exponent : exponents of both operands and of the sum
    spec : the module

    Returns
    -------
    int64 array of the broadcast shape: the exact sum rounded once.
    """
    if a_exponent < b_exponent:
        a, a_exponent, b, b_exponent = b, b_exponent, a, a_exponent
    xp = array_namespace(a, b)
    distance = a_exponent - b_exponent
    left = min(distance, WINDOW)
    total = (a << left) + _jam(b, distance - left)
    result = rescale(total, a_exponent - left, o_exponent, spec.bits)
    # Beyond the window a non-zero `a` saturates or the bits that `b` lost only break ties, which
    # their sticky bit tells; where `a` is 0, `b` alone is the sum.
    alone = rescale(b, b_exponent, o_exponent, spec.bits)
    return xp.where(a == 0, alone, result)


def _jam(value: Any, shift: int) -> Any:
    """Shift right, then set the last bit if any bit lost was set."""
    xp = array_namespace(value)
    shift = min(shift, 63)
    floor = value >> shift
    return floor | xp.astype((floor << shift) != value, xp.int64)
