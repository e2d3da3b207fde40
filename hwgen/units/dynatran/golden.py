"""Pruning of integers against a threshold, bit for bit."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any


def prune(value: Array, threshold: int, valid_mask: Array | None = None) -> tuple[Array, Array]:
    """Set to zero what is smaller in magnitude than a threshold.

    Parameters
    ----------
    value : integers of any shape
    threshold : smallest magnitude that is kept, at least 0 (`fixed_point.integer_threshold`)
    valid_mask : real positions, of a shape that broadcasts with `value`; others become zero

    Returns
    -------
    The pruned values, and their zero_mask: true where a value is not zero after pruning.

    Raises
    ------
    ValueError
        If the threshold is negative.
    """
    if threshold < 0:
        raise ValueError(f"threshold must be at least 0, not {threshold}")
    xp = array_namespace(value)
    # Two comparisons, because the most negative number has no magnitude in its own type.
    keep = (value >= threshold) | (value <= -threshold)
    if valid_mask is not None:
        keep = keep & (xp.asarray(valid_mask) != 0)
    pruned = xp.where(keep, value, xp.zeros_like(value))
    return pruned, pruned != 0
