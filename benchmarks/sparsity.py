"""What zero-skipping is worth for its area: python benchmarks/sparsity.py [POINTS.csv].

The lane of `edge` with pre_sparsity, dynatran and post_sparsity against the lane alone, which does
`macs` pairs a cycle, effectual or not. Speed-ups are exact expectations for independent random
masks (hwgen/units/pre_sparsity/cost.py); areas are those of the points, by default
benchmarks/sparsity.csv: flip-flops and logic in Nangate45, synthesised for 700 MHz. Effectual
products a second and mm² are at the lane's clock; "ratio" is theirs to those of the dense lane.

The second table compares constructions of the same function: networks of switches that bring values
to their columns, a full gather (each place of the FIFO chooses among all values of a window), and
windows that a decompressor has already brought to their positions, once for all lanes of a PE.

--synthesise measures the points again and writes them (minutes; needs the tools that
`transcode characterize` needs). --lane-area-um2 asks what if the lane had another area.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from constructions.decompressor import Decompressor, DenseGather

from hwgen.design import AcceleratorDesign, default_fifo_depth
from hwgen.units.pre_sparsity.cost import cycles_distribution, mean
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

POINTS = Path(__file__).with_suffix(".csv")
FIELDS = ("component", "window", "fifo_depth", "area_um2", "critical_path_ns")
DENSITIES = ((1.0, 1.0), (1.0, 0.5), (1.0, 0.25), (0.5, 0.5), (0.5, 0.25), (0.25, 0.25))
LENGTHS = (128, 768)
COMPARED = (0.5, 0.5)
CLOCK_PS = 1429
CONSTRUCTIONS = {
    "pre_sparsity": "networks of 16 (pre_sparsity)",
    "full_gather": "full gather",
    "dense_gather": "shared decompressor",
}

Areas = dict[tuple[str, int, int], float]


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


def components(design: AcceleratorDesign) -> Iterator[tuple[str, int, int, Any]]:
    """Everything of which the table needs the area: name, window, FIFO, component."""
    from hwgen.units.dynatran.rtl import Dynatran  # Amaranth is needed here alone
    from hwgen.units.mac_lane.rtl import MacLane
    from hwgen.units.post_sparsity.rtl import PostSparsity
    from hwgen.units.pre_sparsity.rtl import PreSparsity

    yield "mac_lane", 0, 0, MacLane(design.mac_lane)
    yield "dynatran", 0, 0, Dynatran(design.dynatran)
    yield "post_sparsity", 0, 0, PostSparsity(design.post_sparsity)
    for spec in specs(design):
        where = spec.window, spec.fifo_depth
        yield "pre_sparsity", *where, PreSparsity(spec)
        if spec.fifo_depth == 2 * spec.macs:
            yield "full_gather", *where, PreSparsity(spec, group=1)
            yield "dense_gather", *where, DenseGather(spec)
            yield "decompressor", spec.window, 0, Decompressor(spec)


def synthesise(design: AcceleratorDesign, path: Path) -> None:
    """Measure every component, and write each as soon as it is known."""
    from hwgen.technology.flow.synthesis import elaborate, synthesise
    from hwgen.technology.flow.timing import critical_path

    with path.open("w", newline="") as file, tempfile.TemporaryDirectory() as folder:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        for name, window, depth, component in components(design):
            work = Path(folder) / f"{name}_{window}_{depth}"
            netlist = synthesise(elaborate(component, name), work, clock_gating=False)
            delay_ns = critical_path(netlist, work, CLOCK_PS).delay_ns
            writer.writerow([name, window, depth, f"{netlist.area_um2:.1f}", f"{delay_ns:.3f}"])
            file.flush()


def read(path: Path) -> tuple[Areas, dict[tuple[str, int, int], float]]:
    """Areas (µm²) and critical paths (ns) of the points."""
    areas, delays = {}, {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            key = row["component"], int(row["window"]), int(row["fifo_depth"])
            areas[key] = float(row["area_um2"])
            delays[key] = float(row["critical_path_ns"] or "nan")
    return areas, delays


def shared_area(areas: Areas, spec: PreSparsitySpec, lanes: int, kind: str) -> float:
    """A lane's share of the decompressors of its two operands (µm²)."""
    return 2 * areas["decompressor", spec.window, 0] / lanes if kind == "dense_gather" else 0.0


def sparsity_area(areas: Areas, spec: PreSparsitySpec, lanes: int, kind: str) -> float:
    """Area of what zero-skipping adds to a lane (µm²)."""
    gather = areas[kind, spec.window, spec.fifo_depth] + shared_area(areas, spec, lanes, kind)
    return gather + areas["dynatran", 0, 0] + areas["post_sparsity", 0, 0]


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for row in (head, ("---",) * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def windows(design: AcceleratorDesign, areas: Areas, lane: float) -> None:
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


def constructions(design: AcceleratorDesign, areas: Areas,
                  delays: dict[tuple[str, int, int], float], lane: float) -> None:
    lengths = (design.k_segment, *LENGTHS)
    rows = []
    for spec in specs(design):
        for kind, words in CONSTRUCTIONS.items():
            if (kind, spec.window, spec.fifo_depth) not in areas:
                continue
            own = areas[kind, spec.window, spec.fifo_depth]
            added = sparsity_area(areas, spec, design.lanes_per_pe, kind)
            delay = delays[kind, spec.window, spec.fifo_depth]
            if kind == "dense_gather":
                delay = max(delay, delays["decompressor", spec.window, 0])
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
    parser.add_argument("--lane-area-um2", type=float)
    arguments = parser.parse_args()
    design = AcceleratorDesign.load("edge")
    if arguments.synthesise:
        synthesise(design, arguments.points)
    areas, delays = read(arguments.points)
    lane = arguments.lane_area_um2 or areas["mac_lane", 0, 0]
    windows(design, areas, lane)
    constructions(design, areas, delays, lane)


if __name__ == "__main__":
    main()
