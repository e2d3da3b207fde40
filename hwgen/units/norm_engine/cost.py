"""Cycles of the norm engine."""

from __future__ import annotations

from typing import Any

from hwgen.units.dynatran import cost as dynatran
from hwgen.units.layer_norm import cost as layer_norm
from hwgen.units.residual_add import cost as residual_add
from hwgen.units.stages import COMPACT, EXPAND, ROW_START


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of one row: from its start to the write of its last beat, both included.

    Parameters
    ----------
    spec : NormEngineSpec, or an object whose modules have arrays that broadcast with `n`
    n : elements of the row, number or array
    """
    units = residual_add.latency(spec.residual_add) + layer_norm.cycles(spec.layer_norm, n)
    return ROW_START + EXPAND + units + dynatran.LATENCY + COMPACT


def load_cycles(spec: Any, n: Any) -> Any:
    """Cycles in which γ and β of rows of `n` elements go to the layer-norm module.

    Parameters
    ----------
    spec, n : as `cycles` takes them
    """
    return ROW_START + EXPAND + layer_norm.load_cycles(spec.layer_norm, n)
