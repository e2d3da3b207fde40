"""The simulation harness itself, on a hand-written module and on broken copies of it."""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from hwgen.simulation import (
    Case,
    MissingToolError,
    SimulationError,
    find_simulator,
    run_cases,
    simulators,
)
from hwgen.simulation import build as builds
from hwgen.simulation.beats import mismatches, pack, unpack
from hwgen.simulation.module import Field, Port, VerilogModule

GOOD = """
module adder(input clk, input rst, input [7:0] offset,
             input [8:0] i__payload, input i__valid, output i__ready,
             output [9:0] o__payload, output o__valid, input o__ready);
  reg full = 0;
  reg signed [8:0] sum = 0;
  reg last = 0;
  wire signed [8:0] left = $signed(i__payload[7:0]);
  wire signed [8:0] right = $signed(offset);
  assign i__ready = ~full | o__ready;
  assign o__valid = full;
  assign o__payload = {last, sum};
  always @(posedge clk) begin
    if (i__ready) begin
      full <= i__valid;
      sum <= left + right;
      last <= i__payload[8];
    end
    if (rst) full <= 0;
  end
endmodule
"""
SOURCE = Port(
    "i", "in", "stream", 9, (Field("value", 0, 8, None, True), Field("last", 8, 1, None, False))
)
SINK = Port(
    "o", "out", "stream", 10, (Field("sum", 0, 9, None, True), Field("last", 9, 1, None, False))
)
OFFSET = Port("offset", "in", "signal", 8, (Field("offset", 0, 8, None, True),))
SEEDS = (None, 1, 2)


def adder(*changes):
    text = GOOD
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return VerilogModule("adder", text, (OFFSET, SOURCE, SINK))


def case(name="case", count=40, offset=-3):
    values = [(37 * k) % 256 - 128 for k in range(count)]
    lasts = [int(k % 7 == 6) for k in range(count)]
    return Case(
        name,
        {"offset": offset},
        {"i": [{"value": v, "last": n} for v, n in zip(values, lasts, strict=True)]},
        {"o": [{"sum": v + offset, "last": n} for v, n in zip(values, lasts, strict=True)]},
    )


@pytest.mark.rtl
def test_a_correct_module_agrees_with_every_seed_and_its_cycles_are_counted(simulator):
    results = run_cases(adder(), [case("a"), case("b", 9, 127)], simulator, SEEDS)
    assert [(r.name, r.stall_seed) for r in results] == [(n, s) for s in SEEDS for n in "ab"]
    assert [r.mismatches for r in results] == [[]] * 6
    assert [r.cycles for r in results[:2]] == [41, 10]
    assert results[0].outputs["o"][0] == {"sum": -131, "last": 0}


@pytest.mark.rtl
def test_stalls_really_stall_and_follow_their_seed(simulator):
    seeds = (None, 1, 2, 3, 1)
    results = run_cases(adder(), [case()], simulator, seeds)
    cycles = [result.cycles for result in results]
    assert all(count > 1.05 * cycles[0] for count in cycles[1:])
    assert len(set(cycles)) == 4
    assert cycles[1] == cycles[4]


@pytest.mark.rtl
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("left + right", "left - right"), "port o, beat 0: sum is -125, expected -131"),
        (("last <= i__payload[8]", "last <= 0"), "port o, beat 6: last is 0, expected 1"),
        (
            ("full <= i__valid;", "full <= i__valid & i__payload[6:0] != 37;"),
            "port o gave 39 beats, expected 40",
        ),
        (("i__ready = ~full | o__ready", "i__ready = 0"), "port i took 0 of 40 beats"),
        (("i__ready = ~full | o__ready", "i__ready = full"), "no transfer for 200 cycles"),
        (("o__valid = full", "o__valid = 1"), "port o gave 7[0-9] beats, expected 40"),
    ],
)
def test_a_broken_module_is_reported(simulator, change, sentence):
    (result,) = run_cases(adder(change), [case()], simulator, idle_limit=200)
    assert not result.ok
    assert any(re.search(sentence, problem) for problem in result.mismatches), result.mismatches


@pytest.mark.rtl
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("if (rst)", "else full <= 0;\n    if (rst)"), "withdrew valid"),
        (("if (rst)", "else sum <= sum + 1;\n    if (rst)"), "changed its payload"),
        (("full <= i__valid;", "full <= i__valid | ~i__payload[7];"), "expected"),
    ],
)
def test_what_breaks_only_under_stalls_is_found_by_stalls(simulator, change, sentence):
    results = run_cases(adder(change), [case()], simulator, SEEDS, idle_limit=200)
    assert results[0].ok
    problems = [problem for result in results[1:] for problem in result.mismatches]
    assert any(sentence in problem for problem in problems), problems


