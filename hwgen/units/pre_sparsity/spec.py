"""Parameters of a pre-sparsity module."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_power_of_two, check_range


@dataclass(frozen=True, slots=True)
class PreSparsitySpec:
    """A gather from windows of two zero-free operands.

    Parameters
    ----------
    macs : pairs that leave in a cycle, a power of two from 1 to 64
    bits : width of a value, 4 to 24
    window : positions that are looked at in a cycle, a power of two from `macs` to 256
    fifo_depth : pairs that the FIFO holds, a multiple of `macs` up to 1024. A window stays until
        all its pairs are in: with `macs`, what is left of it after whole beats takes a cycle of its
        own; with 2·`macs` it goes in with the last of them; with more, the pairs of a full window
        leave while windows with few are looked at

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    macs: int
    bits: int
    window: int
    fifo_depth: int

    def __post_init__(self) -> None:
        check_power_of_two("macs", self.macs, 64)
        check_range("bits", self.bits, 4, 24)
        check_power_of_two("window", self.window, 256)
        if self.window < self.macs:
            raise ValueError(f"window must be at least macs = {self.macs}, not {self.window}")
        check_range("fifo_depth", self.fifo_depth, self.macs, 1024)
        if self.fifo_depth % self.macs:
            raise ValueError(f"fifo_depth must be a multiple of macs = {self.macs}, "
                             f"not {self.fifo_depth}")
