"""Cycles of a stochastic rounding module, and what it costs."""

from __future__ import annotations

from typing import Any

from hwgen.units.ppa import Ppa

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


def _terms(spec: Any) -> tuple[Any, ...]:
    """Registers and adders, and the shifter's levels."""
    return spec.accumulator_bits, 1


PPA = Ppa(
    "stochastic_rounding",
    ("accumulator_bits", "bits", "noise_bits"),
    _terms,
    operations=lambda spec: 1,
    related=(("accumulator_bits - 2 * bits", lambda spec: spec.accumulator_bits - 2 * spec.bits),),
)
"""What a module costs; an operation is a result."""
