"""Data sheets say what the code says: ports, latency, transfers, errors; committed ones are new."""

import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from hwgen.datasheet import DataSheet, make_sheet, write_sheets
from hwgen.datasheet.examples import example_job
from hwgen.datasheet.sheet import HOLD_CYCLES, SYNTHESIS_HEADING, default_spec, measured
from hwgen.datasheet.timing import MAXIMUM_COLUMNS, levels
from hwgen.emit import ports_of
from hwgen.simulation.run import case_of
from hwgen.units.registry import RTL_UNITS, component_of, jobs_of

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "units"
LARGEST_FIGURE_BYTES = 60_000

every_unit = pytest.mark.parametrize("unit", RTL_UNITS)


@cache
def sheet_of(unit: str) -> DataSheet:
    return make_sheet(unit)


def rows_of(text: str, heading: str) -> list[list[str]]:
    """Cells of the tables between a heading and the next one, without their heads."""
    part = text.split(f"\n{heading}\n")[1].split("\n## ")[0]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in part.splitlines()
        if line.startswith("|")
    ]
    return [row for number, row in enumerate(rows) if not is_head(rows, number)]


def is_head(rows: list[list[str]], number: int) -> bool:
    following = rows[number + 1 : number + 2]
    return any(set("".join(row)) <= set("-: ") for row in [rows[number], *following])


@every_unit
def test_the_ports_are_those_of_the_component(unit: str) -> None:
    ports = ports_of(component_of(unit)(default_spec(unit)[0]))
    rows = rows_of(sheet_of(unit).text, "## Ports")
    listed = {(row[0], row[1], int(row[3])) for row in rows if len(row) == 5}
    assert listed == {("clk", "in", 1), ("rst", "in", 1)} | {
        (port.name, port.direction, port.width) for port in ports
    }
    assert all(row[4] for row in rows if len(row) == 5), "a port is not described"
    fields = {(row[0], row[1], row[2], int(row[3]), int(row[4])) for row in rows if len(row) == 6}
    expected = set()
    for port in ports:
        for field in port.fields if port.kind == "stream" else ():
            count = field.count or 1
            top = field.offset + count * field.width - 1
            bits = str(top) if top == field.offset else f"{top}:{field.offset}"
            expected.add((port.name, field.name, bits, count, field.width))
    assert fields == expected


@every_unit
def test_the_parameters_are_those_of_the_default_unit(unit: str) -> None:
    spec = default_spec(unit)[0]
    rows = rows_of(sheet_of(unit).text, "### Parameters")
    named = {row[0]: row[1] for row in rows if len(row) == 3}
    assert named == {name: str(getattr(spec, name)) for name in type(spec).__slots__}
    assert all(row[2] for row in rows if len(row) == 3)


@every_unit
def test_latency_and_cycles_are_those_of_the_cost(unit: str) -> None:
    spec = default_spec(unit)[0]
    rows = rows_of(sheet_of(unit).text, "## Latency and initiation interval")
    latency, cycles = rows[0][-1], rows[1][-1]
    assert int(latency) == int(import_module(f"hwgen.units.{unit}.cost").latency(spec))
    assert int(cycles) == jobs_of(unit).predicted_cycles(spec, example_job(unit, spec))
    streams = [port for port in ports_of(component_of(unit)(spec)) if port.kind == "stream"]
    assert len(rows) - 2 == sum(port.direction == "in" for port in streams)
    assert all(float(row[-1]) >= 1 for row in rows[2:])


@every_unit
def test_the_timing_diagram_transfers_what_the_job_predicts(unit: str) -> None:
    spec = default_spec(unit)[0]
    case = case_of(spec, example_job(unit, spec))
    diagram = json.loads(sheet_of(unit).files["timing.json"])
    groups = {row[0]: row[1:] for row in diagram["signal"] if isinstance(row, list)}
    streams = {**case.stimulus, **case.expected}
    assert set(groups) == set(streams)
    # A job that is wider than a diagram is shown up to its right edge.
    cut = len(levels(diagram["signal"][0])) == MAXIMUM_COLUMNS
    assert cut == ("the job goes on after" in sheet_of(unit).text)
    stalls = 0
    for name, beats in streams.items():
        rows = {row["name"]: levels(row) for row in groups[name]}
        columns = list(zip(rows["valid"], rows["ready"], rows["beat"], strict=True))
        moved = [place for place, (v, r, _) in enumerate(columns) if v == r == "1"]
        assert len(moved) == len(beats) or (cut and 0 < len(moved) < len(beats))
        assert [rows["beat"][place] for place in moved] == [str(n) for n in range(len(moved))]
        if "last" in rows:
            shown = [rows["last"][place] for place in moved]
            assert shown == [str(beat["last"]) for beat in beats[: len(moved)]]
        assert {b for v, _, b in columns if v == "0"} <= {"x"}
        if name in case.expected:
            first = [(v, r) for v, r, b in columns if b == "0"]
            assert first == [("1", "0")] * HOLD_CYCLES + [("1", "1")]
            stalls += 1
    assert stalls == len(case.expected)


