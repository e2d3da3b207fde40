"""Parameters of a layer-norm module."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_power_of_two, check_range


@dataclass(frozen=True, slots=True)
class LayerNormSpec:
    """Layer norm over rows of up to `max_row` elements, `parallel` a beat.

    Parameters
    ----------
    parallel : elements a beat, a power of two from 1 to 32
    bits : width of input and output, 4 to 24
    max_row : longest row, 1 to 4096 elements
    epsilon : what is added to the variance, above 0

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    parallel: int
    bits: int
    max_row: int
    epsilon: float

    def __post_init__(self) -> None:
        check_power_of_two("parallel", self.parallel, 32)
        check_range("bits", self.bits, 4, 24)
        check_range("max_row", self.max_row, 1, 4096)
        if not 0 < self.epsilon < 1:
            raise ValueError(f"epsilon must be above 0 and below 1, not {self.epsilon}")
