"""Parameters of a norm engine."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.lines import LineFormat
from hwgen.units.residual_add.spec import ResidualAddSpec
from hwgen.units.row_storage import RowStorage

ROW_BANKS = 3
"""Rows that an operand's memory holds: two of an addend, and γ or β."""


@dataclass(frozen=True, slots=True)
class NormEngineSpec:
    """A residual adder and a layer-norm module with memories for operands and results.

    Parameters
    ----------
    residual_add, layer_norm : the modules, of one `parallel` and one `bits`
    window : positions of a line, a power of two up to 256
    piece : positions of a piece of a result, a power of two up to `window` and to `parallel`

    Raises
    ------
    ValueError
        If a parameter is outside its range, or the two modules do not fit each other.
    """

    residual_add: ResidualAddSpec
    layer_norm: LayerNormSpec
    window: int
    piece: int

    def __post_init__(self) -> None:
        for name in ("parallel", "bits"):
            added, normed = getattr(self.residual_add, name), getattr(self.layer_norm, name)
            if added != normed:
                raise ValueError(
                    f"{name} of residual_add and of layer_norm must be equal, "
                    f"not {added} and {normed}"
                )
        _ = self.rows

    @property
    def line(self) -> LineFormat:
        """Lines of rows, and pieces of results."""
        return LineFormat(self.layer_norm.bits, self.window, self.piece)

    @property
    def rows(self) -> RowStorage:
        """How rows and results are stored."""
        return RowStorage(self.line, self.layer_norm.parallel, self.layer_norm.max_row)

    @property
    def dynatran(self) -> DynatranSpec:
        """The comparators that prune the normalised elements."""
        return DynatranSpec(self.layer_norm.parallel, self.layer_norm.bits)

    @property
    def row_lines(self) -> int:
        """Lines of the longest row."""
        return self.rows.row_lines

    def memories(self) -> dict[str, tuple[int, int]]:
        """Entries and their width, in bits, of the engine's own memories, by name.

        Memories `a` hold addend a and γ, memories `b` addend b and β. Those of the layer-norm
        module are `layer_norm.cost.macros`.
        """
        stored = self.rows.row_memories(ROW_BANKS)
        rows = {f"{side}_{name}": size for side in "ab" for name, size in stored.items()}
        return {**rows, "results": self.rows.result_memory()}
