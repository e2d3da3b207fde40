"""Compression of a tile to zero-free form, and back."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any


def compress(value: Array) -> tuple[Array, Array]:
    """Split values into those that are not zero, in order, and their zero_mask.

    Parameters
    ----------
    value : integers, shape (elements,)

    Returns
    -------
    Zero-free values, shape (non-zeros,), and the zero_mask, shape (elements,), true where not zero.
    """
    zero_mask = value != 0
    return value[zero_mask], zero_mask


def decompress(value: Array, zero_mask: Array) -> Array:
    """Put zero-free values back where their zero_mask says; what follows the last used is ignored.

    Parameters
    ----------
    value : zero-free values, shape (at least the non-zeros,)
    zero_mask : shape (elements,), true where not zero
    """
    xp = array_namespace(value, zero_mask)
    present = zero_mask != 0
    result = xp.zeros(zero_mask.shape, dtype=value.dtype)
    result[present] = value[: int(xp.sum(xp.astype(present, xp.int64)))]
    return result


def words(value: Array, size: int) -> tuple[Array, Array]:
    """Cut a vector into beats of `size`, at least one, the last filled up with zeros.

    Returns
    -------
    Beats, shape (beats, size), and how many elements each holds, shape (beats,).
    """
    xp = array_namespace(value)
    elements = value.shape[0]
    beats = max(1, -(-elements // size))
    filled = xp.zeros(beats * size, dtype=value.dtype)
    filled[:elements] = value
    count = xp.clip(elements - size * xp.arange(beats, dtype=xp.int64), 0, size)
    return xp.reshape(filled, (beats, size)), count
