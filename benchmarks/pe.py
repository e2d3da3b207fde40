"""What one processing element makes of its multipliers: python benchmarks/pe.py [--json].

The products of BERT-Tiny's and BERT-Mini's layers, one sequence of 128, on one PE of `edge` (16
lanes of 16 multipliers, tiles of 1 × 16 × 16) whose buffers hold everything, with windows of
pre_sparsity and segments of dot products varied. Cycles are those of mask mode on random Bernoulli
masks (`sim/reference.py`, which RTL tests prove equal to the RTL), means over recordings; density
mode stands beside them in the JSON.

The share is effectual pairs over multiplier-cycles. Targets hold it, and the speed-up over the same
product without zeros on the same design, against all steps: configuration, the first dispatch, the
last write and every step constant count, though only this product runs. "of waves" counts the
lanes' engine alone. "never waiting" is the speed-up over a dense PE all of whose multipliers work
in every cycle. Targets are for dot products of 128 and more.

Areas are Nangate45: standard cells as synthesised for 700 MHz (benchmarks/sparsity.csv and
benchmarks/pe.csv), memories from hwgen/technology/sram.py. --synthesise measures what has changed
of pe.csv again (minutes; needs the tools that `transcode characterize` needs).
--simulators runs a small accelerator with each simulator (minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from constructions.points import read, refresh
from processing_element.areas import components, lane_area, lane_spec
from processing_element.products import (
    DENSE,
    LOSSES,
    Product,
    Runs,
    processing_element,
    products,
)
from processing_element.tables import Printer, show

from hwgen.design import LOOP_ORDERS, AcceleratorDesign
from hwgen.technology.sram import memory

POINTS = Path(__file__).with_suffix(".csv")
OTHER_POINTS = Path(__file__).with_name("sparsity.csv")
SEED = 1
SIMULATORS = ("verilator", "icarus")
LONG = 128
"""Elements of the shortest dot product that targets are for."""

SHARE_LIMIT = 0.90
SPARSE = {"0.5 × 0.5": (0.5, 0.5), "0.5 × 1.0": (0.5, 1.0)}
SPEED_UP_LIMITS = {"0.5 × 0.5": 2.3, "0.5 × 1.0": 1.6}
DENSITIES = {"1.0 × 1.0": DENSE, **SPARSE}


@dataclass(frozen=True)
class Scope:
    """How much is measured.

    Parameters
    ----------
    models, sequence_length : whose products
    windows, segments : of the designs; a segment is at least a window
    recordings : masks drawn for each product
    orders : loop orders that are tried where a target is missed
    """

    models: tuple[str, ...] = ("bert-tiny", "bert-mini")
    sequence_length: int = 128
    windows: tuple[int, ...] = (16, 32, 64, 128, 256)
    segments: tuple[int, ...] = (64, 128, 256, 1024)
    recordings: int = 3
    orders: tuple[str, ...] = LOOP_ORDERS


QUICK = Scope(models=("bert-tiny",), windows=(32, 64), segments=(64, 128), recordings=1,
              orders=("bijk", "kbij"))


def designs(scope: Scope) -> Iterator[AcceleratorDesign]:
    """Every window and segment, with the default FIFO and with twice that."""
    for segment in scope.segments:
        for window in scope.windows:
            if window <= segment:
                design = processing_element(window=window, k_segment=segment)
                yield design
                yield processing_element(
                    window=window, k_segment=segment, fifo_depth=2 * design.fifo_depth)


def figures_of(runs: Runs, design: AcceleratorDesign, product: Product) -> dict[str, Any]:
    """Say what a product does on a design, at all densities."""
    found: dict[str, Any] = {"product": product.label, "length": product.length, "densities": {}}
    for name, densities in DENSITIES.items():
        run = runs.run(design, product, densities)
        dense = runs.run(design, product, DENSE)
        ideal = np.prod(product.extents) / run.multipliers
        found["densities"][name] = {
            "cycles": run.cycles, "expected_cycles": run.expected_cycles,
            "lane_cycles": run.lane_cycles, "pairs": run.pairs,
            "share": run.share, "lane_share": run.lane_share,
            "speed_up": dense.cycles / run.cycles,
            "lane_speed_up": dense.lane_cycles / run.lane_cycles,
            "speed_up_over_never_waiting": float(ideal) / run.cycles,
            "losses": run.losses, "waits": run.waits}
    return found


def over_layers(runs: Runs, design: AcceleratorDesign, chosen: Iterable[Product],
                models: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
    """Effectual pairs a lane and cycle, and speed-ups, over all layers of all models."""
    listed = [(product, sum(map(product.times, models))) for product in chosen]
    pairs, cycles = {}, {}
    for name, densities in DENSITIES.items():
        each = [(times, runs.run(design, product, densities)) for product, times in listed]
        cycles[name] = sum(times * run.cycles for times, run in each)
        pairs[name] = sum(times * run.pairs for times, run in each) / cycles[name] / design.lanes
    return pairs, {name: cycles["1.0 × 1.0"] / cycles[name] for name in SPARSE}


def least(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Worst of the products that targets are for."""
    long = [one["densities"] for one in figures if one["length"] >= LONG]
    return {
        "share": min(one["1.0 × 1.0"]["share"] for one in long),
        "speed_up": {name: min(one[name]["speed_up"] for one in long) for name in SPARSE}}


