"""Parameters of a stochastic rounding module."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_range
from hwgen.units.stochastic_rounding.noise import NOISE_BITS


@dataclass(frozen=True, slots=True)
class StochasticRoundingSpec:
    """A rounding of one accumulator a cycle.

    Parameters
    ----------
    accumulator_bits : width of the input, from `bits` + 1 to 62
    bits : width of the result, 4 to 24
    noise_bits : width of the noise and of its seeds, 8 to 24; the results' mean is off by at most
        2^−noise_bits of their last place

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    accumulator_bits: int
    bits: int
    noise_bits: int

    def __post_init__(self) -> None:
        check_range("bits", self.bits, 4, 24)
        check_range("accumulator_bits", self.accumulator_bits, self.bits + 1, 62)
        check_range("noise_bits", self.noise_bits, min(NOISE_BITS), max(NOISE_BITS))
