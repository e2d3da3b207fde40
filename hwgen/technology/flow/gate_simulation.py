"""Simulation of a netlist in Icarus: equal to golden through the test bench, or recorded for power.

The recording bench is plain Verilog. Its inputs change with the registers, right after the rising
edge; the models have no delays, so what is recorded are the functional transitions of a cycle and
no glitches.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwgen.program import Job
from hwgen.simulation.beats import mismatches, pack, unpack
from hwgen.simulation.module import Port, VerilogModule
from hwgen.simulation.run import case_of
from hwgen.simulation.unit_check import check_unit
from hwgen.technology.flow.activity import Activity, read_activities
from hwgen.technology.flow.library import CellLibrary, nangate45
from hwgen.technology.flow.macros import simulation_models
from hwgen.technology.flow.netlist import Netlist
from hwgen.technology.flow.tools import FlowError, require, run

PERIOD = 2
"""Clock period of the recording bench, in its time steps."""

IDLE_CYCLES = 32
"""Cycles that are recorded after a job, with the clock running and nothing offered."""

QUIET_CYCLES = 4000
"""Cycles without a transfer after which a recorded job counts as hung."""

SIMULATION_SECONDS = 3600.0


@dataclass(frozen=True)
class Recording:
    """What was recorded of a job.

    Parameters
    ----------
    busy : from the first input transfer to the last output transfer
    idle : after it, with the clock running
    """

    busy: Activity
    idle: Activity


def module_of(netlist: Netlist, library: CellLibrary | None = None) -> VerilogModule:
    """Netlist, models of its cells and of its memories, as one module that can be simulated."""
    library = library or nangate45()
    text = netlist.verilog() + library.cell_models() + simulation_models(netlist.macros)
    return VerilogModule(netlist.name, text, netlist.ports)


def check_netlist(
    netlist: Netlist,
    spec: Any,
    jobs: Sequence[Job],
    stall_seeds: Sequence[int] = (1,),
    library: CellLibrary | None = None,
) -> None:
    """Assert that a netlist equals golden, stalled or not, and takes the cycles of its unit's cost.

    Raises
    ------
    AssertionError
        Says which job differs, with what seed, and how.
    MissingToolError
        If Icarus or cocotb is missing (no other simulator knows the cells' primitives).
    """
    check_unit(module_of(netlist, library), spec, jobs, "icarus", stall_seeds)


def record(netlist: Netlist, spec: Any, job: Job, folder: Path) -> Recording:
    """Run a job without stalls, compare its results with golden, and record every net.

    Raises
    ------
    FlowError
        If Icarus fails, the job hangs, or a result differs from golden.
    MissingToolError
        If Icarus is missing; says what to install.
    """
    require(["iverilog", "vvp"])
    folder.mkdir(parents=True, exist_ok=True)
    case = case_of(spec, job)
    module = module_of(netlist)
    (folder / "netlist_and_cells.v").write_text(module.verilog)
    inputs = {
        port.name: [pack(port, beat) for beat in case.stimulus[port.name]]
        for port in module.streams("in")
    }
    for name, beats in inputs.items():
        (folder / f"{name}.hex").write_text("".join(f"{beat:x}\n" for beat in beats))
    counts = {name: len(beats) for name, beats in case.expected.items()}
    signals = {
        port.name: pack(port, {port.name: case.signals[port.name]})
        for port in module.signals if port.direction == "in"
    }
    (folder / "bench.v").write_text(_bench(module, inputs, counts, signals))
    run(
        ["iverilog", "-g2012", "-s", "bench", "-o", "bench.vvp", "bench.v", "netlist_and_cells.v"],
        folder, "iverilog.log", SIMULATION_SECONDS,
    )
    output = run(["vvp", "-n", "bench.vvp"], folder, "vvp.log", SIMULATION_SECONDS)
    problems = _compare(module, case.expected, output)
    window = re.search(r"^window (\d+) (\d+) (\d+)$", output, re.M)
    if problems or window is None:
        said = problems[0] if problems else "the job did not finish"
        raise FlowError(f"{netlist.name} netlist, {job.name}: {said} ({folder / 'vvp.log'})")
    begin, end, last = (int(window[index]) for index in (1, 2, 3))
    vcd = folder / "nets.vcd"
    busy, idle = read_activities(vcd, [(begin, end), (end, last)], PERIOD)
    vcd.unlink()
    return Recording(busy, idle)


def _compare(
    module: VerilogModule, expected: Mapping[str, Sequence[Any]], output: str
) -> list[str]:
    problems = []
    for port in module.streams("out"):
        lines = re.findall(rf"^beat {port.name} ([01xz]+)$", output, re.M)
        problems += mismatches(port, expected[port.name], [unpack(port, bits) for bits in lines])
    return problems


def _bench(
    module: VerilogModule,
    inputs: Mapping[str, Sequence[int]],
    outputs: Mapping[str, int],
    signals: Mapping[str, int],
) -> str:
    """Verilog of a bench that offers all beats, takes all results, and records the nets."""
    ports = ["    .clk(clk), .rst(rst)"]
    ports += [
        f"    .{port.name}({port.width}'h{signals[port.name]:x})"
        for port in module.signals if port.name in signals
    ]
    for port in (*module.streams("in"), *module.streams("out")):
        parts = ("payload", "valid", "ready") if port.width else ("valid", "ready")
        ports += [f"    .{port.name}__{part}({port.name}_{part})" for part in parts]
    takes = " || ".join(f"({port.name}_valid && {port.name}_ready)"
                        for port in module.streams("in"))
    gives = " || ".join(f"({port.name}_valid && {port.name}_ready)"
                        for port in module.streams("out"))
    all_out = " && ".join(f"{name}_count == {count}" for name, count in outputs.items())
    streams = [_source(port, len(inputs[port.name])) for port in module.streams("in")]
    streams += [_sink(port) for port in module.streams("out")]
    separator = ",\n"
    return f"""`timescale 1ns/1ns
module bench;
  reg clk = 0, rst = 1;
  integer quiet = 0, left = -1, begun = 0, first, last;
{"".join(streams)}
  {module.name} dut (
{separator.join(ports)}
  );
  always #1 clk = !clk;
  initial begin
    $dumpfile("nets.vcd");
    $dumpvars(1, bench.dut);
    #5 rst <= 0;
  end
  always @(posedge clk) if (!rst) begin
    if (!begun && ({takes})) begin begun = 1; first = $time; end
    if ({gives}) last = $time;
    quiet = ({takes} || {gives}) ? 0 : quiet + 1;
    if (left < 0 && all_given) left = {IDLE_CYCLES};
    else if (left > 0) left = left - 1;
    if (left == 0) begin
      $display("window %0d %0d %0d", first, last + {PERIOD}, $time);
      $finish;
    end
    if (quiet > {QUIET_CYCLES}) $finish;
  end
  wire all_given = {all_out};
endmodule
"""


def _source(port: Port, beats: int) -> str:
    name, width = port.name, port.width
    return f"""
  reg [{width - 1}:0] {name}_beats [0:{beats - 1}];
  reg [{width - 1}:0] {name}_payload = 0;
  reg {name}_valid = 0;
  wire {name}_ready;
  integer {name}_next = 0;
  initial $readmemh("{name}.hex", {name}_beats);
  always @(posedge clk) if (!rst) begin
    if (!{name}_valid || {name}_ready) begin
      {name}_valid <= {name}_next < {beats};
      if ({name}_next < {beats}) {name}_payload <= {name}_beats[{name}_next];
      {name}_next <= {name}_next + 1;
    end
  end
"""


def _sink(port: Port) -> str:
    name = port.name
    return f"""
  wire [{port.width - 1}:0] {name}_payload;
  wire {name}_valid;
  reg {name}_ready = 1;
  integer {name}_count = 0;
  always @(posedge clk) if (!rst && {name}_valid && {name}_ready) begin
    $display("beat {name} %b", {name}_payload);
    {name}_count <= {name}_count + 1;
  end
"""
