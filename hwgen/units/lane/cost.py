"""Cycles of a lane."""

from __future__ import annotations

from typing import Any

from hwgen.units.dynatran import cost as dynatran
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity

START = 1
"""The cycle of the start, in which the first masks are read. None is spent at the end: what the
last unit hands over is written in the same cycle."""


def cycles(spec: Any, periods: Any, closing: Any) -> Any:
    """Cycles from a segment's start to its last write, both included.

    Parameters
    ----------
    spec : LaneSpec, or a namespace of `pre_sparsity` and `mac_lane`, whose fields may be arrays
    periods : `pre_sparsity.cost.periods` of the tile's dot products, summed; integer or array
    closing : whether the segment is the last of its dot products, whose sums then become results;
        boolean, 0 or 1, or an array of such
    """
    finish = dynatran.latency(spec) + post_sparsity.latency(spec)
    return (START + periods + pre_sparsity.latency(spec.pre_sparsity)
            + mac_lane.latency(spec.mac_lane) + closing * finish)
