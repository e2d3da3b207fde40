"""What each unit of `edge` costs, beside a plain lower bound: python benchmarks/units.py [--json].

A unit's figures are those of its default spec in hwgen/units/<unit>/ppa.csv. Its bound is a
construction of the arithmetic and the registers alone that its function needs at the same clock
(benchmarks/constructions, whose docstrings say what each leaves out), synthesised as the units are
(Nangate45, 700 MHz, full adders as cells where the netlist then keeps the clock) and kept in
benchmarks/units.csv. A bound of several parts is the sum of their areas and the longest of their
paths. Power of bounds is not recorded: the jobs speak to streams, which bounds lack.

Areas are of standard cells; memory macros stand apart. Energy is dynamic, at operand density 0.5
and without macros. The initiation interval is in cycles, from the unit's cost.py; that of
pre_sparsity is its mean for operands of density 0.5. Operations a second and mm² are at 700 MHz or
at the own path if that is slower.

--synthesise measures what has changed of units.csv again (minutes; needs the tools that
`transcode characterize` needs).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from constructions.points import Row, read, refresh

from hwgen.technology.flow.points import points
from hwgen.technology.flow.table import unit_folder
from hwgen.unit_parameters import NOISE_BITS
from hwgen.units.pre_sparsity.cost import cycles_distribution, mean
from hwgen.units.registry import RTL_UNITS

POINTS = Path(__file__).with_suffix(".csv")
CLOCK_PS = 1429
LOOSE_PS = 100_000
"""A clock that no divider misses: it gets the area that its function takes."""

PUBLISHED_LANE_UM2, PUBLISHED_LANE_NS = 47_102.0, 2.33
"""The published RTL's lane of 16 multipliers, synthesised the same way for 1,429 ps."""

LANE_LIMIT_UM2 = 76_800.0
BOUND_LIMIT = 1.15
SPARSITY_LIMIT = 0.25
DIVIDERS, DIVIDEND_BITS, DIVISOR_BITS = 16, 36, 20

WINDOWS, DENSITY = 4, 0.5
"""A dot product's windows, as in pre_sparsity's ppa.csv, and the density of its operands."""

PARTS = {
    **{unit: (unit,) for unit in RTL_UNITS},
    "softmax": ("softmax exponential", "softmax reciprocal", "softmax product"),
    "layer_norm": ("layer_norm sums", "layer_norm root",
                   *("layer_norm scale of an element",) * points("layer_norm")[0].parallel),
}
"""Components of units.csv that a unit's bound is made of, each as often as it is needed."""

ROUNDING_LANE = "mac_lane with noise"
"""The lane of a design for training, which rounds stochastically: the published lane's function."""

LANE_STEPS = {
    "bound": "mac_lane",
    "and the initial value": "mac_lane with initial",
    "and the sum as a second result, through all stages": "mac_lane with initial and sum",
}
DIVIDER_KINDS = {"ripple": "carry from bit to bit, 21 bits a row", "operator": "`//`"}

@dataclass(frozen=True)
class Figures:
    """What a netlist costs.

    Parameters
    ----------
    area_um2 : standard cells
    critical_path_ns : shortest clock period
    """

    area_um2: float
    critical_path_ns: float

    def throughput(self, per_cycle: float) -> float:
        """Operations a second and mm²."""
        period_ns = max(CLOCK_PS / 1000, self.critical_path_ns)
        return per_cycle / (period_ns * 1e-9) / (self.area_um2 * 1e-6)


def divider(kind: str, clock_ps: int) -> str:
    return f"divider {kind} {clock_ps}"


def rounding_lane() -> Any:
    """Spec of the lane of `edge` with stochastic rounding."""
    return replace(points("mac_lane")[0], noise_bits=NOISE_BITS)


