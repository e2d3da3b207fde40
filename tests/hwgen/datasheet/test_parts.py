"""The parts that sheets are made of: docstrings, ports, diagrams, synthesised points."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.datasheet.docstring import Docstring, as_markdown
from hwgen.datasheet.examples import example_job
from hwgen.datasheet.packages import import_package
from hwgen.datasheet.ports import ports_section
from hwgen.datasheet.sheet import default_spec, make_sheet
from hwgen.datasheet.synthesis import label_of, synthesis_section
from hwgen.datasheet.timing import MAXIMUM_COLUMNS, levels, render, wave_json
from hwgen.emit import ports_of
from hwgen.simulation.module import Field, Port
from hwgen.simulation.run import Case, SimulationError, case_of
from hwgen.simulation.simulators import MissingToolError
from hwgen.simulation.waves import record
from hwgen.units import registry
from hwgen.units.dynatran import jobs as dynatran_jobs
from hwgen.units.dynatran.cost import PPA as DYNATRAN
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.ppa import Points
from hwgen.units.pre_sparsity.spec import PreSparsitySpec


class Delay(wiring.Component):
    """Gives each number back after some cycles.

    Ports
    -----
    i : numbers
    o : the same numbers
    """

    def __init__(self, cycles: int = 1, wrong: bool = False) -> None:
        self.cycles, self.wrong = cycles, wrong
        super().__init__({"i": In(stream.Signature(8)), "o": Out(stream.Signature(8))})

    def elaborate(self, platform: Any) -> Module:
        """Take a number, wait, give it."""
        m = Module()
        left, number = Signal(range(self.cycles + 1)), Signal(8)
        full = Signal()
        m.d.comb += [
            self.i.ready.eq(~full),
            self.o.valid.eq(full & (left == 0)),
            self.o.payload.eq(number + int(self.wrong)),
        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [full.eq(1), left.eq(self.cycles - 1), number.eq(self.i.payload)]
        with m.Elif(full & (left != 0)):
            m.d.sync += left.eq(left - 1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += full.eq(0)
        return m


def case(numbers: list[int]) -> Case:
    stimulus, expected = ({name: [{name: n} for n in numbers]} for name in "io")
    return Case("numbers", {}, stimulus, expected)


def test_a_recording_counts_as_costs_do() -> None:
    recording = record(Delay(3), case([5, 6]))
    i, o = recording.streams
    assert (i.transfers, o.transfers) == ((2, 6), (5, 9))
    assert recording.cycles == 8
    assert recording.interval_cycles() == {"i": 4.0}
    assert i.ready[3:6] == (False,) * 3
    assert i.beat[2:8] == (0, 1, 1, 1, 1, None)
    assert [o.fields[cycle] for cycle in o.transfers] == [{"o": 5}, {"o": 6}]


def test_sinks_hold_back_the_first_beat_alone() -> None:
    _, o = record(Delay(3), case([5, 6]), hold_cycles=2).streams
    assert o.transfers == (7, 11)
    assert [cycle for cycle, ready in enumerate(o.ready) if not ready] == [5, 6]
    assert o.beat[5:8] == (0, 0, 0)


def test_a_wrong_result_and_a_hang_are_refused() -> None:
    with pytest.raises(SimulationError, match="numbers: port o, beat 0: o is 6, expected 5"):
        record(Delay(wrong=True), case([5]))
    hanging = Case("numbers", {}, {"i": [{"i": 1}]}, {"o": [{"o": 1}, {"o": 2}]})
    with pytest.raises(SimulationError, match="port o gave 1 beats, expected 2"):
        record(Delay(), hanging)


def test_a_long_wait_becomes_a_gap_and_a_short_one_does_not() -> None:
    short, long = (
        {row["name"]: levels(row) for row in wave_json(recording, "")["signal"][:2]}
        for recording in (record(Delay(4), case([1])), record(Delay(5), case([1])))
    )
    assert short["cycle"] == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert long["cycle"] == ["0", "1", "2", "3 …", "|", "6", "7", "8"]
    assert long["clk"] == ["p", "p", "p", "p", "|", "p", "p", "p"]


def test_a_diagram_ends_at_its_right_edge() -> None:
    diagram = wave_json(record(Delay(), case(list(range(40)))), "")
    assert {len(row["wave"]) for row in diagram["signal"][:2]} == {MAXIMUM_COLUMNS}


def test_a_drawing_is_white_and_holds_every_pattern_that_it_uses() -> None:
    svg = render(wave_json(record(Delay(), case([1, 2])), "delay"))
    assert 'fill="white"' in svg.split("</defs>")[1][:100]
    used = set(re.findall(r'xlink:href="#([^"]+)"', svg))
    assert used <= set(re.findall(r'id="([^"]+)"', svg))


def test_a_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(MissingToolError, match=r"nosuchpackage is missing: .*\[datasheet\]"):
        import_package("nosuchpackage.figure")


def test_a_port_that_is_not_described_is_refused() -> None:
    class Other(Delay):
        """Leaves out a port.

        Ports
        -----
        i : numbers
        """

    ports = ports_of(Delay())
    assert "| `o` | out | stream | 8 | the same numbers |" in ports_section("delay", ports, Delay)
    with pytest.raises(ValueError, match="Other's docstring must describe i, o, .*: see o"):
        ports_section("delay", ports, Other)


def test_a_port_of_other_specs_is_told_apart() -> None:
    class Wider(Delay):
        """Delays numbers.

        Ports
        -----
        i : numbers
        o : the same numbers
        step : only with `stride`: cycles between them
        """

    text = ports_section("delay", ports_of(Delay()), Wider)
    assert "Other specs also have `step`, only with `stride`: cycles between them." in text
    assert "| `step` |" not in text


def test_a_plain_output_is_a_status() -> None:
    level = Port("level", "out", "signal", 3, (Field("level", 0, 3, None, False),))

    class Queue:
        """A queue.

        Ports
        -----
        level : entries
        """

    row = "| `level` | out | status, unsigned | 3 | entries |"
    assert row in ports_section("queue", [level], Queue)


def test_a_unit_without_a_default_is_refused_and_listed_specs_come_first(monkeypatch: Any) -> None:
    with pytest.raises(ValueError, match="activation has no default: no design"):
        default_spec("activation")
    listed = SimpleNamespace(SPECS=[DynatranSpec(2, 9)])
    monkeypatch.setattr("hwgen.datasheet.sheet.find_spec", lambda name: name)
    monkeypatch.setattr("hwgen.datasheet.sheet.import_module", lambda name: listed)
    spec, origin = default_spec("dynatran")
    assert spec == DynatranSpec(2, 9)
    assert origin == "the first of `SPECS` in `hwgen/units/dynatran/workload.py`"


def test_a_docstring_is_taken_apart() -> None:
    def documented() -> None:
        """Do something,
        or nothing.

        More of it.

        Parameters
        ----------
        a, b : what goes in,
            on two lines
        c : the rest

        Returns
        -------
        Nothing.
        """

    found = Docstring.of(documented)
    assert (found.summary, found.body) == ("Do something, or nothing.", "More of it.")
    text = "what goes in, on two lines"
    assert found.entries("Parameters") == [(("a", "b"), text), (("c",), "the rest")]
    assert found.by_name("Parameters") == {"a": text, "b": text, "c": "the rest"}
    assert found.sections["Returns"] == "Nothing."
    with pytest.raises(ValueError, match="has no docstring"):
        Docstring.of(lambda: None)


def test_markup_is_escaped_but_not_in_backticks() -> None:
    assert as_markdown("a*b < c|d `e*f`") == r"a\*b \< c\|d `e*f`"


def test_a_unit_without_an_example_shows_a_small_random_job(monkeypatch: Any) -> None:
    spec = DynatranSpec(4, 8)
    without = SimpleNamespace(**{**vars(dynatran_jobs)})
    del without.example_job
    monkeypatch.setattr("hwgen.datasheet.examples.jobs_of", lambda unit: without)
    job = example_job("dynatran", spec)
    assert 2 <= len(case_of(spec, job).stimulus["i"]) <= 4
    monkeypatch.setattr("hwgen.datasheet.examples.jobs_of", registry.jobs_of)
    assert example_job("dynatran", spec).name == dynatran_jobs.example_job(spec).name


CSV = """\
parallel,bits,area_um2,sequential_um2,memory_um2,critical_path_ns,critical_path_end,operation,\
energy_density_1_pj,energy_density_0_5_pj,leakage_mw,other_area_um2,clock_target_ps,library,date
16,20,1200.5,600,0,0.61,o[3],element,3.25,2.5,0.25,1300,1429,nangate45,2026-01-31
8,20,620,300,0,0.6,o[2],element,1.75,1.5,0.125,700,1429,nangate45,2026-01-31
16,10,700,350,0,0.55,o[1],element,1.5,1.25,0.13,800,1429,nangate45,2026-02-01
8,10,333,150,0,0.5,o[0],element,0.9,0.75,0.06,400,1429,nangate45,2026-02-01
"""


def test_synthesised_points_become_a_table_and_figures() -> None:
    sheet = make_sheet("dynatran", points=Points.parse("dynatran", CSV))
    for line in (
        "4 synthesised points in `hwgen/units/dynatran/ppa.csv`.",
        "- library: nangate45",
        "| date | 2026-01-31 |",
        "| area (µm²) | 1,200 |",
        "| critical path (ns) | 0.61 |",
        "| critical path end | o[3] |",
        "| energy density 0.5 (pJ) | 2.5 |",
        "| leakage (mW) | 0.25 |",
        "| clock target (ps) | 1,429 |",
        "Memory macros are counted apart from the standard cells. Other: of the netlist that was",
        "](dynatran/area.svg)",
        "](dynatran/critical_path.svg)",
        "](dynatran/energy.svg)",
        "There are too few points yet for the fits of `cost.py`.",
    ):
        assert line in sheet.text
    for name, there, absent in (
        ("area.svg", ["area (µm²)", "parallel", "bits", "sequential"], ["memory", "other area"]),
        ("critical_path.svg", ["critical path (ns)", "parallel", "bits"], ["clock target"]),
        ("energy.svg", ["energy (pJ per element)", "energy density 0.5"], []),
    ):
        svg = sheet.files[name]
        assert all(f">{label}</text>" in svg for label in there), name
        assert not any(f">{label}</text>" in svg for label in absent), name
        assert len(svg.encode()) < 60_000


def test_a_sheet_states_the_errors_of_the_fits() -> None:
    errors = 100 * np.abs(DYNATRAN.fit("area_um2").left_out_errors)
    line = f"| area (µm²) | {np.median(errors):.1f} | {errors.max():.1f} |"
    points = Points.read("dynatran")
    assert line in synthesis_section(points, DynatranSpec(16, 20), "x").text


def test_parameters_that_follow_from_another_vary_with_it() -> None:
    """A window and its FIFO grow with the multipliers; the window also varies alone."""
    rows = ["macs,bits,window,fifo_depth,area_um2", "16,20,64,128,9", "8,20,32,64,4",
            "8,10,32,64,2", "16,20,16,32,5", "16,10,64,128,6"]  # fmt: skip
    points = Points.parse("pre_sparsity", "\n".join(rows))
    section = synthesis_section(points, PreSparsitySpec(16, 20, 64, 128), "x")
    labels = re.findall(r">([^<>]+)</text>", section.figures["area.svg"])
    wanted = ["macs [window, fifo depth]", "bits", "window [fifo depth]"]
    assert [label for label in labels if label in {*wanted, "fifo depth"}] == wanted
    assert set(section.figures) == {"area.svg"}


def test_without_points_a_sheet_says_how_to_make_them(monkeypatch: Any) -> None:
    monkeypatch.setattr("hwgen.datasheet.sheet.has_points", lambda unit: False)
    sheet = make_sheet("dynatran")
    assert "Not synthesised yet: `transcode characterize dynatran` writes" in sheet.text
    assert set(sheet.files) == {"timing.json", "timing.svg"}


def test_points_of_one_size_have_no_figure_and_others_no_default() -> None:
    head, *rows = CSV.splitlines()
    point = Points.parse("dynatran", f"{head}\n{rows[0]}")
    one = synthesis_section(point, DynatranSpec(16, 20), "x")
    assert not one.figures and "| area (µm²) | 1,200 |" in one.text
    other = synthesis_section(Points.parse("dynatran", CSV), DynatranSpec(4, 4), "x")
    assert not other.figures and "The default unit is not among them." in other.text


def test_names_of_columns_end_in_their_unit() -> None:
    assert label_of("critical_path_ps") == "critical path (ps)"
    assert label_of("energy_density_0_25_pj") == "energy density 0.25 (pJ)"
    assert label_of("memory_bits") == "memory (bits)"
    assert label_of("bits") == "bits"
