"""Where a processing element's area goes: python benchmarks/pe_area.py [--json].

The processing element of `edge`, and that of a small design, in Nangate45 at 700 MHz, as the units
are synthesised (gated clocks; full adders as cells where the netlist then keeps the clock).
Memories above 2 kbit are black boxes.

It is synthesised in parts: a lane, a softmax engine and the norm engine each as one, then what
connects them, with these as black boxes; areas are counted as often as there are instances, and the
critical path is found in the netlists joined. That leaves out what synthesis finds across the
parts; the small design is also synthesised as one, which shows how much that is.

Against it stands the sum of its units, each synthesised alone with the parameters that it has
there, and the sum of all of its parts: with what is in no data sheet, such as the control of a lane
or the memories for an engine's rows. What an accelerator has around the processing element follows.

--synthesise measures what has changed of pe_area.csv again (over an hour for everything; needs the
tools that `transcode characterize` needs). --figure writes docs/figures/pe_area.svg.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from constructions.points import Row, read, refresh
from constructions.processing_element import (
    AROUND,
    FIELDS,
    FLAT,
    JOINED,
    TREES,
    blocks,
    components,
    measure,
    parts,
    units,
)

from hwgen.design import AcceleratorDesign
from hwgen.technology.flow.points import DERIVED
from hwgen.technology.sram import memory
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.layer_norm import cost as layer_norm_cost
from hwgen.units.softmax import cost as softmax_cost
from hwgen.units.stages import MACRO_BITS

POINTS = Path(__file__).with_suffix(".csv")
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "pe_area.svg"

SMALL: dict[str, Any] = {
    "integer_bits": 4, "fraction_bits": 6, "tile_b": 1, "tile_x": 4, "tile_y": 4,
    "nonlinearity": "relu", "lanes_per_pe": 4, "macs_per_lane": 2, "softmax_per_pe": 2,
    "k_max": 256, "max_sequence_length": 32, "activation_buffer_kib": 4, "weight_buffer_kib": 4,
    "mask_buffer_kib": 2,
}
"""In what the small design differs from edge."""

MEMORY_PREFIX = "memory "

SHOWN = {"rows": "rows, expanded", "results": "results, compacted",
         "softmax_engine control": "control", "norm_engine control": "control",
         "lane control": "control"}
"""What parts are called together, or where colours say whose they are."""


def design(**changes: Any) -> AcceleratorDesign:
    """The design edge with one processing element, and with changes."""
    edge = AcceleratorDesign.load("edge").model_dump()
    fields = {field: value for field, value in edge.items() if field not in DERIVED}
    return AcceleratorDesign.load({**fields, "pes": 1, **changes})


def specs() -> dict[str, AcceleratorSpec]:
    """Designs whose processing elements are synthesised."""
    return {"small": AcceleratorSpec.of(design(**SMALL)), "edge": AcceleratorSpec.of(design())}


def all_components() -> Iterator[tuple[str, Any, int, Callable[[], Any]]]:
    """Everything in pe_area.csv."""
    for name, spec in specs().items():
        yield from components(name, spec, whole=name == "small", around=name == "edge")


def area(row: Row) -> float:
    return float(row["area_um2"])


def figures(row: Row) -> dict[str, Any]:
    """What a row says."""
    return {
        "area_um2": area(row), "register_um2": area(row) - float(row["logic_um2"]),
        "critical_path_ns": float(row["critical_path_ns"]),
        "critical_path_start": row["critical_path_start"],
        "critical_path_end": row["critical_path_end"]}


def added(rows: Mapping[str, Row], counts: Mapping[str, int]) -> float:
    """Area of parts, each as often as it is there (µm²)."""
    return sum(count * area(rows[part]) for part, count in counts.items())


def is_memory(part: str) -> bool:
    return part.startswith(MEMORY_PREFIX)


def memories_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Those among parts that are memories of flip-flops."""
    return {part: count for part, count in counts.items() if is_memory(part)}


def times(counts: Mapping[str, int], number: int) -> dict[str, int]:
    return {part: number * count for part, count in counts.items()}


