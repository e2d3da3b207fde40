"""Areas of a lane and of its memories, for any window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from constructions.points import Row

from hwgen.design import AcceleratorDesign
from hwgen.technology.sram import memory
from hwgen.units.lane.spec import LaneSpec
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

CLOCK_PS = 1429

SYNTHESISED = ((128, 16), (128, 32))
"""Windows, and FIFOs, of 16 multipliers of 20 bits that benchmarks/sparsity.csv does not have.
A window of 256 is hardly faster than one of 128, and is not synthesised."""


@dataclass(frozen=True)
class LaneArea:
    """Where a lane's area goes, in µm²; what was not synthesised is None.

    Parameters
    ----------
    pre_sparsity : standard cells of the gather
    other_logic : of mac_lane, dynatran and post_sparsity
    operand_memories : macros of values and masks, of two banks
    other_memories : macros of biases, sums and results
    """

    pre_sparsity: float | None
    other_logic: float
    operand_memories: float
    other_memories: float

    @property
    def total(self) -> float | None:
        """All of it."""
        if self.pre_sparsity is None:
            return None
        return self.pre_sparsity + self.other_logic + self.operand_memories + self.other_memories


def lane_spec(design: AcceleratorDesign) -> LaneSpec:
    """Spec of a design's lane."""
    return LaneSpec(
        pre_sparsity=design.pre_sparsity, mac_lane=design.mac_lane, piece=design.piece,
        tile_b=design.tile_b, tile_x=design.tile_x, tile_y=design.tile_y,
        segment_lines=design.k_segment // design.window, lanes=design.lanes_per_pe)


def named(spec: PreSparsitySpec) -> str:
    """Name of a point."""
    return f"pre_sparsity {spec.window} {spec.fifo_depth}"


def components(design: AcceleratorDesign) -> Iterator[tuple[str, Any, int, Callable[[], Any]]]:
    """Points that benchmarks/sparsity.csv lacks: name, spec, clock (ps), how to make it."""
    # Amaranth is needed here alone.
    from hwgen.units.dynatran.rtl import Dynatran
    from hwgen.units.pre_sparsity.rtl import PreSparsity

    pruning = lane_spec(design).dynatran
    yield "dynatran 1", pruning, CLOCK_PS, lambda: Dynatran(pruning)
    for window, depth in SYNTHESISED:
        spec = PreSparsitySpec(design.macs_per_lane, design.bits, window, depth)
        yield named(spec), spec, CLOCK_PS, lambda spec=spec: PreSparsity(spec)


def lane_area(design: AcceleratorDesign, points: Mapping[str, Row]) -> LaneArea:
    """Area of a design's lane; dynatran and post_sparsity are those of tiles of 16 × 16.

    Parameters
    ----------
    design : with the multipliers and the format of the points
    points : rows of benchmarks/sparsity.csv and benchmarks/pe.csv by component
    """
    def area(name: str) -> float:
        return float(points[name]["area_um2"])

    spec = lane_spec(design)
    gather = points.get(named(spec.pre_sparsity))
    assert gather is None or gather["spec"] == str(spec.pre_sparsity)
    macros = {name: memory(depth, width).area_um2
              for name, (depth, width) in spec.memories().items()}
    operands = sum(found for name, found in macros.items() if name.startswith(("left", "right")))
    return LaneArea(
        None if gather is None else float(gather["area_um2"]),
        area("mac_lane") + area("dynatran 1") + area("post_sparsity"),
        operands, sum(macros.values()) - operands)
