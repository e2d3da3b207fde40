"""Parameters of a lane."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_power_of_two, check_range
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.lines import LineFormat
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.post_sparsity.spec import PostSparsitySpec
from hwgen.units.pre_sparsity.spec import PreSparsitySpec


@dataclass(frozen=True, slots=True)
class LaneSpec:
    """A lane: pre_sparsity, mac_lane, dynatran and post_sparsity between its memories.

    Parameters
    ----------
    pre_sparsity, mac_lane : the units that compute, of the same `bits` and `macs`
    piece : results that are compressed together, a power of two that divides `tile_x`, `tile_y` and
        the window
    tile_b, tile_x, tile_y : extents of an output tile, `tile_b` from 1 to 64, the others powers of
        two up to 64
    segment_lines : windows of a segment, 1 to 64
    lanes : lanes of a processing element, 1 to 256: indices of tiles in a block are below it

    Raises
    ------
    ValueError
        If a parameter is outside its range, or the units do not fit one another.
    """

    pre_sparsity: PreSparsitySpec
    mac_lane: MacLaneSpec
    piece: int
    tile_b: int
    tile_x: int
    tile_y: int
    segment_lines: int
    lanes: int

    def __post_init__(self) -> None:
        for name in ("bits", "macs"):
            gathered, multiplied = (getattr(unit, name)
                                    for unit in (self.pre_sparsity, self.mac_lane))
            if gathered != multiplied:
                raise ValueError(f"{name} of pre_sparsity and of mac_lane must be equal, not "
                                 f"{gathered} and {multiplied}")
        check_range("tile_b", self.tile_b, 1, 64)
        check_power_of_two("tile_x", self.tile_x, 64)
        check_power_of_two("tile_y", self.tile_y, 64)
        check_power_of_two("piece", self.piece, min(self.tile_x, self.tile_y, self.window))
        check_range("segment_lines", self.segment_lines, 1, 64)
        check_range("lanes", self.lanes, 1, 256)

    @property
    def bits(self) -> int:
        """Width of a value."""
        return self.mac_lane.bits

    @property
    def window(self) -> int:
        """Positions of a line."""
        return self.pre_sparsity.window

    @property
    def line(self) -> LineFormat:
        """How operands come, and of which pieces results are."""
        return LineFormat(self.bits, self.window, self.piece)

    @property
    def dynatran(self) -> DynatranSpec:
        """What prunes a result."""
        return DynatranSpec(1, self.bits)

    @property
    def post_sparsity(self) -> PostSparsitySpec:
        """What compresses a piece of results."""
        return PostSparsitySpec(self.bits, self.piece, self.piece)

    @property
    def dots(self) -> int:
        """Dot products of a full tile."""
        return self.tile_b * self.tile_x * self.tile_y

    def memories(self) -> dict[str, tuple[int, int]]:
        """Entries and width in bits of each memory, by name; every one has two banks.

        The banks of partial sums are memories of their own: while one is computed with, sums of the
        other may leave and come back.

        Operands lie at addresses of powers of two: those of a `tile_b` between two are not used.
        """
        matrices = 1 << (self.tile_b - 1).bit_length()
        rows = 2 * matrices * self.segment_lines
        values = self.window * self.bits
        return {
            "left_masks": (rows * self.tile_x, self.window),
            "left_values": (rows * self.tile_x, values),
            "right_masks": (rows * self.tile_y, self.window),
            "right_values": (rows * self.tile_y, values),
            "biases": (2 * self.tile_y, self.mac_lane.accumulator_bits),
            "sums_0": (self.dots, self.mac_lane.accumulator_bits),
            "sums_1": (self.dots, self.mac_lane.accumulator_bits),
            "results": (2 * self.dots // self.piece, self.piece * (self.bits + 1)),
        }
