"""Static timing of netlists by OpenSTA, and the synthesis that it decides on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hwgen.technology.flow.library import (
    INPUT_DRIVER,
    OUTPUT_LOAD_FF,
    CellLibrary,
    nangate45,
)
from hwgen.technology.flow.macros import CLOCK_FF, Boundary, liberty
from hwgen.technology.flow.netlist import Netlist
from hwgen.technology.flow.synthesis import CLOCK_PS, Elaborated, synthesise
from hwgen.technology.flow.tools import FlowError, require, run

BOUNDARY_NS = 0.1
"""Delay that is granted to the outside: inputs arrive so long after the clock, and outputs must be
there so long before it (about a register's own delay and set-up)."""

TIMING_SECONDS = 900.0


@dataclass(frozen=True)
class CriticalPath:
    """The longest path of a netlist.

    Parameters
    ----------
    delay_ns : shortest clock period that the netlist works at
    start, end : its first and last register, as the RTL calls it, or port
    """

    delay_ns: float
    start: str
    end: str


def critical_path(
    netlist: Netlist,
    folder: Path,
    clock_ps: int,
    library: CellLibrary | None = None,
    *,
    wire_load: bool = False,
    parts: Sequence[Netlist] = (),
) -> CriticalPath:
    """Find the longest path: between registers, from inputs, or to outputs.

    Inputs are driven by `INPUT_DRIVER`, outputs loaded with `OUTPUT_LOAD_FF`; the outside takes
    `BOUNDARY_NS` on both sides, and so does a black box that is not among `parts`. The clock is
    ideal.

    Parameters
    ----------
    netlist : cells and nets
    folder : where inputs and the log lie
    clock_ps : period that the slack is found for
    library : standard cells; Nangate45 by default
    wire_load : whether nets have the capacitance of the library's default wire-load model, which
        estimates it by fan-out, or none
    parts : netlists of black boxes, into which paths go on; inputs of memories then weigh as those
        of one slice, as if what drives several were buffered

    Raises
    ------
    MissingToolError
        If OpenSTA is missing; says what to install.
    FlowError
        If OpenSTA reports an error: it would go on without what it did not understand.
    """
    require(["sta"])
    library = library or nangate45()
    folder.mkdir(parents=True, exist_ok=True)
    inside = [_with_ports(part, netlist) for part in parts]
    (folder / "netlist.v").write_text("".join(each.verilog() for each in (*inside, netlist)))
    if wire_load:
        libraries = [str(library.liberty)]
    else:
        libraries = ["cells.liberty"]
        library.write_without_wires(folder / "cells.liberty")
    macros = {macro.name: macro for each in (netlist, *parts) for macro in each.macros}
    known = {part.name for part in parts}
    boxes = [box for box in netlist.boxes if box.name not in known]
    if macros or boxes:
        outside = Boundary(0.0, CLOCK_FF, OUTPUT_LOAD_FF, BOUNDARY_NS, BOUNDARY_NS)
        (folder / "macros.lib").write_text(
            liberty(
                list(macros.values()), [(box, outside) for box in boxes], buffered=bool(parts)))
        libraries.append("macros.lib")
    inputs = " ".join(
        port for port, (direction, _) in netlist.widths.items()
        if direction == "input" and port != "clk"
    )
    period = clock_ps / 1000
    script = "\n".join([
        *(f"read_liberty {path}" for path in libraries),
        "read_verilog netlist.v",
        f"link_design {netlist.name}",
        f"create_clock -name clk -period {period} [get_ports clk]",
        f"set ends {{{inputs}}}",
        "foreach name $ends {",
        '  foreach port [concat [get_ports -quiet $name] [get_ports -quiet "$name\\[*\\]"]] {',
        f"    set_input_delay {BOUNDARY_NS} -clock clk $port",
        f"    set_driving_cell -lib_cell {INPUT_DRIVER} $port",
        "  }",
        "}",
        f"set_output_delay {BOUNDARY_NS} -clock clk [all_outputs]",
        f"set_load {OUTPUT_LOAD_FF} [all_outputs]",
        "report_checks -path_delay max -digits 4 -group_count 1",
        "report_worst_slack",
        "exit",
        "",
    ])
    name = "timing_wires" if wire_load else "timing"
    (folder / f"{name}.tcl").write_text(script)
    output = run(
        ["sta", "-no_splash", "-exit", f"{name}.tcl"], folder, f"{name}.log", TIMING_SECONDS
    )
    path = _read(output, period, folder / f"{name}.log")
    return replace(path, start=_name(path.start, netlist, parts),
                   end=_name(path.end, netlist, parts))


def synthesise_for_clock(
    elaborated: Elaborated,
    folder: Path,
    clock_ps: int = CLOCK_PS,
    library: CellLibrary | None = None,
) -> tuple[Netlist, CriticalPath, bool]:
    """Map a component to cells, with gated clocks; full adders are cells if the clock allows it.

    Full-adder cells are small, and the mapping does not see their delay: they stay if the netlist
    is then as fast as wanted, or faster than without them.

    Parameters
    ----------
    elaborated : the component
    folder : where inputs, logs and results lie
    clock_ps : clock period that is aimed at
    library : standard cells; Nangate45 by default

    Returns
    -------
    The netlist, its critical path, and whether full adders are cells.

    Raises
    ------
    MissingToolError
        If a tool or the cells are missing; says what to install.
    FlowError
        If a tool fails.
    """
    found = []
    for full_adders in (True, False):
        netlist = synthesise(
            elaborated, folder, clock_gating=True, full_adders=full_adders,
            clock_ps=clock_ps, library=library,
        )
        path = critical_path(netlist, folder, clock_ps, library)
        found.append((netlist, path, full_adders))
        if not netlist.count("FA_X1") or 1000 * path.delay_ns <= clock_ps:
            break
    return min(found, key=lambda each: each[1].delay_ns)


def _with_ports(part: Netlist, netlist: Netlist) -> Netlist:
    """A part with the ports that it does without: the clock of one that has no registers."""
    ports = next(box.ports for box in netlist.boxes if box.name == part.name)
    return replace(part, widths={**ports, **part.widths})


def _name(found: str, netlist: Netlist, parts: Sequence[Netlist]) -> str:
    """What the RTL calls a register, a register of a part, or a black box."""
    place, _, inside = found.partition("/")
    kinds = {cell.name: cell.kind for cell in netlist.cells if cell.name == place}
    if inside:
        part = next(part for part in parts if part.name == kinds[place])
        return f"{part.name}.{_name(inside, part, ())}"
    black = {macro.name for macro in netlist.macros} | {box.name for box in netlist.boxes}
    if kinds.get(place) in black:
        return kinds[place]
    return netlist.registers.get(found, found)


def _read(output: str, period_ns: float, log: Path) -> CriticalPath:
    wrong = [line for line in output.splitlines() if line.startswith(("Error", "Warning"))]
    slack = re.search(r"^\s*(-?\d+\.\d+)\s+slack \(", output, re.M)
    start = re.search(r"^Startpoint: (\S+)", output, re.M)
    end = re.search(r"^Endpoint: (\S+)", output, re.M)
    if wrong or not (slack and start and end):
        said = wrong[0] if wrong else "it found no path"
        raise FlowError(f"OpenSTA failed ({log}): {said}")
    return CriticalPath(round(period_ns - float(slack[1]), 4), start[1], end[1])
