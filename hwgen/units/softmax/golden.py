"""Softmax on integers, bit for bit what the RTL computes."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from hwgen.fixed_point import round_shift
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import (
    DROPPED,
    SHIFT_MAXIMUM,
    WHOLE,
    Format,
    exponential,
    reciprocal,
    shift_of,
)


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
    2^(bits−1) − 1, at most 1 ulp from the exact softmax.

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
    if valid_mask is not None:
        term = xp.where(valid_mask, term, xp.zeros_like(term))

    total = xp.sum(term, axis=-1, keepdims=True, dtype=xp.int64)
    power = xp.zeros_like(total)
    for level in range(1, form.growth + 1):
        reached = total >= 1 << (form.fraction + form.growth + level)
        power = power + xp.astype(reached, xp.int64)
    mantissa = (total >> (form.growth + power)) & ((1 << form.fraction) - 1)
    inverse = reciprocal(form.fraction).evaluate(mantissa)

    kept = term >> (power + form.growth + DROPPED)
    value = round_shift(kept * inverse, form.round_bits)
    return xp.minimum(value, xp.full_like(value, 2 ** (spec.bits - 1) - 1))


def _exponential(distance: Any, i_exponent: int, form: Format) -> Any:
    """exp(−distance · 2^i_exponent) with fraction + growth bits after the point."""
    xp = array_namespace(distance)
    power = ((distance * form.log2e) << WHOLE) >> shift_of(i_exponent)
    whole = power >> form.fraction
    whole = xp.minimum(whole, xp.full_like(whole, SHIFT_MAXIMUM))
    mantissa = exponential(form.fraction).evaluate(power & ((1 << form.fraction) - 1))
    return (mantissa << form.growth) >> whole
