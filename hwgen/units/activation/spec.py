"""Parameters of an activation."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_choice, check_range


@dataclass(frozen=True, slots=True)
class ActivationSpec:
    """A non-linearity on numbers of `bits` bits.

    Parameters
    ----------
    bits : width of input and output, 4 to 24
    nonlinearity : "relu" or "gelu" (the erf form)

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    bits: int
    nonlinearity: str

    def __post_init__(self) -> None:
        check_range("bits", self.bits, 4, 24)
        check_choice("nonlinearity", self.nonlinearity, ("relu", "gelu"))
