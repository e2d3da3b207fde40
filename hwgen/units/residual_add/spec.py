"""Parameters of a residual adder."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_power_of_two, check_range


@dataclass(frozen=True, slots=True)
class ResidualAddSpec:
    """An adder of two tensors, `parallel` elements a beat.

    Parameters
    ----------
    parallel : elements a beat, a power of two from 1 to 32
    bits : width of inputs and output, 4 to 24

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    parallel: int
    bits: int

    def __post_init__(self) -> None:
        check_power_of_two("parallel", self.parallel, 32)
        check_range("bits", self.bits, 4, 24)