def components() -> Iterator[tuple[str, Any, int, Callable[[], Any]]]:
    """Everything in units.csv: name, spec, clock (ps), how to make it."""
    # Amaranth is needed here alone.
    from constructions import elementwise, lane, layer_norm, softmax

    spec = {unit: points(unit)[0] for unit in RTL_UNITS}
    lane_spec = spec["mac_lane"]
    yield "mac_lane", lane_spec, CLOCK_PS, lambda: lane.LaneBound(lane_spec)
    yield (ROUNDING_LANE, rounding_lane(), CLOCK_PS, lambda: lane.LaneBound(rounding_lane()))
    yield ("mac_lane with initial", lane_spec, CLOCK_PS,
           lambda: lane.LaneBound(lane_spec, with_initial=True))
    yield ("mac_lane with initial and sum", lane_spec, CLOCK_PS,
           lambda: lane.LaneBound(lane_spec, with_initial=True, with_sum=True))
    for unit, bound in (("dynatran", elementwise.DynatranBound),
                        ("pre_sparsity", elementwise.PreSparsityBound),
                        ("post_sparsity", elementwise.PostSparsityBound),
                        ("residual_add", elementwise.ResidualAddBound),
                        ("stochastic_rounding", elementwise.StochasticRoundingBound),
                        ("fifo", elementwise.FifoBound)):
        yield unit, spec[unit], CLOCK_PS, lambda bound=bound, unit=unit: bound(spec[unit])
    # The scaling of layer norm is that of one element: of all it takes a quarter of an hour.
    one_element = replace(spec["layer_norm"], parallel=1)
    for name, bound, part_spec, part in (
            *((f"softmax {part}", softmax.SoftmaxBound, spec["softmax"], part)
              for part in softmax.SoftmaxBound.PARTS),
            ("layer_norm sums", layer_norm.LayerNormBound, spec["layer_norm"], "sums"),
            ("layer_norm root", layer_norm.LayerNormBound, spec["layer_norm"], "root"),
            ("layer_norm scale of an element", layer_norm.LayerNormBound, one_element, "scale")):
        yield (name, part_spec, CLOCK_PS,
               lambda bound=bound, part_spec=part_spec, part=part: bound(part_spec, part))
    for kind in DIVIDER_KINDS:
        for clock_ps in (LOOSE_PS, CLOCK_PS):
            yield (divider(kind, clock_ps), f"{DIVIDEND_BITS}/{DIVISOR_BITS}", clock_ps,
                   lambda kind=kind: softmax.Divider(DIVIDEND_BITS, DIVISOR_BITS, kind))


def needed() -> list[str]:
    """Names of all components that the tables are made of."""
    dividers = [divider(kind, clock) for kind in DIVIDER_KINDS for clock in (LOOSE_PS, CLOCK_PS)]
    return [*dict.fromkeys([*LANE_STEPS.values(), ROUNDING_LANE, *(part for parts in PARTS.values()
                                                    for part in parts), *dividers])]


def unit_row(unit: str, spec: Any) -> Row | None:
    """Row of a spec in the unit's ppa.csv, or None."""
    path = unit_folder(unit) / "ppa.csv"
    if not path.is_file():
        return None
    wanted = {name: str(value) for name, value in asdict(spec).items()}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if all(row[name] == value for name, value in wanted.items()):
                return row
    return None


def figures(row: Mapping[str, str]) -> Figures:
    return Figures(float(row["area_um2"]), float(row["critical_path_ns"]))


def together(rows: list[Row]) -> Figures:
    """Areas of parts added, and the longest path."""
    parts = [figures(row) for row in rows]
    return Figures(sum(part.area_um2 for part in parts),
                   max(part.critical_path_ns for part in parts))


def operations_per_beat(spec: Any) -> int:
    """What a unit takes at once: positions of a window, elements, or pairs; else one."""
    for name in ("window", "parallel", "macs"):
        if hasattr(spec, name):
            return int(getattr(spec, name))
    return 1


def initiation_interval(unit: str, spec: Any) -> float:
    """Cycles from one beat to the next, as the unit's cost.py has them."""
    cost = import_module(f"hwgen.units.{unit}.cost")
    if unit == "pre_sparsity":
        periods = cycles_distribution(spec, WINDOWS * spec.window, DENSITY, DENSITY)
        return float(mean(*periods)) / WINDOWS
    if unit in ("softmax", "layer_norm"):
        row = spec.parallel
        return float(cost.cycles_back_to_back(spec, row, 2)
                     - cost.cycles_back_to_back(spec, row, 1))
    beat = spec.parallel if unit == "residual_add" else 1
    return float(cost.cycles(spec, 2 * beat) - cost.cycles(spec, beat))


