"""relu and gelu on integers, bit for bit what the RTL computes."""

from __future__ import annotations

from functools import cache
from typing import Any

from array_api_compat import array_namespace, device

from hwgen.fixed_point import Array, round_shift, saturate
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.activation.table import DEGREE, LARGEST_GAIN, LIMIT_LOG2, tail_table


def activation(value: Array, i_exponent: int, o_exponent: int, spec: ActivationSpec) -> Array:
    """Apply the non-linearity with one rounding, ties to even, saturating.

    relu is exact before its rounding for all exponents. gelu is x·Φ(x) (the erf form) within 1 ulp
    of the output for o_exponent ≥ i_exponent − 4; for |x| ≥ 8 it is exactly x, rescaled, or 0.

    Parameters
    ----------
    value : int64 array, numbers of `spec.bits` bits with exponent `i_exponent`
    i_exponent, o_exponent : −128 to 127; exponents of argument and result
    spec : the unit

    Returns
    -------
    int64 array of the same shape, with exponent `o_exponent`

    Raises
    ------
    ValueError
        If an exponent is out of range.
    """
    check_exponents(i_exponent, o_exponent, spec)
    xp = array_namespace(value)
    bits = spec.bits
    fall = min(o_exponent - i_exponent, bits)  # a shift by `bits` leaves nothing of any number
    if spec.nonlinearity == "relu":
        # A rise by bits - 1 saturates whatever is not zero.
        wide = xp.clip(value, 0, None) << (bits - 1)
        return saturate(round_shift(wide, max(fall, 1 - bits) + bits - 1), bits)
    fraction = tail_table(bits).fraction_bits
    magnitude = xp.abs(value)
    below = magnitude * scaled_tail(magnitude, i_exponent, bits)
    wide = (xp.clip(value, 0, None) << fraction) - below
    return saturate(round_shift(wide, fall + fraction), bits)


def scaled_tail(magnitude: Array, exponent: int, bits: int) -> Array:
    """½·erfc(a/√2) of a = magnitude · 2^exponent, in the table's fraction bits; 0 for a ≥ 8."""
    xp = array_namespace(magnitude)
    table = tail_table(bits)
    shift = min(exponent, LIMIT_LOG2) + table.argument_bits
    argument = magnitude << shift if shift >= 0 else magnitude >> min(-shift, bits)
    argument = xp.clip(argument, None, 1 << (table.argument_bits + LIMIT_LOG2))
    segment = xp.reshape(argument >> table.segment_bits, (-1,))
    inside = argument & ((1 << table.segment_bits) - 1)
    columns = [xp.reshape(xp.take(column, segment, axis=0), argument.shape)
               for column in _columns(xp, bits, device(magnitude))]
    tail = columns[DEGREE]
    for power, used in zip(range(DEGREE - 1, -1, -1), table.used_bits, strict=True):
        tail = columns[power] + ((tail * (inside >> (table.segment_bits - used))) >> used)
    return tail


@cache
def _columns(xp: Any, bits: int, where: Any) -> tuple[Array, ...]:
    """Coefficients by power, as arrays of a library on a device; the last is for what is beyond."""
    return tuple(xp.asarray((*column, 0), dtype=xp.int64, device=where)
                 for column in zip(*tail_table(bits).coefficients, strict=True))


def check_exponents(i_exponent: int, o_exponent: int, spec: ActivationSpec) -> None:
    """Refuse exponents for which the result is not defined.

    Raises
    ------
    ValueError
        Names the exponent, what is allowed and the value.
    """
    for name, exponent in (("i_exponent", i_exponent), ("o_exponent", o_exponent)):
        if not -128 <= exponent <= 127:
            raise ValueError(f"{name} must be -128 to 127, not {exponent}")
    lowest = i_exponent - LARGEST_GAIN
    if spec.nonlinearity == "gelu" and o_exponent < lowest:
        raise ValueError(f"o_exponent of gelu must be at least i_exponent - {LARGEST_GAIN} = "
                         f"{lowest}, not {o_exponent}")
