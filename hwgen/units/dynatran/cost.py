"""Cycles of a dynatran module, and what it costs."""

from __future__ import annotations

from typing import Any

from hwgen.units.ppa import Ppa
from hwgen.units.stages import tree_levels

LATENCY = 1
"""The register slice at the output."""


def latency(spec: Any) -> int:
    """Cycles that a job of n beats takes beyond n; the same for every spec."""
    return LATENCY


def cycles(spec: Any, beats: Any) -> Any:
    """Cycles of a job from reset, first input transfer to last output transfer inclusive.

    Parameters
    ----------
    spec : DynatranSpec, or a namespace with arrays for its fields
    beats : beats of `parallel` values, at least 1; integer or array
    """
    return beats + latency(spec)


def cycles_back_to_back(spec: Any, beats: Any) -> Any:
    """Cycles that a job adds which follows another without a gap."""
    return beats


def _terms(spec: Any) -> tuple[Any, ...]:
    """A value's comparison and registers, a beat's own, and what drives the threshold to all."""
    levels = tree_levels(spec.parallel)
    return spec.parallel * spec.bits, spec.parallel, spec.bits, levels * spec.bits, levels


PPA = Ppa("dynatran", ("parallel", "bits"), _terms, operations=lambda spec: spec.parallel)
"""What a module costs; an operation is an element."""
