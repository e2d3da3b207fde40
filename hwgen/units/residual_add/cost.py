"""Cycles of the residual adder: modelled, not proven in RTL."""

from __future__ import annotations

from typing import Any

from hwgen.units.stages import beats

STAGES = 5
"""Input register, align, add, shift, round and saturate."""


def latency(spec: Any) -> Any:
    """Cycles of a row beyond its beats; an array where the spec's fields are arrays."""
    return STAGES + 0 * spec.parallel


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of `n` pairs of elements from reset: ⌈n/parallel⌉ + latency."""
    return beats(n, spec.parallel) + latency(spec)
