"""What zero-skipping is worth for its area: python benchmarks/sparsity.py [POINTS.csv].

The lane of `edge` with pre_sparsity, dynatran and post_sparsity against the lane alone, which does
`macs` pairs a cycle, effectual or not. Speed-ups are exact expectations for independent random
masks (hwgen/units/pre_sparsity/cost.py); areas are those of the points, by default
benchmarks/sparsity.csv: flip-flops and logic in Nangate45, synthesised for 700 MHz as the units
are. Effectual products a second and mm² are at the lane's clock; "ratio" is theirs to those of the
dense lane.

The second table compares constructions of the same function: networks of switches that bring values
to their columns, a full gather (each place of the FIFO chooses among all values of a window), and
windows that a decompressor has already brought to their positions, once for all lanes of a PE.

--synthesise measures what has changed of the points again (minutes; needs the tools that
`transcode characterize` needs).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from constructions.points import read, refresh

from hwgen.design import AcceleratorDesign, default_fifo_depth
from hwgen.units.pre_sparsity.cost import cycles_distribution, mean
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

POINTS = Path(__file__).with_suffix(".csv")
DENSITIES = ((1.0, 1.0), (1.0, 0.5), (1.0, 0.25), (0.5, 0.5), (0.5, 0.25), (0.25, 0.25))
LENGTHS = (128, 768)
COMPARED = (0.5, 0.5)
CLOCK_PS = 1429
CONSTRUCTIONS = {
    "pre_sparsity": "networks of 16 (pre_sparsity)",
    "full_gather": "full gather",
    "dense_gather": "shared decompressor",
}

Areas = dict[str, float]


class Product(NamedTuple):
    """What a lane does with a kind of operands."""

    length: int
    densities: tuple[float, float]

    def speed_up(self, spec: PreSparsitySpec) -> float:
        """Cycles of the dense lane over those of a lane with this module."""
        periods, probabilities = cycles_distribution(spec, self.length, *self.densities)
        return -(-self.length // spec.macs) / float(mean(periods, probabilities))


def specs(design: AcceleratorDesign) -> Iterator[PreSparsitySpec]:
    """Windows of one, two and four beats, and FIFOs of one, two and as many as are of use."""
    macs = design.macs_per_lane
    for window in (macs, 2 * macs, 4 * macs):
        depths = {macs, 2 * macs} | ({window + macs} if window == 4 * macs else set())
        for depth in sorted(depths):
            yield PreSparsitySpec(macs, design.bits, window, depth)


def named(kind: str, spec: PreSparsitySpec) -> str:
    """Name of a point."""
    return f"{kind} {spec.window} {spec.fifo_depth}"


def decompressor(spec: PreSparsitySpec) -> str:
    return f"decompressor {spec.window}"


def components(design: AcceleratorDesign) -> Iterator[tuple[str, Any, int, Callable[[], Any]]]:
    """Everything of which the table needs the area: name, spec, clock (ps), how to make it."""
    # Amaranth is needed here alone.
    from constructions.decompressor import Decompressor, DenseGather

    from hwgen.units.dynatran.rtl import Dynatran
    from hwgen.units.mac_lane.rtl import MacLane
    from hwgen.units.post_sparsity.rtl import PostSparsity
    from hwgen.units.pre_sparsity.rtl import PreSparsity

    for unit, component in (("mac_lane", MacLane), ("dynatran", Dynatran),
                            ("post_sparsity", PostSparsity)):
        own = getattr(design, unit)
        yield unit, own, CLOCK_PS, lambda component=component, own=own: component(own)
    for spec in specs(design):
        found = {named("pre_sparsity", spec): lambda spec=spec: PreSparsity(spec)}
        if spec.fifo_depth == 2 * spec.macs:
            found |= {
                named("full_gather", spec): lambda spec=spec: PreSparsity(spec, group=1),
                named("dense_gather", spec): lambda spec=spec: DenseGather(spec),
                decompressor(spec): lambda spec=spec: Decompressor(spec)}
        yield from ((name, spec, CLOCK_PS, make) for name, make in found.items())


def shared_area(areas: Areas, spec: PreSparsitySpec, lanes: int, kind: str) -> float:
    """A lane's share of the decompressors of its two operands (µm²)."""
    return 2 * areas[decompressor(spec)] / lanes if kind == "dense_gather" else 0.0