@every_unit
def test_a_gap_in_the_diagram_hides_nothing_that_moves(unit: str) -> None:
    diagram = json.loads(sheet_of(unit).files["timing.json"])
    rows = [row for group in diagram["signal"][2:] if isinstance(group, list) for row in group[1:]]
    clock, cycle = (levels(row) for row in diagram["signal"][:2])
    assert [mark == "|" for mark in clock] == [mark == "|" for mark in cycle]
    for place, mark in enumerate(cycle):
        if mark == "|":
            assert all(levels(row)[place - 1] == levels(row)[place + 1] for row in rows)
            assert int(cycle[place + 1]) > int(cycle[place - 1].removesuffix(" …")) + 1
        elif place and cycle[place - 1] != "|":
            assert int(mark.removesuffix(" …")) == int(cycle[place - 1]) + 1


@every_unit
def test_errors_stay_within_the_bound_that_the_sheet_states(unit: str) -> None:
    text = sheet_of(unit).text
    found = measured(unit, default_spec(unit)[0])
    if not found:
        assert "\nExact: " in text
        assert "error.svg" not in sheet_of(unit).files
        return
    rows = rows_of(text, "## Error bound")
    for row, accuracy in zip(rows, found, strict=True):
        assert 0.4 < accuracy.largest_ulp <= accuracy.bound_ulp
        assert row[1:] == [f"{accuracy.largest_ulp:.3f}", f"{accuracy.mean_ulp:.3f}", "1"]


def test_units_that_approximate_are_measured() -> None:
    """A unit whose golden speaks of ulps states a bound, and has a measurement."""
    for unit in RTL_UNITS:
        golden = import_module(f"hwgen.units.{unit}.golden")
        approximates = re.search(r"\b1 ulp\b", Path(str(golden.__file__)).read_text())
        if approximates:
            assert measured(unit, default_spec(unit)[0]), unit


@every_unit
def test_figures_are_small_and_found_where_the_text_says(unit: str) -> None:
    sheet = sheet_of(unit)
    linked = set(re.findall(rf"\]\({unit}/([^)]+)\)", sheet.text))
    assert linked == set(sheet.files)
    for name, content in sheet.files.items():
        assert len(content.encode()) < LARGEST_FIGURE_BYTES, name


@every_unit
def test_the_committed_sheet_is_what_the_code_generates(unit: str) -> None:
    sheet = sheet_of(unit)
    committed = (DOCS / f"{unit}.md").read_text(encoding="utf-8")
    remedy = f"docs/units/{unit}.md is not what the code gives: run transcode datasheet {unit}"
    assert committed.split(SYNTHESIS_HEADING)[0] == sheet.text.split(SYNTHESIS_HEADING)[0], remedy
    kept = (DOCS / unit / "timing.json").read_text(encoding="utf-8")
    assert json.loads(kept) == json.loads(sheet.files["timing.json"]), remedy
    for name in re.findall(rf"\]\({unit}/([^)]+)\)", committed):
        assert (DOCS / unit / name).is_file(), remedy


def test_there_is_no_sheet_of_a_unit_that_is_not_there() -> None:
    assert {page.stem for page in DOCS.glob("*.md")} == set(RTL_UNITS)


def test_a_sheet_is_written_with_its_figures_and_the_same_twice(tmp_path: Path) -> None:
    done: list[tuple[float, str]] = []
    (page,) = write_sheets(["dynatran"], tmp_path, progress=lambda *step: done.append(step))
    assert page == tmp_path / "dynatran.md"
    assert page.read_text(encoding="utf-8") == sheet_of("dynatran").text
    written = {file.name: file.read_text() for file in (tmp_path / "dynatran").iterdir()}
    assert written == sheet_of("dynatran").files
    assert done == [(0.0, "dynatran"), (1.0, "done")]


def test_an_unknown_unit_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unit must be one of .*dynatran.*, not 'softmx'"):
        write_sheets(["dynatran", "softmx"], tmp_path)
    assert not list(tmp_path.iterdir())
