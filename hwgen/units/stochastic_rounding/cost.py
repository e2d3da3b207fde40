"""Cycles of a stochastic rounding module."""

from __future__ import annotations

from typing import Any

LATENCY = 3
"""Two stages of shifting; rounding and saturation."""


def latency(spec: Any) -> int:
    """Cycles that a job of n elements takes beyond n; the same for every spec."""
    return LATENCY


def cycles(spec: Any, elements: Any) -> Any:
    """Cycles of a job from reset, first input transfer to last output transfer inclusive.

    Parameters
    ----------
    spec : StochasticRoundingSpec, or a namespace with arrays for its fields
    elements : elements of all tiles, at least 1; integer or array
    """
    return elements + latency(spec)


def cycles_back_to_back(spec: Any, elements: Any) -> Any:
    """Cycles that a tile adds which follows another without a gap."""
    return elements
