"""Cycles of a FIFO, and what it costs."""

from __future__ import annotations

from typing import Any

from hwgen.units.ppa import Ppa
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


def _terms(spec: Any) -> tuple[Any, ...]:
    """Entries that are registers, the output register, addresses and level."""
    return spec.bits * spec.depth, spec.bits, spec.depth, 1


PPA = Ppa("fifo", ("bits", "depth"), _terms, operations=lambda spec: 1)
"""What a queue costs; an operation is an entry."""
