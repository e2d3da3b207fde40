"""Cycles of a softmax engine: a row from its row memory to its result memory."""

from __future__ import annotations

from typing import Any

from hwgen.units.dynatran import cost as dynatran
from hwgen.units.softmax import cost as softmax

START = 2
"""Cycles from the start of a wave to the first line."""

EXPAND = 3
"""Cycles from a line to its first beat."""

COMPACT = 2
"""Cycles from a beat to its last piece."""

END = 1
"""Cycles from the last piece to the engine's report that it has ended."""


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of a row of `n` elements; an array where `n` or a field of the spec is one.

    Parameters
    ----------
    spec : what has the spec `softmax`
    n : elements of the row
    """
    row = softmax.cycles(spec.softmax, n) + dynatran.LATENCY
    return START + EXPAND + row + COMPACT + END
