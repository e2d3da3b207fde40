"""Pipeline stages that several units' cycle counts are made of."""

from __future__ import annotations

from typing import Any

MULTIPLY = 3
"""Stages of a multiplication: four partial products, two sums, one sum."""

MEMORY = 2
"""Cycles from a write into an empty queue with synchronous memory until its entry can be read."""


def tree_levels(width: Any) -> Any:
    """⌈log2 width⌉ for a width of 1 to 64, for a number and for arrays alike."""
    return sum(1 * (width > 2**level) for level in range(6))


def beats(n: Any, parallel: Any) -> Any:
    """⌈n / parallel⌉ for numbers and for arrays alike."""
    return -(-n // parallel)
