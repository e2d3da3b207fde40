"""What a FIFO does, cycle by cycle."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from hwgen.units.fifo.cost import LATENCY
from hwgen.units.fifo.spec import FifoSpec

Array = Any


def golden(value: Array) -> Array:
    """Entries as they come out: all of them, in the order in which they came."""
    return value


def trace(write: Array, read: Array, spec: FifoSpec) -> tuple[Array, Array, Array]:
    """Say what a FIFO does from reset under given requests.

    An entry is taken where one is offered and the FIFO is not full; one is given where one is
    wanted and the oldest came at least `cost.LATENCY` cycles before. An entry that is given makes
    room in the next cycle.

    Parameters
    ----------
    write : whether an entry is offered (`i.valid`), shape (cycles,)
    read : whether one is wanted (`o.ready`), shape (cycles,)
    spec : the FIFO

    Returns
    -------
    Boolean arrays of shape (cycles,): whether an entry is taken, and whether one is given; and the
    level at the beginning of each cycle, int64.

    Raises
    ------
    ValueError
        If the requests are not of equal length.
    """
    xp = array_namespace(write, read)
    if write.shape != read.shape:
        raise ValueError(f"write and read must have one shape, not {write.shape} and {read.shape}")
    came: list[int] = []
    taken, given, level = [], [], []
    gone = 0
    for cycle in range(write.shape[0]):
        level.append(len(came) - gone)
        taken.append(bool(write[cycle]) and level[-1] < spec.depth)
        given.append(bool(read[cycle]) and gone < len(came) and came[gone] + LATENCY <= cycle)
        gone += given[-1]
        came += [cycle] * taken[-1]
    return xp.asarray(taken), xp.asarray(given), xp.asarray(level, dtype=xp.int64)
