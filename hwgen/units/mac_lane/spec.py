"""Parameters of a MAC lane."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_choice, check_power_of_two, check_range
from hwgen.units.stochastic_rounding.noise import NOISE_BITS


@dataclass(frozen=True, slots=True)
class MacLaneSpec:
    """A lane of `macs` multipliers of `bits` × `bits`.

    Parameters
    ----------
    macs : multipliers, a power of two from 1 to 64
    bits : width of an operand and of a result, 4 to 24
    accumulator_bits : 2·bits + ⌈log2 of the longest dot product⌉
    nonlinearity : "relu" or "gelu"
    noise_bits : width of the noise of stochastic rounding, 8 to 24; 0 for a lane that only rounds
        to nearest

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    macs: int
    bits: int
    accumulator_bits: int
    nonlinearity: str
    noise_bits: int = 0

    def __post_init__(self) -> None:
        check_power_of_two("macs", self.macs, 64)
        check_range("bits", self.bits, 4, 24)
        check_range("accumulator_bits", self.accumulator_bits, 2 * self.bits, 62)
        check_choice("nonlinearity", self.nonlinearity, ("relu", "gelu"))
        check_choice("noise_bits", self.noise_bits, (0, *NOISE_BITS))
