"""Cycles of a FIFO."""

from __future__ import annotations

from typing import Any

from hwgen.units.stages import MEMORY

LATENCY = MEMORY
"""A write, and the read into the memory's output register."""


def latency(spec: Any) -> int:
    """Cycles that a job of n entries takes beyond n; the same for every spec."""
    return LATENCY


def cycles(spec: Any, beats: Any) -> Any:
    """Cycles of a job from reset, first input transfer to last output transfer inclusive.

    Parameters
    ----------
    spec : FifoSpec, or a namespace with arrays for its fields
    beats : entries, at least 1; integer or array
    """
    return beats + latency(spec)


def cycles_back_to_back(spec: Any, beats: Any) -> Any:
    """Cycles that a job adds which follows another without a gap."""
    return beats