def meets(worst: Mapping[str, Any]) -> bool:
    """Whether all targets are met."""
    return worst["share"] >= SHARE_LIMIT and all(
        worst["speed_up"][name] >= limit for name, limit in SPEED_UP_LIMITS.items())


def of_design(runs: Runs, design: AcceleratorDesign, chosen: Sequence[Product], scope: Scope,
              points: Mapping[str, Any]) -> dict[str, Any]:
    """All figures of a design."""
    figures = [figures_of(runs, design, product) for product in chosen]
    area = lane_area(design, points)
    pairs, speed_ups = over_layers(runs, design, chosen, scope.models)
    worst = least(figures)
    default = processing_element(window=design.window, k_segment=design.k_segment)
    return {
        "window": design.window, "k_segment": design.k_segment, "fifo_depth": design.fifo_depth,
        "fifo_doubled": design.fifo_depth != default.fifo_depth,
        "products": figures, "least": worst, "met": meets(worst),
        "layers_speed_up": speed_ups, "pairs_per_lane_cycle": pairs,
        "pre_sparsity_um2": area.pre_sparsity, "other_logic_um2": area.other_logic,
        "operand_memories_um2": area.operand_memories, "other_memories_um2": area.other_memories,
        "lane_um2": area.total,
        "pairs_per_cycle_mm2": None if area.total is None else {
            name: 1e6 * rate / area.total for name, rate in pairs.items()}}


def plain_lane(runs: Runs, chosen: Sequence[Product], scope: Scope, points: Mapping[str, Any]
               ) -> dict[str, Any]:
    """Return a lane that does all pairs, effectual or not: no sparsity modules and no masks.

    Its cycles are those of dense products with the smallest window, which never waits on them.
    """
    design = processing_element(window=16, k_segment=64)
    dense = over_layers(runs, design, chosen, scope.models)[0]["1.0 × 1.0"]
    macros = {name: memory(depth, width).area_um2
              for name, (depth, width) in lane_spec(design).memories().items()
              if not name.endswith("masks")}
    area = float(points["mac_lane"]["area_um2"]) + sum(macros.values())
    return {"k_segment": design.k_segment, "lane_um2": area,
            "pairs_per_cycle_mm2": {
                name: 1e6 * dense * left * right / area
                for name, (left, right) in DENSITIES.items()}}


