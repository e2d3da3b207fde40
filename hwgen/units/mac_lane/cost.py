"""Cycles of a MAC lane, and what it costs."""

from __future__ import annotations

from typing import Any

from hwgen.units.activation import cost as activation_cost
from hwgen.units.ppa import Ppa
from hwgen.units.stages import carry_save_levels, tree_levels

FIRST_LEVELS = 8
"""Levels of full adders in the cycle of the multipliers."""

LAST_LEVELS = 4
"""Levels of full adders in the cycle that accumulates."""


def latency(spec: Any) -> Any:
    """Cycles from the transfer of a dot product's last beat to that of its result.

    One for multipliers and the first levels of the carry-save tree, one for the others and the
    accumulator, two to shift and round, and those of the non-linearity, which a result takes
    whether or not it is applied. A tree of more than 12 levels takes one more, and so does
    stochastic rounding.

    Parameters
    ----------
    spec : MacLaneSpec, or an object whose fields are arrays
    """
    deep = carry_save_levels(tree_rows(spec)) > FIRST_LEVELS + LAST_LEVELS
    return 4 + 1 * deep + 1 * (spec.noise_bits > 0) + activation_cost.latency(spec)


def tree_rows(spec: Any) -> Any:
    """Rows that a beat's carry-save tree sums.

    ⌈bits / 2⌉ Booth digits a multiplier and a row of their carries, the initial value, constants.
    """
    return spec.macs * ((spec.bits + 1) // 2 + 1) + 2


def cycles(spec: Any, beats: Any) -> Any:
    """Cycles from the first transfer in to the last transfer out.

    Parameters
    ----------
    spec : MacLaneSpec, or an object whose fields are arrays
    beats : input beats of all dot products; they, and jobs, follow one another without a gap, so
        a second job straight after the first adds its beats alone
    """
    return beats + latency(spec)


def beats_of(spec: Any, length: Any) -> Any:
    """Input beats of a dot product of `length` pairs; an empty one takes a beat of zeros."""
    beats = -(-length // spec.macs)
    return beats + 1 * (beats < 1)


def _terms(spec: Any) -> tuple[Any, ...]:
    """Multipliers, their registers, accumulator and rounding, noise, and the non-linearity.

    The more pairs a sum has, the more sparse operands leave for the non-linearity to switch at.
    """
    gelu = spec.bits * (spec.nonlinearity == "gelu")
    return (
        spec.macs * spec.bits**2,
        spec.macs * spec.bits,
        spec.bits,
        1,
        spec.noise_bits,
        gelu,
        gelu * tree_levels(spec.macs),
    )


PPA = Ppa(
    "mac_lane",
    ("macs", "bits", "accumulator_bits", "nonlinearity", "noise_bits"),
    _terms,
    operations=lambda spec: spec.macs,
    related=(("accumulator_bits - 2 * bits", lambda spec: spec.accumulator_bits - 2 * spec.bits),),
)
"""What a lane costs; an operation is a pair of a multiplier."""
