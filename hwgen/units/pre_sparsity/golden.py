"""Effectual pairs of two operands, bit for bit."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any


def pairs_per_window(left_zero_mask: Array, right_zero_mask: Array, window: int) -> Array:
    """Count the positions of each window where neither operand is zero.

    Parameters
    ----------
    left_zero_mask, right_zero_mask : true where not zero, shapes (..., positions) that broadcast
    window : positions in a window; the last window may be partial

    Returns
    -------
    int64 of shape (..., windows)
    """
    xp = array_namespace(left_zero_mask, right_zero_mask)
    both = xp.astype((left_zero_mask != 0) & (right_zero_mask != 0), xp.int64)
    length = both.shape[-1]
    windows = -(-length // window)
    padding = xp.zeros((*both.shape[:-1], windows * window - length), dtype=xp.int64)
    cut = xp.reshape(xp.concat([both, padding], axis=-1), (*both.shape[:-1], windows, window))
    return xp.sum(cut, axis=-1)


def gather(left: Array, left_zero_mask: Array, right: Array, right_zero_mask: Array
           ) -> tuple[Array, Array]:
    """Effectual pairs of two zero-free operands, in order.

    Parameters
    ----------
    left, right : zero-free values; what follows the last used is ignored
    left_zero_mask, right_zero_mask : shape (positions,), true where not zero

    Returns
    -------
    Left and right values of the positions where neither is zero, each of shape (pairs,).
    """
    xp = array_namespace(left, left_zero_mask, right, right_zero_mask)
    both = (left_zero_mask != 0) & (right_zero_mask != 0)
    result = []
    for value, zero_mask in ((left, left_zero_mask), (right, right_zero_mask)):
        # The rank of a position among those that are not zero is its place in the zero-free form.
        rank = xp.cumulative_sum(xp.astype(zero_mask != 0, xp.int64)) - 1
        result.append(value[rank[both]])
    return result[0], result[1]


def beats(left: Array, left_zero_mask: Array, right: Array, right_zero_mask: Array, macs: int,
          window: int) -> tuple[Array, Array]:
    """Cut one dot product into the beats that a module gives, the last of which ends it.

    Effectual pairs come `macs` a beat, unused places zero. A last window without pairs after whole
    beats (or after nothing) adds an empty beat.

    Parameters
    ----------
    left, left_zero_mask, right, right_zero_mask : as for `gather`
    macs, window : of the spec

    Returns
    -------
    Left and right values, each of shape (beats, macs).
    """
    xp = array_namespace(left, left_zero_mask, right, right_zero_mask)
    pairs = gather(left, left_zero_mask, right, right_zero_mask)
    count = pairs[0].shape[0]
    last_window = int(pairs_per_window(left_zero_mask, right_zero_mask, window)[-1])
    number = -(-count // macs) + (last_window == 0 and count % macs == 0)
    result = []
    for value in pairs:
        filled = xp.zeros(number * macs, dtype=value.dtype)
        filled[:count] = value
        result.append(xp.reshape(filled, (number, macs)))
    return result[0], result[1]
