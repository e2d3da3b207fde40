"""Cycles of a lane: a tile's segment, from its start to its last partial sum or result."""

from __future__ import annotations

from typing import Any

from hwgen.units.dynatran import cost as dynatran
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity

START = 2
"""Cycles from the start of a wave to the first window in pre_sparsity."""

END = 2
"""Cycles from the last transfer to the lane's report that it has ended."""


def cycles(spec: Any, periods: Any, closing: Any) -> Any:
    """Cycles of a wave in a lane; an array where an argument is one.

    Parameters
    ----------
    spec : what has the specs `pre_sparsity` and `mac_lane`
    periods : sum of the periods of the lane's dot products
    closing : whether the segment is the last, after which results leave; else sums stay
    """
    through = pre_sparsity.latency(spec.pre_sparsity) + mac_lane.latency(spec.mac_lane)
    leaving = dynatran.LATENCY + post_sparsity.LATENCY
    return START + periods + through + closing * leaving + END
