"""Softmax on integers, bit for bit what the RTL computes."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import (
    COLUMNS,
    EXTRA,
    TOP,
    WHOLE,
    Format,
    Reciprocal,
    reciprocal,
    shift_of,
    whole_table,
)
from hwgen.units.truncated import truncated


def output_exponent(spec: SoftmaxSpec) -> int:
    """Exponent of the probabilities: −(bits − 1)."""
    return 1 - spec.bits


def golden(x: Any, i_exponent: int, spec: SoftmaxSpec, valid_mask: Any | None = None) -> Any:
    """Softmax along the last axis.

    Parameters
    ----------
    x : int64 array [..., n] of scores, each `bits` wide, n at most `max_row`
    i_exponent : exponent of the scores
    spec : the module
    valid_mask : booleans that broadcast with `x`; positions that are false contribute 0 and get 0,
        a row without any true position gets zeros

    Returns
    -------
    int64 array of the shape of `x`: probabilities with exponent −(bits − 1), at most
    2^(bits−1) − 1, at most 1 ulp from the exact softmax: half from rounding, the rest from a term's
    exponential (it counts by at most a third of its own relative error), from what is cut off terms
    and rows of products, and from the reciprocal. tests/hwgen/units/test_softmax_bound.py adds the
    worst of these up, to 0.983 at most; the largest seen is 0.76.

    Raises
    ------
    ValueError
        If the rows are longer than `max_row`.
    """
    xp = array_namespace(x)
    if x.shape[-1] > spec.max_row:
        raise ValueError(f"rows must have at most {spec.max_row} elements, not {x.shape[-1]}")
    form = Format.of(spec)
    if valid_mask is None:
        distance = xp.max(x, axis=-1, keepdims=True) - x
    else:
        valid_mask = xp.broadcast_to(
            xp.astype(xp.asarray(valid_mask, device=device(x)), xp.bool), x.shape
        )
        lowest = xp.full_like(x, -(2 ** (spec.bits - 1)))
        top = xp.max(xp.where(valid_mask, x, lowest), axis=-1, keepdims=True)
        distance = xp.where(valid_mask, top - x, xp.zeros_like(x))
    term = _exponential(distance, i_exponent, form)
    valid = xp.ones_like(term)
    if valid_mask is not None:
        valid = xp.astype(valid_mask, xp.int64)
        term = term * valid

    # Half a unit stands for what was cut off a term.
    total = xp.sum(2 * term + valid, axis=-1, keepdims=True, dtype=xp.int64)
    one = form.fraction + form.growth + 1
    power = xp.zeros_like(total)
    for level in range(1, form.growth + 1):
        power = power + xp.astype(total >= 1 << (one + level), xp.int64)
    mantissa = _places(total, form.inverse - one) >> power
    inverse = _reciprocal(mantissa & ((1 << form.inverse) - 1), reciprocal(form.inverse))
    value = _product(term >> (form.fraction + form.growth - form.kept), inverse >> power, form)
    return xp.minimum(value, xp.full_like(value, 2 ** (spec.bits - 1) - 1))


def _exponential(distance: Any, i_exponent: int, form: Format) -> Any:
    """exp(−distance · 2^i_exponent) with fraction + growth bits after the point."""
    xp = array_namespace(distance)
    fraction, offset_bits = form.fraction, form.offset_bits
    scaled = (distance << (fraction + WHOLE)) >> shift_of(i_exponent)
    beyond = scaled >> (fraction + WHOLE) > 0
    scaled = xp.where(beyond, xp.zeros_like(scaled), scaled)
    whole = _lookup(whole_table(), scaled >> (fraction - TOP))
    rest = (scaled - _lookup(form.ln2, whole)) & ((1 << fraction) - 1)
    centre = _lookup(form.centres, rest >> offset_bits)
    offset = (rest & ((1 << offset_bits) - 1)) - (1 << (offset_bits - 1))
    size = xp.where(offset < 0, -1 - offset, offset)
    slope = offset - _lookup(form.squares, size >> (offset_bits - 1 - form.square_bits))
    product = truncated(centre, slope, offset_bits + 1, fraction - EXTRA, subtract=True)
    mantissa = ((centre << EXTRA) + product + form.product_offset) >> EXTRA
    term = (mantissa << form.growth) >> whole
    return xp.where(beyond, xp.zeros_like(term), term)


def _reciprocal(mantissa: Any, form: Reciprocal) -> Any:
    """1 / (1 + mantissa), below 1, both with `bits` bits after the point."""
    xp = array_namespace(mantissa)
    bits, centre_bits = form.bits, form.centre_bits
    centre = _lookup(form.centres, mantissa >> (bits - form.index_bits))
    product = truncated(mantissa + (1 << bits), centre, centre_bits + 1, centre_bits - EXTRA,
                        subtract=True)
    rest = (1 << (bits + EXTRA)) + product + form.rest_offset
    first = (rest >> (form.rest_bits - form.power_bits)) & ((1 << form.power_bits) - 1)
    slope = rest + _lookup(form.powers, first)
    product = truncated(centre, slope, form.rest_bits, centre_bits)
    value = ((centre << (bits + EXTRA - centre_bits)) + product + form.offset) >> EXTRA
    return xp.minimum(value, xp.full_like(value, (1 << bits) - 1))


def _product(term: Any, inverse: Any, form: Format) -> Any:
    """Term times reciprocal, rounded: rows by radix-4 digits, each cut off.

    Half a unit stands for what was cut off a term; 1 is exact.
    """
    factor = 2 * term + (1 - (term >> form.kept))
    total = form.rounding
    for digit in range(form.factor_digits):
        row = (((factor >> (2 * digit)) & 3) * inverse) << (2 * digit)
        total = total + (row >> (form.kept + 1))
    return total >> COLUMNS


def _places(value: Any, left: int) -> Any:
    """Value times 2^left, rounded down."""
    return value << left if left >= 0 else value >> -left


def _lookup(table: tuple[int, ...], index: Any) -> Any:
    """Entries of a table at an int64 array of indices."""
    xp = array_namespace(index)
    values = xp.asarray(table, dtype=xp.int64, device=device(index))
    return xp.reshape(xp.take(values, xp.reshape(index, (-1,)), axis=0), index.shape)