def of_unit(unit: str, measured: Mapping[str, Row]) -> dict[str, Any]:
    """What the first table says of a unit; None where nothing is known."""
    spec = points(unit)[0]
    row = unit_row(unit, spec)
    own = figures(row) if row else None
    bound = together([measured[part] for part in PARTS[unit]])
    interval = initiation_interval(unit, spec)
    per_cycle = operations_per_beat(spec) / interval
    return {
        "unit": unit,
        "spec": str(spec),
        "operation": row["operation"] if row else None,
        "area_um2": own.area_um2 if own else None,
        "memory_um2": float(row["memory_um2"]) if row else None,
        "critical_path_ns": own.critical_path_ns if own else None,
        "energy_pj": float(row["energy_density_0_5_pj"]) if row else None,
        "initiation_interval": interval,
        "operations_per_s_mm2": own.throughput(per_cycle) if own else None,
        "bound_area_um2": bound.area_um2,
        "bound_critical_path_ns": bound.critical_path_ns,
        "bound_operations_per_s_mm2": bound.throughput(per_cycle),
        "area_over_bound": own.area_um2 / bound.area_um2 if own else None,
    }


def lane_targets(units: Mapping[str, dict[str, Any]], rounding: Figures | None, bound: Figures
                 ) -> Iterator[dict[str, Any]]:
    """What is asked of the lane, with stochastic rounding and without, and of its sparsity modules.

    Parameters
    ----------
    units : rows of the first table, by unit
    rounding, bound : the lane with stochastic rounding, and its bound
    """
    lane = units["mac_lane"]
    yield target("mac_lane over its bound (area)", lane["area_over_bound"], "≤", BOUND_LIMIT)
    yield target("path of mac_lane, ns", lane["critical_path_ns"], "≤", CLOCK_PS / 1000)
    name = "mac_lane with stochastic rounding"
    yield target(f"{name} over its bound (area)",
                 rounding.area_um2 / bound.area_um2 if rounding else None, "≤", BOUND_LIMIT)
    yield target(f"path of {name}, ns", rounding.critical_path_ns if rounding else None, "≤",
                 CLOCK_PS / 1000)
    yield target(f"{name}, µm²", rounding.area_um2 if rounding else None, "≤", LANE_LIMIT_UM2)
    ratio = None
    if rounding:
        period_s, area_mm2 = PUBLISHED_LANE_NS * 1e-9, PUBLISHED_LANE_UM2 * 1e-6
        ratio = rounding.throughput(1) * period_s * area_mm2
    yield target("its results a second and area over the published lane's", ratio, ">", 1.0)
    modules = added(units["dynatran"]["area_um2"], units["post_sparsity"]["area_um2"])
    share = modules / lane["area_um2"] if modules and lane["area_um2"] else None
    yield target("dynatran and post_sparsity over the lane (area)", share, "<", SPARSITY_LIMIT)


def divider_targets(softmax: Mapping[str, Any], measured: Mapping[str, Row]
                    ) -> Iterator[dict[str, Any]]:
    """Softmax's area beside combinational dividers: a kind and a clock target each."""
    for kind, words in DIVIDER_KINDS.items():
        for clock_ps in (LOOSE_PS, CLOCK_PS):
            row = measured[divider(kind, clock_ps)]
            area = DIVIDERS * float(row["logic_um2"])
            delay = float(row["critical_path_ns"])
            missed = ", missed" if 1000 * delay > clock_ps else ""
            aim = "no clock" if clock_ps == LOOSE_PS else f"aimed at {clock_ps:,} ps{missed}"
            yield target(
                f"softmax, µm², and {DIVIDERS} combinational {DIVIDEND_BITS}/{DIVISOR_BITS}-bit "
                f"dividers ({words}; {aim}: {delay:.1f} ns)", softmax["area_um2"], "<", area)


