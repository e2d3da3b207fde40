"""Parameters of a softmax module."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_power_of_two, check_range


@dataclass(frozen=True, slots=True)
class SoftmaxSpec:
    """Softmax over rows of up to `max_row` elements, `parallel` a beat.

    Parameters
    ----------
    parallel : elements a beat, a power of two from 1 to 32
    bits : width of input and output, 4 to 24
    max_row : longest row, 1 to 4096 elements

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    parallel: int
    bits: int
    max_row: int

    def __post_init__(self) -> None:
        check_power_of_two("parallel", self.parallel, 32)
        check_range("bits", self.bits, 4, 24)
        check_range("max_row", self.max_row, 1, 4096)
