"""Cycles of a buffer's two sides; nothing in it ever waits."""

from __future__ import annotations

from typing import Any

MEMORIES = 2
"""Stages of a read before any logic: the memory of line entries, and those of values."""

ALIGN = 1
"""The stage that brings a piece to place 0."""

REQUEST = 1
"""The address register in front of a read, which belongs to whoever reads."""

STORE_LATENCY = 2
"""A piece with the number of its values; then turned to its place in a word."""

RETURN = 3
"""What storing takes beside a buffer: the register of the request, the memory of results that it
reads, and the cycle after the last piece in which words that are not full are written."""


def merge_levels(spec: Any) -> Any:
    """Stages that join the pieces of a line, two and two: log2 of their number."""
    return sum(1 * (spec.window > spec.piece * 2**level) for level in range(8))


def read_latency(spec: Any) -> Any:
    """Cycles from `read.enable` to `line.valid`.

    Parameters
    ----------
    spec : BufferSpec, or a namespace with arrays for `window` and `piece`
    """
    return MEMORIES + ALIGN + merge_levels(spec)


def read_overhead(spec: Any) -> Any:
    """Cycles that reading some lines takes beyond one a line."""
    return REQUEST + read_latency(spec)


def read_cycles(spec: Any, lines: Any) -> Any:
    """Cycles from the order to read to the last line, both included.

    Parameters
    ----------
    spec : BufferSpec, or a namespace with arrays for `window` and `piece`
    lines : lines that one port reads, or an array; 0 take no time
    """
    return (lines + read_overhead(spec)) * (lines > 0)


def store_latency(spec: Any) -> int:
    """Cycles from `store.enable` to the last write that it causes; the same for every spec."""
    return STORE_LATENCY


def store_overhead(spec: Any) -> int:
    """Cycles that storing some pieces takes beyond one a piece."""
    return RETURN + store_latency(spec)


def store_cycles(spec: Any, pieces: Any) -> Any:
    """Cycles from the order to store to the last write, both included.

    Parameters
    ----------
    spec : BufferSpec, or a namespace with arrays for its fields
    pieces : pieces that come through one port, or an array; 0 take no time
    """
    return (pieces + store_overhead(spec)) * (pieces > 0)