def sparsity_area(areas: Areas, spec: PreSparsitySpec, lanes: int, kind: str) -> float:
    """Area of what zero-skipping adds to a lane (µm²)."""
    gather = areas[named(kind, spec)] + shared_area(areas, spec, lanes, kind)
    return gather + areas["dynatran"] + areas["post_sparsity"]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for row in (head, ("---",) * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def windows(design: AcceleratorDesign, areas: Areas) -> None:
    lane = areas["mac_lane"]
    lengths = (design.k_segment, *LENGTHS)
    head = ("densities", "window", *(
        f"{what}, K = {length}" for length in lengths
        for what in ("speed-up", "lane with sparsity, µm²", "products/s/mm²", "ratio")))
    macs = design.macs_per_lane
    rows = []
    for densities in DENSITIES:
        for window in (macs, 2 * macs, 4 * macs):
            cells = []
            for length in lengths:
                depth = int(default_fifo_depth(macs, window, length))
                spec = PreSparsitySpec(macs, design.bits, window, depth)
                area = lane + sparsity_area(areas, spec, design.lanes_per_pe, "pre_sparsity")
                gain = Product(length, densities).speed_up(spec)
                effectual = densities[0] * densities[1] * macs * design.clock_mhz * 1e6
                cells += [f"{gain:.2f}", f"{area:,.0f}", f"{effectual * gain / area * 1e6:.3g}",
                          f"{gain * lane / area:.2f}"]
            rows.append((f"{densities[0]} × {densities[1]}", f"{window // macs}×M", *cells))
    print(f"M = {macs}; FIFO of M pairs where K is at most the window, else of 2×M; "
          f"dense lane {lane:,.0f} µm².\n")
    table(head, rows)


def constructions(design: AcceleratorDesign, areas: Areas, delays: dict[str, float]) -> None:
    lane = areas["mac_lane"]
    lengths = (design.k_segment, *LENGTHS)
    rows = []
    for spec in specs(design):
        for kind, words in CONSTRUCTIONS.items():
            if named(kind, spec) not in areas:
                continue
            own = areas[named(kind, spec)]
            added = sparsity_area(areas, spec, design.lanes_per_pe, kind)
            delay = delays[named(kind, spec)]
            if kind == "dense_gather":
                delay = max(delay, delays[decompressor(spec)])
            ratios = [f"{Product(length, COMPARED).speed_up(spec) * lane / (lane + added):.2f}"
                      for length in lengths]
            shared = shared_area(areas, spec, design.lanes_per_pe, kind)
            rows.append((words, f"{spec.window // spec.macs}×M", f"{spec.fifo_depth}",
                         f"{own:,.0f}", f"{shared:,.0f}", f"{delay:.2f}", *ratios))
    print(f"Densities {COMPARED[0]} × {COMPARED[1]}; a decompressor for each operand is shared by "
          f"{design.lanes_per_pe} lanes.\n")
    table(("construction", "window", "FIFO", "gather, µm²", "its share of decompressors, µm²",
           "critical path, ns", *(f"ratio, K = {length}" for length in lengths)), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("points", nargs="?", type=Path, default=POINTS)
    parser.add_argument("--synthesise", action="store_true")
    arguments = parser.parse_args()
    design = AcceleratorDesign.load("edge")
    if arguments.synthesise:
        refresh(arguments.points, components(design))
    rows = read(arguments.points)
    areas = {name: float(row["area_um2"]) for name, row in rows.items()}
    windows(design, areas)
    constructions(design, areas,
                  {name: float(row["critical_path_ns"]) for name, row in rows.items()})


if __name__ == "__main__":
    main()