@pytest.mark.rtl
def test_a_late_module_takes_more_cycles(simulator):
    late = adder(
        ("reg full = 0;", "reg full = 0, open = 0;"),
        ("i__ready = ~full | o__ready", "i__ready = open & (~full | o__ready)"),
        ("if (rst)", "if (i__valid) open <= 1;\n    if (rst)"),
    )
    (result,) = run_cases(late, [case()], simulator)
    assert result.ok
    assert result.cycles == 41  # counted from the first transfer, however late that is
    delayed = adder(
        (
            "assign o__valid = full",
            "reg seen = 0;\n  always @(posedge clk) "
            "seen <= ~rst & (seen | full);\n  assign o__valid = full & seen",
        ),
        ("~full | o__ready", "~full | (o__ready & seen)"),
    )
    (result,) = run_cases(delayed, [case()], simulator)
    assert result.ok
    assert result.cycles == 42


ENDLESS = (("i__ready = ~full | o__ready", "i__ready = 0"), ("o__valid = full", "o__valid = 1"))


@pytest.mark.rtl
def test_endless_traffic_ends_at_the_cycle_limit(simulator):
    (result,) = run_cases(adder(*ENDLESS), [case()], simulator, cycle_limit=500)
    assert "not finished after 500 cycles" in result.mismatches
    assert result.simulated_cycles <= 501


WAITING = """
import sys
from test_simulation import ENDLESS, adder, case, run_cases
run_cases(adder(*ENDLESS), [case()], sys.argv[1], idle_limit=10**9, cycle_limit=10**9)
"""


