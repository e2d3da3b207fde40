"""Parameters of a softmax engine."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.lines import LineFormat
from hwgen.units.row_storage import RowStorage
from hwgen.units.softmax.spec import SoftmaxSpec


@dataclass(frozen=True, slots=True)
class SoftmaxEngineSpec:
    """A softmax module with memories for the rows that it works on, and for their results.

    Parameters
    ----------
    softmax : the module; its `parallel` elements are a beat
    window : positions of a line, a power of two up to 256
    piece : positions of a piece of a result, a power of two up to `window` and to `parallel`

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    softmax: SoftmaxSpec
    window: int
    piece: int

    def __post_init__(self) -> None:
        _ = self.rows

    @property
    def line(self) -> LineFormat:
        """Lines of rows, and pieces of results."""
        return LineFormat(self.softmax.bits, self.window, self.piece)

    @property
    def rows(self) -> RowStorage:
        """How rows and results are stored."""
        return RowStorage(self.line, self.softmax.parallel, self.softmax.max_row)

    @property
    def dynatran(self) -> DynatranSpec:
        """The comparators that prune the probabilities."""
        return DynatranSpec(self.softmax.parallel, self.softmax.bits)

    @property
    def row_lines(self) -> int:
        """Lines of the longest row."""
        return self.rows.row_lines

    def memories(self) -> dict[str, tuple[int, int]]:
        """Entries and their width, in bits, of the engine's own memories, by name.

        Those of the softmax module are `softmax.cost.macros`.
        """
        return {**self.rows.row_memories(2), "results": self.rows.result_memory()}
