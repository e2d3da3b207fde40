"""Parameters of a FIFO."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_range


@dataclass(frozen=True, slots=True)
class FifoSpec:
    """A queue of `depth` entries.

    Parameters
    ----------
    bits : width of an entry, 1 to 4096
    depth : entries, 4 to 4096

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    bits: int
    depth: int

    def __post_init__(self) -> None:
        check_range("bits", self.bits, 1, 4096)
        check_range("depth", self.depth, 4, 4096)