def target(what: str, value: float | None, relation: str, limit: float) -> dict[str, Any]:
    """Say whether a figure is where it should be; None for one that is not known."""
    relations = {"≤": lambda: value <= limit, "<": lambda: value < limit,
                 ">": lambda: value > limit}
    return {"what": what, "value": value, "relation": relation, "limit": limit,
            "met": None if value is None else bool(relations[relation]())}


def added(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) if len(known) == len(values) else None


def lane_steps(lane: Mapping[str, Any], measured: Mapping[str, Row]) -> list[dict[str, Any]]:
    """From the bound to the lane: what each thing adds that the bound leaves out."""
    areas = {what: figures(measured[name]).area_um2 for what, name in LANE_STEPS.items()}
    if lane["area_um2"] is not None:
        areas["and the rest: streams and slices, relu and by-pass, exponents, clock gates"] = (
            lane["area_um2"])
    steps, before = [], 0.0
    for what, area in areas.items():
        steps.append({"what": what, "area_um2": area, "added_um2": area - before})
        before = area
    return steps


def report(measured: Mapping[str, Row]) -> dict[str, Any]:
    """Everything that is printed."""
    units = {unit: of_unit(unit, measured) for unit in RTL_UNITS}
    row = unit_row("mac_lane", rounding_lane())
    rounding = figures(row) if row else None
    return {
        "units": list(units.values()),
        "published_lane": {
            "area_um2": PUBLISHED_LANE_UM2, "critical_path_ns": PUBLISHED_LANE_NS,
            "results_per_s_mm2": 1e15 / (PUBLISHED_LANE_NS * PUBLISHED_LANE_UM2)},
        "targets": [*lane_targets(units, rounding, figures(measured[ROUNDING_LANE])),
                    *divider_targets(units["softmax"], measured)],
        "mac_lane": lane_steps(units["mac_lane"], measured),
    }


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for row in (head, ("---",) * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def shown(value: float | None, form: str, otherwise: str = "–") -> str:
    return otherwise if value is None else format(value, form)


def show(found: Mapping[str, Any]) -> None:
    """Print the tables."""
    print("Units of edge in Nangate45, and their bounds, at 700 MHz.\n")
    table(
        ("unit", "area, µm²", "memory macros, µm²", "critical path, ns", "energy, pJ", "a",
         "initiation interval", "operations/s/mm²", "bound: area, µm²", "critical path, ns",
         "operations/s/mm²", "area over bound"),
        [(each["unit"], shown(each["area_um2"], ",.0f", "not characterised yet"),
          shown(each["memory_um2"], ",.0f"), shown(each["critical_path_ns"], ".2f"),
          shown(each["energy_pj"], ".2f"), each["operation"] or "–",
          f"{each['initiation_interval']:.3g}", shown(each["operations_per_s_mm2"], ".3g"),
          f"{each['bound_area_um2']:,.0f}", f"{each['bound_critical_path_ns']:.2f}",
          f"{each['bound_operations_per_s_mm2']:.3g}", shown(each["area_over_bound"], ".2f"))
         for each in found["units"]])
    lane = found["published_lane"]
    print(f"The published RTL's lane of 16 multipliers, synthesised the same way: "
          f"{lane['area_um2']:,.0f} µm², {lane['critical_path_ns']} ns, "
          f"{lane['results_per_s_mm2']:.3g} results/s/mm².\n")
    table(("target", "", "", "limit", "met"),
          [(each["what"], shown(each["value"], ",.4g" if each["limit"] < 100 else ",.0f"),
            each["relation"], format(each["limit"], ",.4g" if each["limit"] < 100 else ",.0f"),
            {True: "yes", False: "no", None: "not known"}[each["met"]])
           for each in found["targets"]])
    print("Where the lane's area goes:\n")
    table(("", "area, µm²", "adds, µm²"),
          [(each["what"], f"{each['area_um2']:,.0f}", f"{each['added_um2']:,.0f}")
           for each in found["mac_lane"]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthesise", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.synthesise:
        refresh(POINTS, components())
    measured = read(POINTS)
    if missing := [name for name in needed() if name not in measured]:
        parser.error(f"{POINTS.name} lacks {', '.join(missing)}; measure them with --synthesise")
    found = report(measured)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        show(found)


if __name__ == "__main__":
    main()
