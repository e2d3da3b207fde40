"""The data sheet of one unit, as text and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from hwgen.datasheet.docstring import Docstring, as_markdown
from hwgen.datasheet.examples import example_job
from hwgen.datasheet.figures import error_figure
from hwgen.datasheet.function import function_section
from hwgen.datasheet.ports import ports_section
from hwgen.datasheet.synthesis import synthesis_section
from hwgen.datasheet.timing import MAXIMUM_COLUMNS, render, shown_cycles, wave_json
from hwgen.design import AcceleratorDesign
from hwgen.emit import ports_of
from hwgen.simulation.module import Port
from hwgen.simulation.run import SimulationError, case_of
from hwgen.simulation.waves import record
from hwgen.units.accuracy import Accuracy
from hwgen.units.ppa import Points, has_points
from hwgen.units.registry import check_unit_name, component_of, jobs_of

DEFAULT_DESIGN = "edge"
"""The named design whose units are the default ones."""

HOLD_CYCLES = 2
"""Cycles for which a timing diagram's sinks hold back the first beat."""

SYNTHESIS_HEADING = "## Area, critical path and energy"
"""What follows comes from ppa.csv, what stands before it from the code alone."""


@dataclass(frozen=True)
class DataSheet:
    """The data sheet of a unit.

    Parameters
    ----------
    unit : its name
    text : Markdown, which finds the figures in a folder named as the unit
    files : figures (SVG) and the timing diagram's WaveJSON, by name
    """

    unit: str
    text: str
    files: Mapping[str, str]


def make_sheet(unit: str, design: str = DEFAULT_DESIGN, points: Points | None = None) -> DataSheet:
    """Make a unit's data sheet from its code, a simulation of its RTL and its synthesised points.

    Parameters
    ----------
    unit : name of a unit with RTL
    design : the design whose unit is described, by name or file
    points : synthesised points; by default those of the unit's ppa.csv, if there is one

    Raises
    ------
    ValueError
        If there is no such unit or design, or a port is not described.
    MissingToolError
        If a package that draws is missing; says how to install it.
    SimulationError
        If the simulated RTL does not do what golden and cost say: no sheet shows such a unit.
    """
    check_unit_name(unit)
    spec, origin = default_spec(unit, design)
    component_class = component_of(unit)
    files: dict[str, str] = {}
    if points is None and has_points(unit):
        points = Points.read(unit)
    sections = [
        _head(unit, spec, origin, component_class),
        function_section(unit, spec, component_class),
        _timing_and_ports(unit, spec, component_class, files),
        _accuracy(unit, spec, files),
        _synthesis(unit, spec, points, files),
    ]
    return DataSheet(unit, "\n\n".join(sections) + "\n", files)


def default_spec(unit: str, design: str = DEFAULT_DESIGN) -> tuple[Any, str]:
    """Return the spec of a unit's default, and where it comes from.

    It is the design's, or that of the design with stochastic rounding where only such a design has
    the unit. Of the default design, or of a unit that the design lacks, it is the first of the
    SPECS in `hwgen/units/<unit>/workload.py`, where it lists some.

    Raises
    ------
    ValueError
        If there is no such design, or nothing says what the unit's default is.
    """
    name = f"hwgen.units.{unit}.workload"
    listed = getattr(import_module(name), "SPECS", None) if find_spec(name) else None
    plain = AcceleratorDesign.load(design)
    if listed and (design == DEFAULT_DESIGN or unit not in plain.unit_specs):
        return listed[0], f"the first of `SPECS` in `hwgen/units/{unit}/workload.py`"
    rounding = plain.model_copy(update={"stochastic_rounding": True})
    for made, origin in ((plain, ""), (rounding, " with stochastic rounding")):
        if unit in made.unit_specs:
            return made.unit_specs[unit], f"that of the design `{design}`{origin}"
    raise ValueError(
        f"{unit} has no default: no design sets it, and hwgen/units/{unit}/workload.py lists "
        "no SPECS"
    )


def _head(unit: str, spec: Any, origin: str, component_class: Any) -> str:
    parameters = ", ".join(f"{name} {value}" for name, value in asdict(spec).items())
    return (
        f"# {unit}\n\n{as_markdown(Docstring.of(component_class).summary)}\n\n"
        f"Default unit, {origin}: {parameters}.\n\n"
        f"This page is written by `transcode datasheet {unit}` from `hwgen/units/{unit}/`; "
        "change the code, not the page."
    )


def _timing_and_ports(
    unit: str, spec: Any, component_class: Any, files: dict[str, str]
) -> str:
    component = component_class(spec)
    ports = ports_of(component)
    ports_text = ports_section(unit, ports, component_class)
    timing_text, latency_text = _timing(unit, spec, component, ports, files)
    return "\n\n".join([ports_text, timing_text, latency_text])