def of_blocks(spec: AcceleratorSpec, rows: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Each block as one, and what it consists of."""
    found = []
    for block, count in blocks(spec).items():
        inside = parts(spec).get(block, {TREES: 1})
        together = added(rows, inside)
        found.append({
            "block": block, "count": count, **figures(rows[block]),
            "memory_um2": added(rows, memories_of(inside)),
            "units_um2": added(rows, units(spec).get(block, {})),
            "parts_um2": together,
            "over_parts": area(rows[block]) / together - 1,
        })
    return found


def of_parts(spec: AcceleratorSpec, rows: Mapping[str, Row]) -> list[dict[str, Any]]:
    """All parts of the element, and how many there are."""
    counts = blocks(spec)
    return [
        {"part": part, "block": block, "count": counts[block] * count,
         "unit": part in units(spec).get(block, {}), **figures(rows[part])}
        for block in counts
        for part, count in parts(spec).get(block, {TREES: 1}).items()]


def of_element(spec: AcceleratorSpec, rows: Mapping[str, Row]) -> dict[str, Any]:
    """The element against its units and against all of its parts."""
    known = of_blocks(spec, rows)
    whole = sum(each["count"] * each["area_um2"] for each in known)
    memories = sum(each["count"] * each["memory_um2"] for each in known)
    own = sum(each["count"] * each["units_um2"] for each in known)
    together = sum(each["count"] * each["parts_um2"] for each in known)
    beyond: dict[str, float] = {}
    for each in of_parts(spec, rows):
        if not each["unit"] and not is_memory(each["part"]):
            what = SHOWN.get(each["part"].split(",")[0], each["part"])
            beyond[what] = beyond.get(what, 0.0) + each["count"] * each["area_um2"]
    joined, flat = rows[JOINED], rows.get(FLAT)
    return {
        "area_um2": whole,
        "memory_um2": memories,
        "units_um2": own,
        "parts_um2": together,
        "beyond_units_um2": {**beyond, "blocks mapped as one": whole - together},
        "over_units": (whole - memories) / own - 1,
        "over_units_with_memories": whole / own - 1,
        "over_parts": whole / together - 1,
        "joined": figures(joined),
        "macros_um2": float(joined["memory_um2"]),
        "flat": figures(flat) if flat else None,
        "over_flat": whole / area(flat) - 1 if flat else None,
    }


def memories(spec: AcceleratorSpec) -> list[dict[str, Any]]:
    """Every memory of the element: where it is, entries, width, macro or not, SRAM model's area."""
    inside = {
        "lane": spec.lane.memories(),
        "softmax_engine": {**spec.softmax.memories(), **{
            f"softmax's {name}": size
            for name, size in softmax_cost.macros(spec.softmax.softmax).items()}},
        "norm_engine": {**spec.norm.memories(), **{
            f"layer_norm's {name}": size
            for name, size in layer_norm_cost.macros(spec.norm.layer_norm).items()}},
    }
    return [
        {"memory": name, "block": block, "count": blocks(spec)[block], "depth": depth,
         "width": width, "macro": depth * width > MACRO_BITS,
         "macro_um2": memory(depth, width).area_um2}
        for block, found in inside.items() for name, (depth, width) in found.items()]


def report(rows: Mapping[str, Row], name: str, spec: AcceleratorSpec) -> dict[str, Any]:
    """Everything that is printed of a design."""
    own = {key.removeprefix(f"{name}: "): row for key, row in rows.items()
           if key.startswith(f"{name}: ")}
    return {
        "element": of_element(spec, own),
        "blocks": of_blocks(spec, own),
        "parts": of_parts(spec, own),
        "memories": memories(spec),
        "around": [{"part": part, **figures(own[part])} for part in AROUND if part in own],
    }


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    for row in (head, ("---",) * len(head), *rows):
        print("| " + " | ".join(row) + " |")
    print()


def path(each: Mapping[str, Any]) -> tuple[str, str]:
    return (f"{each['critical_path_ns']:.2f}",
            f"{each['critical_path_start']} → {each['critical_path_end']}")


def show(name: str, found: Mapping[str, Any]) -> None:
    """Print the tables of a design."""
    element = found["element"]
    print(f"Processing element of {name}: {element['area_um2']:,.0f} µm² of standard cells, of it "
          f"{element['memory_um2']:,.0f} in memories of flip-flops; memory macros "
          f"{element['macros_um2']:,.0f} µm². Critical path {path(element['joined'])[0]} ns "
          f"({path(element['joined'])[1]}).")
    if element["flat"]:
        print(f"Synthesised as one: {element['flat']['area_um2']:,.0f} µm², "
              f"{element['flat']['critical_path_ns']:.2f} ns; the parts take "
              f"{element['over_flat']:+.1%}.")
    print()
    table(("the element against", "µm²", "difference"), [
        ("its units (element without memories of flip-flops)", f"{element['units_um2']:,.0f}",
         f"{element['over_units']:+.1%}"),
        *((f"– {what}", f"{area_um2:,.0f}", f"{area_um2 / element['units_um2']:+.1%}")
          for what, area_um2 in element["beyond_units_um2"].items()),
        ("its units (element with them)", f"{element['units_um2']:,.0f}",
         f"{element['over_units_with_memories']:+.1%}"),
        ("all of its parts", f"{element['parts_um2']:,.0f}", f"{element['over_parts']:+.1%}")])
    table(("block", "of them", "area of one, µm²", "of it registers", "sum of its parts",
           "difference", "critical path, ns", "from, to"),
          [(each["block"], str(each["count"]), f"{each['area_um2']:,.0f}",
            f"{each['register_um2']:,.0f}", f"{each['parts_um2']:,.0f}",
            f"{each['over_parts']:+.1%}", *path(each)) for each in found["blocks"]])
    table(("part", "in", "of them", "area of one, µm²", "all, µm²", "share of the parts",
           "critical path, ns"),
          [(each["part"], each["block"], str(each["count"]), f"{each['area_um2']:,.0f}",
            f"{each['count'] * each['area_um2']:,.0f}",
            f"{each['count'] * each['area_um2'] / element['parts_um2']:.1%}", path(each)[0])
           for each in found["parts"]])
    table(("memory", "in", "of them", "entries × bits", "kept in", "as a macro, all, µm²"),
          [(each["memory"], each["block"], str(each["count"]),
            f"{each['depth']} × {each['width']}", "macro" if each["macro"] else "flip-flops",
            f"{each['count'] * each['macro_um2']:,.0f}") for each in found["memories"]])
    if found["around"]:
        table(("around the element", "area, µm²", "of it registers", "critical path, ns",
               "from, to"),
              [(each["part"], f"{each['area_um2']:,.0f}", f"{each['register_um2']:,.0f}",
                *path(each)) for each in found["around"]])


BLOCKS = {"lane": "lanes", "softmax_engine": "softmax engines", "norm_engine": "norm engine",
          TREES: "trees"}


def figure(found: Mapping[str, Any]) -> str:
    """Standard cells by part, and memory macros by name, in mm², as SVG."""
    from hwgen.datasheet.figures import Bars, bars_figure

    cells: dict[tuple[str, str], float] = {}
    for each in found["parts"]:
        part = "memories of flip-flops" if is_memory(each["part"]) else each["part"].split(",")[0]
        place = SHOWN.get(part, part), BLOCKS[each["block"]]
        cells[place] = cells.get(place, 0.0) + each["count"] * each["area_um2"] / 1e6
    macros: dict[tuple[str, str], float] = {}
    for each in found["memories"]:
        if each["macro"]:
            # Numbers tell banks apart.
            name = re.sub(r"_\d+$", "", each["memory"]).replace("_", " ")
            place = name, BLOCKS[each["block"]]
            macros[place] = macros.get(place, 0.0) + each["count"] * each["macro_um2"] / 1e6
    return bars_figure([bars_of("standard cells (mm²)", cells, Bars),
                        bars_of("memory macros (mm²)", macros, Bars)])


def bars_of(label: str, areas: Mapping[tuple[str, str], float], bars: Any) -> Any:
    """A panel, the largest first; what two blocks have alike is told apart by its colour."""
    ordered = sorted(areas, key=lambda place: -areas[place])
    return bars(label, [name for name, _ in ordered], [areas[place] for place in ordered],
                [group for _, group in ordered])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthesise", action="store_true")
    parser.add_argument("--figure", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.synthesise:
        refresh(POINTS, all_components(), measure, FIELDS)
    rows = read(POINTS)
    found = {name: report(rows, name, spec) for name, spec in specs().items()}
    if arguments.figure:
        FIGURE.write_text(figure(found["edge"]), encoding="utf-8")
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        for name, each in found.items():
            show(name, each)


if __name__ == "__main__":
    main()