def runs(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def await_that(holds, seconds=60):
    """Wait until something holds, and say whether it does."""
    last = time.monotonic() + seconds
    while not holds() and time.monotonic() < last:
        time.sleep(0.05)
    return holds()


@pytest.mark.rtl
def test_a_simulator_ends_with_the_process_that_waits_for_it(simulator):
    run_cases(adder(*ENDLESS), [case()], simulator, cycle_limit=5)  # It is built.
    folders = os.pathsep.join(str(Path(__file__).parents[level]) for level in (0, 2))
    started = []
    with subprocess.Popen([sys.executable, "-c", WAITING, simulator],
                          env={**os.environ, "PYTHONPATH": folders}) as waiting:
        try:
            def simulates():
                started[:] = psutil.Process(waiting.pid).children(recursive=True)
                return len(started) > 1

            assert await_that(simulates)
        finally:
            waiting.kill()
    try:
        assert await_that(lambda: not any(map(runs, started)))
    finally:
        for process in filter(runs, started):
            process.kill()


@pytest.mark.rtl
def test_unknown_bits_are_no_value():
    if not simulators.shutil.which("iverilog"):
        pytest.skip("only Icarus knows unknown bits")
    module = adder(("sum <= left + right", "sum <= {left[8], 8'bx}"))
    (result,) = run_cases(module, [case()], "icarus")
    assert "port o, beat 0: sum is unknown bits, expected -131" in result.mismatches


@pytest.mark.rtl
def test_verilog_that_does_not_compile_is_an_error(simulator):
    with pytest.raises(builds.BuildError, match="could not build adder"):
        run_cases(adder(("endmodule", "endmodul")), [case()], simulator)


@pytest.mark.rtl
def test_a_simulation_that_breaks_off_is_an_error(simulator):
    module = adder(("if (rst)", "if (i__payload == 165) $finish;\n    if (rst)"))
    with pytest.raises(SimulationError, match="adder"):
        run_cases(module, [case()], simulator)


@pytest.mark.rtl
def test_a_port_that_is_not_there_is_an_error(simulator):
    module = replace(adder(), ports=(OFFSET, SOURCE, replace(SINK, name="p")))
    wrong = case()
    wrong = Case(wrong.name, wrong.signals, wrong.stimulus, {"p": wrong.expected["o"]})
    with pytest.raises((SimulationError, builds.BuildError), match="p__ready"):
        run_cases(module, [wrong], simulator)


def test_stimulus_must_name_the_ports():
    with pytest.raises(ValueError, match="in streams .'i'., not .'j'."):
        run_cases(adder(), [Case("x", {"offset": 0}, {"j": []}, {"o": []})], _any_simulator())
    with pytest.raises(ValueError, match="inputs .'offset'., not .'shift'."):
        run_cases(adder(), [Case("x", {"shift": 0}, {"i": []}, {"o": []})], _any_simulator())


def _any_simulator():
    return simulators.Simulator("icarus", "never run")


def test_packing_is_inverse_to_unpacking():
    port = Port(
        "p", "in", "stream", 3 + 15, (Field("n", 0, 3, None, False), Field("v", 3, 5, 3, True))
    )
    beat = {"n": 5, "v": [-16, 15, -1]}
    packed = pack(port, beat)
    assert packed == 5 | 0b10000 << 3 | 0b01111 << 8 | 0b11111 << 13
    assert unpack(port, f"{packed:018b}") == beat
    assert unpack(port, "xxxxx" + f"{packed:018b}"[5:]) == {"n": 5, "v": [-16, 15, None]}


@pytest.mark.parametrize(
    ("beat", "sentence"),
    [
        ({"value": 128, "last": 0}, "i.value must fit 8 signed bits, not 128"),
        ({"value": -129, "last": 0}, "i.value must fit 8 signed bits, not -129"),
        ({"value": 0, "last": 2}, "i.last must fit 1 unsigned bits, not 2"),
        ({"value": 0}, "has the fields last, value, not value"),
    ],
)
def test_beats_that_do_not_fit_are_refused(beat, sentence):
    with pytest.raises(ValueError, match=sentence):
        pack(SOURCE, beat)


def test_fields_left_out_are_not_compared_and_counts_are():
    got = [{"sum": 1, "last": 0}, {"sum": 2, "last": 1}]
    assert mismatches(SINK, [{"sum": 1}, {"last": 1}], got) == []
    assert mismatches(SINK, [{"sum": 1}], got) == ["port o gave 2 beats, expected 1"]
    with pytest.raises(ValueError, match="no field sun"):
        mismatches(SINK, [{"sun": 1}], got)


def test_one_of_many_builders_builds(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSCODE_CACHE", str(tmp_path))
    count = []

    def slow(module, simulator, folder):
        count.append(folder)
        time.sleep(0.2)
        (folder / "sim.vvp").write_text("built")

    monkeypatch.setattr(builds, "_run_build", slow)
    threads = [
        threading.Thread(target=builds.build, args=(adder(), _any_simulator())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count) == 1
    assert (builds.build(adder(), _any_simulator()) / "sim.vvp").read_text() == "built"


def test_a_builder_that_dies_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSCODE_CACHE", str(tmp_path))
    key = builds.build_key(adder(), _any_simulator())
    dead = tmp_path / "builds" / f"{key}.partial-dead"
    dead.mkdir(parents=True)
    (dead / "sim.vvp").write_text("half")

    def failing(module, simulator, folder):
        (folder / "sim.vvp").write_text("half")
        raise builds.BuildError("no")

    monkeypatch.setattr(builds, "_run_build", failing)
    with pytest.raises(builds.BuildError):
        builds.build(adder(), _any_simulator())
    assert [path.suffix for path in (tmp_path / "builds").iterdir()] == [".lock"]


def test_every_part_of_a_build_is_in_its_key():
    base, simulator = adder(), _any_simulator()
    keys = {
        builds.build_key(base, simulator),
        builds.build_key(adder(("left + right", "left - right")), simulator),
        builds.build_key(replace(base, name="other"), simulator),
        builds.build_key(base, replace(simulator, name="verilator")),
        builds.build_key(base, replace(simulator, version="later")),
    }
    assert len(keys) == 5


def test_old_builds_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("TRANSCODE_CACHE", str(tmp_path))
    monkeypatch.setattr(builds, "KEPT_BUILDS", 2)
    monkeypatch.setattr(builds, "_run_build", lambda module, simulator, folder: None)
    made = []
    for offset in range(3):
        made.append(builds.build(adder(("8:0] sum = 0", f"8:0] sum = {offset}")), _any_simulator()))
        time.sleep(0.02)
    assert [path.is_dir() for path in made] == [False, True, True]


def test_an_unknown_simulator_is_refused():
    with pytest.raises(ValueError, match="one of verilator, icarus, not 'vcs'"):
        find_simulator("vcs")


@pytest.mark.parametrize(("name", "install"), [("icarus", "iverilog"), ("verilator", "g\\+\\+")])
def test_a_missing_tool_says_what_to_install(name, install, monkeypatch):
    simulators._find.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingToolError, match=install):
        find_simulator(name)
    simulators._find.cache_clear()
