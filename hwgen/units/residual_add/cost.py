"""Cycles of the residual adder, and what it costs."""

from __future__ import annotations

from typing import Any

from hwgen.units.ppa import Ppa
from hwgen.units.stages import beats

STAGES = 5
"""Shift onto one grid, two of adding, shift up, round and saturate."""


def latency(spec: Any) -> Any:
    """Cycles of a row beyond its beats; an array where the spec's fields are arrays."""
    return STAGES + 0 * spec.parallel


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of `n` pairs of elements from reset: ⌈n/parallel⌉ + latency."""
    return beats(n, spec.parallel) + latency(spec)


def cycles_back_to_back(spec: Any, n: Any) -> Any:
    """Cycles that a row of `n` pairs adds which follows another without a gap."""
    return beats(n, spec.parallel)


def _terms(spec: Any) -> tuple[Any, ...]:
    """An element's shifters, adder and registers, and a beat's own."""
    return spec.parallel * spec.bits, spec.parallel, 1


PPA = Ppa("residual_add", ("parallel", "bits"), _terms, operations=lambda spec: spec.parallel)
"""What a module costs; an operation is an element of both operands."""
