"""Cycles in which a buffer gives lines and takes pieces."""

from __future__ import annotations

from typing import Any

FIXED = 3
"""Cycles of a line beyond the network that puts its pieces together: directory, words, output."""

STORE = 5
"""Cycles from the last piece until all of its line can be read."""

LONGEST_TREE = 8
"""Levels of the network for the most pieces, 256."""


def read_latency(spec: Any) -> Any:
    """Cycles from a line's request to the line; an array where the spec's fields are arrays.

    Parameters
    ----------
    spec : what has `window` and `piece`, positions of a line and of a piece
    """
    pieces = spec.window // spec.piece
    return FIXED + sum(1 * (pieces > 2**level) for level in range(LONGEST_TREE))


def read_cycles(spec: Any, lines: Any) -> Any:
    """Cycles in which `lines` lines are read one after another; none for none.

    Parameters
    ----------
    spec : as in `read_latency`
    lines : number or array
    """
    return (lines + read_latency(spec) + 1) * (lines > 0)


def store_cycles(spec: Any, pieces: Any) -> Any:
    """Cycles in which `pieces` pieces are stored one after another; none for none."""
    return (pieces + STORE) * (pieces > 0)
