"""Cycles of a norm engine: two rows from its row memories to one in its result memory."""

from __future__ import annotations

from typing import Any

from hwgen.units.dynatran import cost as dynatran
from hwgen.units.layer_norm import cost as layer_norm
from hwgen.units.residual_add import cost as residual_add

START = 2
"""Cycles from the start of a wave to the first lines."""

EXPAND = 3
"""Cycles from a line to its first beat."""

COMPACT = 2
"""Cycles from a beat to its last piece."""

END = 1
"""Cycles from the last piece, or the last beat of γ and β, to the report that the engine has
ended."""


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of a row of `n` elements; an array where `n` or a field of the spec is one.

    Parameters
    ----------
    spec : what has the specs `residual_add` and `layer_norm`
    n : elements of the row
    """
    row = residual_add.latency(spec.residual_add) + layer_norm.cycles(spec.layer_norm, n)
    return START + EXPAND + row + dynatran.LATENCY + COMPACT + END


def load_cycles(spec: Any, n: Any) -> Any:
    """Cycles in which γ and β of rows of `n` elements go into the layer norm."""
    return START + EXPAND + layer_norm.load_cycles(spec.layer_norm, n) + END
