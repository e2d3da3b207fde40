"""How a row engine stores the rows that it works on, and their results."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_power_of_two, check_range
from hwgen.units.lines import LineFormat
from hwgen.units.stages import beats


@dataclass(frozen=True, slots=True)
class RowStorage:
    """Memories for rows of lines, read by the beat, and for rows of pieces, written by the beat.

    A beat of more elements than a line has takes several lines, which stand side by side in
    memories of their own.

    Parameters
    ----------
    line : lines and pieces
    parallel : elements of a beat, a power of two from `line.piece` to 32
    max_row : elements of the longest row, 1 to 4096

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    line: LineFormat
    parallel: int
    max_row: int

    def __post_init__(self) -> None:
        check_power_of_two("parallel", self.parallel, 32)
        check_range("max_row", self.max_row, 1, 4096)
        if self.line.piece > self.parallel:
            raise ValueError(
                f"piece must be at most {self.parallel}, the elements of a beat, "
                f"not {self.line.piece}"
            )

    @property
    def row_lines(self) -> int:
        """Lines of the longest row."""
        return int(beats(self.max_row, self.line.window))

    @property
    def row_beats(self) -> int:
        """Beats of the longest row."""
        return int(beats(self.max_row, self.parallel))

    @property
    def row_pieces(self) -> int:
        """Pieces of the longest row."""
        return int(beats(self.max_row, self.line.piece))

    @property
    def ways(self) -> int:
        """Lines of a beat, and memories side by side: line v stands in memory v mod `ways`."""
        return max(1, self.parallel // self.line.window)

    @property
    def line_beats(self) -> int:
        """Beats of a line."""
        return max(1, self.line.window // self.parallel)

    @property
    def beat_pieces(self) -> int:
        """Pieces of a beat."""
        return self.parallel // self.line.piece

    @property
    def bank_entries(self) -> int:
        """Entries of a bank of a row memory."""
        return int(beats(self.row_lines, self.ways))

    def row_memories(self, banks: int) -> dict[str, tuple[int, int]]:
        """Entries and their width, in bits, of the memories of `banks` rows of lines, by name.

        A line's zero_mask is read some cycles before its values, and so has a memory of its own.
        """
        window, bits = self.line.window, self.line.bits
        entries = banks * self.bank_entries
        return {
            f"{name}_{way}": (entries, width)
            for way in range(self.ways)
            for name, width in (("zero_masks", window), ("values", window * bits))
        }

    def result_memory(self) -> tuple[int, int]:
        """Entries and their width, in bits, of the memory of two rows of results, by the beat."""
        return 2 * self.row_beats, self.parallel * (self.line.bits + 1)
