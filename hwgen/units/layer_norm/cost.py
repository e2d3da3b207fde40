"""Cycles of the layer-norm module: modelled, not proven in RTL."""

from __future__ import annotations

from typing import Any

from hwgen.units.stages import MEMORY, MULTIPLY, beats, tree_levels

WIDE_MULTIPLY = MULTIPLY + 1
"""Stages where one operand is wider than 32 bits."""

SUMS = 1 + MULTIPLY + 1
"""Input register, square, running sum (the adder tree comes on top)."""

VARIANCE = WIDE_MULTIPLY + 1 + 3 + 4
"""n·Σx² and (Σx)², their difference; normalise; align with ε, add, normalise."""

RECIPROCAL_ROOT = 1 + MULTIPLY + 1 + MULTIPLY + 1
"""Table, product, sum, product, sum: a piecewise quadratic polynomial."""

NORMALISE = MULTIPLY + 1 + WIDE_MULTIPLY + WIDE_MULTIPLY + 2 + 1 + 1
"""n·x, minus Σx, times γ, times the root, shift, plus β, round and saturate."""


def latency(spec: Any) -> Any:
    """Cycles of a row beyond its two passes; `spec` may hold arrays."""
    return (
        SUMS + tree_levels(spec.parallel) + VARIANCE + RECIPROCAL_ROOT + MEMORY + NORMALISE + MEMORY
    )


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of one row of `n` elements from reset: 2·(⌈n/parallel⌉ − 1) + 1 + latency.

    One pass forms the sums while it stores the row, one normalises it.

    Parameters
    ----------
    spec : LayerNormSpec, or an object whose fields are arrays that broadcast with `n`
    n : elements of the row, number or array
    """
    return 2 * (beats(n, spec.parallel) - 1) + 1 + latency(spec)
