"""Cycles of a MAC lane."""

from __future__ import annotations

from typing import Any

from hwgen.units.activation import cost as activation_cost


def latency(spec: Any) -> Any:
    """Cycles from the transfer of a dot product's last beat to that of its result.

    Two for the multiplication, log2 macs for the adder tree, one to accumulate, three to shift and
    round, and those of the non-linearity, which a result takes whether or not it is applied.

    Parameters
    ----------
    spec : MacLaneSpec, or an object whose `macs` and `nonlinearity` are arrays
    """
    # Counting the powers of two below `macs` needs no logarithm, and so no array library.
    levels = sum(1 * (spec.macs > 1 << level) for level in range(6))
    return 6 + levels + activation_cost.latency(spec)


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