def chosen_designs(found: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Pick the design with all defaults, and the smallest that meets all targets, if any does."""
    default = processing_element()
    plain = {(one["window"], one["k_segment"]): one for one in found if not one["fifo_doubled"]}
    picked = {"default": plain[default.window, default.k_segment]}
    met = [one for one in found if one["met"] and one["lane_um2"] is not None]
    if met:
        picked["smallest that meets all"] = min(met, key=lambda one: one["lane_um2"])
    return picked


def targets(picked: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Each target on each chosen design, of the product that does worst."""
    for name, design in picked.items():
        asked = [("dense share", SHARE_LIMIT, "1.0 × 1.0", "share")]
        asked += [(f"speed-up at {densities}", limit, densities, "speed_up")
                  for densities, limit in SPEED_UP_LIMITS.items()]
        for what, limit, densities, key in asked:
            worst = min((one for one in design["products"] if one["length"] >= LONG),
                        key=lambda one: one["densities"][densities][key])
            value = worst["densities"][densities]
            waits = max(value["waits"], key=value["waits"].__getitem__)
            yield {"design": name, "what": what, "value": value[key], "limit": limit,
                   "met": value[key] >= limit, "product": worst["product"], "waits_for": waits,
                   "waits_share": value["waits"][waits] / value["cycles"]}


def remedies(runs: Runs, design: Mapping[str, Any], chosen: Sequence[Product], scope: Scope,
             points: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield changes of the default design, each with its worst products.

    The loop order is the one that is best for the product that is furthest from a target.
    """
    long = [one for one in design["products"] if one["length"] >= LONG]
    worst = min(long, key=lambda one: min(
        one["densities"][name]["speed_up"] / limit for name, limit in SPEED_UP_LIMITS.items()))
    product = next(one for one in chosen if one.label == worst["product"])
    own = {name: design[name] for name in ("window", "k_segment", "fifo_depth")}
    twice = {**own, "fifo_depth": 2 * own["fifo_depth"]}
    changes: dict[str, dict[str, Any]] = {"as it is": own, "FIFO of twice as many": twice}
    changes |= {f"tiles of {x} × {y}": {**own, "tile_x": x, "tile_y": y}
                for x, y in ((8, 8), (16, 32), (32, 16))}
    for segment in (128, 256, 512):
        if own["k_segment"] < segment <= product.length:
            longer = {"window": own["window"], "k_segment": segment}
            changes[f"k_segment {segment}"] = longer
            changes |= {f"k_segment {segment}, tiles of {x} × {y}":
                        {**longer, "tile_x": x, "tile_y": y} for x, y in ((8, 8), (8, 16), (16, 8))}
    best = max(scope.orders, key=lambda order: min(
        runs.speed_up(processing_element(**own, loop_order=order), product, SPARSE[name]) / limit
        for name, limit in SPEED_UP_LIMITS.items()))
    changes[f"best of {len(scope.orders)} loop orders, {best}"] = {**own, "loop_order": best}
    for what, change in changes.items():
        other = of_design(runs, processing_element(**change), chosen, scope, points)
        yield {"what": what, **{name: other[name] for name in (
            "least", "met", "lane_um2", "pairs_per_cycle_mm2")}}


def losses(picked: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield where the cycles of the shortest and of the longest product go."""
    for name, design in picked.items():
        long = [one for one in design["products"] if one["length"] >= LONG]
        by_cycles = sorted(long, key=lambda one: one["densities"]["1.0 × 1.0"]["cycles"])
        for one in (by_cycles[0], by_cycles[-1]):
            for densities, value in one["densities"].items():
                yield {"design": name, "product": one["product"], "densities": densities,
                       "cycles": value["cycles"],
                       "shares": {kind: value["losses"][kind] / value["cycles"]
                                  for kind in LOSSES}}


def report(scope: Scope, points: Mapping[str, Any], seed: int = SEED) -> dict[str, Any]:
    """Everything that is printed but the simulators."""
    runs = Runs(seed, scope.recordings)
    chosen = products(scope.models, scope.sequence_length)
    found = [of_design(runs, design, chosen, scope, points) for design in designs(scope)]
    picked = chosen_designs(found)
    listed = list(targets(picked))
    missed = any(not one["met"] for one in listed if one["design"] == "default")
    return {
        "machine": machine(), "seed": seed, "recordings": scope.recordings,
        "macs_per_lane": processing_element().macs_per_lane,
        "limits": {"share": SHARE_LIMIT, "speed_up": SPEED_UP_LIMITS, "length": LONG},
        "products": [{"product": one.label, "extents": one.extents,
                      "times": {model: one.times(model) for model in scope.models}}
                     for one in chosen],
        "designs": found, "plain_lane": plain_lane(runs, chosen, scope, points),
        "fifo_gain": fifo_gain(found), "density_gaps": density_gaps(found),
        "picked": picked, "targets": listed, "losses": list(losses(picked)),
        "remedies": (list(remedies(runs, picked["default"], chosen, scope, points))
                     if missed else []),
    }


def fifo_gain(found: Sequence[Mapping[str, Any]]) -> float:
    """Largest share of its cycles that any product saves with a FIFO of twice as many pairs."""
    by = {(one["window"], one["k_segment"], one["fifo_doubled"]): one["products"] for one in found}
    return max(
        1 - more["densities"][name]["cycles"] / own["densities"][name]["cycles"]
        for (window, segment, doubled), products_ in by.items() if not doubled
        for own, more in zip(products_, by[window, segment, True], strict=True)
        for name in SPARSE)


def density_gaps(found: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Least and largest of mask mode's cycles over density mode's, less one."""
    gaps = [value["cycles"] / value["expected_cycles"] - 1 for design in found
            for one in design["products"] for value in one["densities"].values()]
    return min(gaps), max(gaps)


def machine() -> str:
    """Processor, cores and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    return (f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, "
            f"NumPy {np.__version__}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--quick", action="store_true", help="a few products and designs")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--picture", type=Path, help="write speed-up against window, an SVG")
    parser.add_argument("--simulators", nargs="*", metavar="NAME", choices=SIMULATORS,
                        help="time these simulators; without names, all")
    parser.add_argument("--synthesise", action="store_true")
    arguments = parser.parse_args()
    if arguments.synthesise:
        refresh(POINTS, components(processing_element()))
    points = {**read(OTHER_POINTS), **read(POINTS)}
    found = report(QUICK if arguments.quick else Scope(), points, arguments.seed)
    if arguments.simulators is not None:
        # Amaranth and cocotb are needed here alone, and Matplotlib below.
        from processing_element.simulation import simulated_speeds

        found["simulators"] = simulated_speeds(
            arguments.simulators or list(SIMULATORS), arguments.seed)
    if arguments.picture:
        from processing_element.picture import speed_up_picture

        arguments.picture.write_text(speed_up_picture(found), encoding="utf-8")
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show(found, Printer())


if __name__ == "__main__":
    main()
