"""Cycles of the softmax engine."""

from __future__ import annotations

from typing import Any

from hwgen.units.dynatran import cost as dynatran
from hwgen.units.softmax import cost as softmax
from hwgen.units.stages import COMPACT, EXPAND, ROW_START


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of one row: from its start to the write of its last beat, both included.

    Parameters
    ----------
    spec : SoftmaxEngineSpec, or an object whose `softmax` has arrays that broadcast with `n`
    n : elements of the row, number or array
    """
    return ROW_START + EXPAND + softmax.cycles(spec.softmax, n) + dynatran.LATENCY + COMPACT