def _timing(
    unit: str, spec: Any, component: Any, ports: tuple[Port, ...], files: dict[str, str]
) -> tuple[str, str]:
    job = example_job(unit, spec)
    case = case_of(spec, job)
    plain = record(component, case)
    predicted = jobs_of(unit).predicted_cycles(spec, job)
    if plain.cycles != predicted:
        raise SimulationError(
            f"{unit}, {job.name}: {plain.cycles} cycles counted, {predicted} predicted"
        )
    held = record(component, case, hold_cycles=HOLD_CYCLES)
    diagram = wave_json(held, f"{unit}: {job.name}")
    files["timing.json"] = json.dumps(diagram, indent=1, ensure_ascii=False) + "\n"
    files["timing.svg"] = render(diagram)
    outputs = [port.name for port in ports if port.kind == "stream" and port.direction == "out"]
    shown = shown_cycles(held)
    cut = len(shown) == MAXIMUM_COLUMNS and shown[-1] != held.recorded_cycles - 1
    text = [
        "## Timing",
        f"![{unit}: valid, ready and beats of every stream]({unit}/timing.svg)",
        f"The default unit in Amaranth's simulator: {job.name}. Sources offer their beats without "
        f"a gap; {_listed(outputs)} {'is' if len(outputs) == 1 else 'are'} held back for "
        f"{HOLD_CYCLES} cycles at the first beat. A beat is transferred at the rising edge that "
        "ends a cycle with valid and ready high. Payloads are shown by the number of their beat"
        + (f"; the job goes on after the {len(shown)} columns that are shown" if cut else "")
        + f". The same as WaveJSON: [timing.json]({unit}/timing.json).",
    ]
    return "\n\n".join(text), _latency(unit, spec, predicted, plain.interval_cycles())


def _listed(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)


def _latency(unit: str, spec: Any, cycles: int, intervals: Mapping[str, float]) -> str:
    cost = import_module(f"hwgen.units.{unit}.cost")
    rows = [
        ("latency of the default unit, `cost.latency` (cycles)", f"{int(cost.latency(spec))}"),
        (
            "the diagram's job without stalls, by `cost` and as counted (cycles)",
            f"{cycles}",
        ),
        *(
            (f"initiation interval at `{name}` in that job (cycles a beat)", f"{interval:g}")
            for name, interval in intervals.items()
        ),
    ]
    lines = ["## Latency and initiation interval", "", "| quantity | value |", "| --- | ---: |"]
    lines += [f"| {as_markdown(name)} | {value} |" for name, value in rows]
    parts = ["\n".join(lines)]
    module = Docstring.of(cost)
    if module.body:
        parts.append(as_markdown(module.body))
    for name in ("latency", "cycles", "cycles_back_to_back"):
        function = getattr(cost, name, None)
        if function is not None:
            found = Docstring.of(function)
            text = " ".join([found.summary, *found.body.split()])
            parts.append(f"`{name}`: {as_markdown(text)}")
    return "\n\n".join(parts)


def _accuracy(unit: str, spec: Any, files: dict[str, str]) -> str:
    found = measured(unit, spec)
    heading = "## Error bound"
    if not found:
        return (
            f"{heading}\n\nExact: what the unit computes is defined on integers, and the RTL "
            "equals `golden` bit for bit. Where a result is rounded, it is rounded once, from its "
            "exact value."
        )
    files["error.svg"] = error_figure(found)
    rows = [
        "| measured on | largest error (ulp) | mean error (ulp) | bound (ulp) |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {each.inputs} | {each.largest_ulp:.3f} | {each.mean_ulp:.3f} | {each.bound_ulp:g} |"
            for each in found
        ),
    ]
    module = import_module(f"hwgen.units.{unit}.accuracy")
    return "\n\n".join(
        [
            heading,
            as_markdown(Docstring.of(module).summary)
            + " An ulp is one unit in the last place of the output; rounding alone makes 0.5. The "
            "RTL equals `golden` bit for bit, so that these errors are the hardware's.",
            "\n".join(rows),
            f"![{unit}: largest and mean error in ulp over the input range]({unit}/error.svg)",
            as_markdown(" ".join(Docstring.of(module.measure).body.split())),
        ]
    ).rstrip()


def measured(unit: str, spec: Any) -> list[Accuracy]:
    """Errors that the unit's `accuracy.measure` finds; none where the unit is exact."""
    name = f"hwgen.units.{unit}.accuracy"
    if find_spec(name) is None:
        return []
    found: list[Accuracy] = import_module(name).measure(spec)
    return found


def _synthesis(unit: str, spec: Any, points: Points | None, files: dict[str, str]) -> str:
    if points is None:
        return (
            f"{SYNTHESIS_HEADING}\n\nNot synthesised yet: `transcode characterize {unit}` writes "
            f"`hwgen/units/{unit}/ppa.csv`, and `transcode datasheet {unit}` then shows it here."
        )
    section = synthesis_section(points, spec, unit)
    files.update(section.figures)
    return f"{SYNTHESIS_HEADING}\n\n{section.text}"
