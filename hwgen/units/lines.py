"""How operands are stored and moved: lines of a window, made of pieces."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_power_of_two, check_range


@dataclass(frozen=True, slots=True)
class LineFormat:
    """A line is one window of one row of an operand: its non-zeros in order, and its zero_mask.

    It is stored as pieces, one in each bank of a buffer, because results come in pieces.

    Parameters
    ----------
    bits : width of a value, 4 to 24
    window : positions of a line, a power of two up to 256
    piece : positions of a piece, a power of two up to `window`

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    bits: int
    window: int
    piece: int

    def __post_init__(self) -> None:
        check_range("bits", self.bits, 4, 24)
        check_power_of_two("window", self.window, 256)
        check_power_of_two("piece", self.piece, self.window)

    @property
    def pieces(self) -> int:
        """Pieces of a line, and banks of a buffer."""
        return self.window // self.piece
