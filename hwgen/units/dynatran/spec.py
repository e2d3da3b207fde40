"""Parameters of a dynatran module."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_range


@dataclass(frozen=True, slots=True)
class DynatranSpec:
    """A comparator bank of `parallel` values a beat.

    Parameters
    ----------
    parallel : values a beat, 1 to 64
    bits : width of a value, 4 to 24

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    parallel: int
    bits: int

    def __post_init__(self) -> None:
        check_range("parallel", self.parallel, 1, 64)
        check_range("bits", self.bits, 4, 24)
