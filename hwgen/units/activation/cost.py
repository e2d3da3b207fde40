"""Cycles of an activation."""

from __future__ import annotations

from typing import Any


def latency(spec: Any) -> Any:
    """Cycles from a value's transfer in to its transfer out.

    relu shifts (1) and rounds (1). gelu aligns the argument (1), looks up (1), takes Horner's three
    steps in one and twice two stages (5) and the product with x in one (1), whose carries are added
    with the shift, and then does what relu does.

    Parameters
    ----------
    spec : ActivationSpec, or an object with `nonlinearity`, a string or an array of strings
    """
    return 2 + 8 * (spec.nonlinearity == "gelu")


def cycles(spec: Any, beats: Any) -> Any:
    """Cycles from the first transfer in to the last transfer out, for one value a beat."""
    return beats + latency(spec)
