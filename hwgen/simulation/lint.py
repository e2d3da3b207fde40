"""Verilator's lint over generated Verilog."""

from __future__ import annotations

import subprocess
from pathlib import Path

from hwgen.simulation.simulators import find_simulator

WAIVED = {
    "DECLFILENAME": "submodules are named <unit>.<submodule> and stand in the unit's file",
    "UNUSEDSIGNAL": "Amaranth names every field of every layout, read or not",
    "VARHIDDEN": "Amaranth may name a wire like a submodule's instance",
    "WIDTHEXPAND": "Amaranth's constants are as narrow as their value",
}
"""Warnings of `-Wall` that Amaranth's output gives by its nature, with the reason."""


def lint(path: str | Path) -> list[str]:
    """Lint every Verilog file of a generated folder with `verilator --lint-only -Wall`.

    Returns
    -------
    The warnings that are not waived, as Verilator words them; empty if the files are clean.

    Raises
    ------
    ValueError
        If the folder holds no Verilog.
    MissingToolError
        If Verilator is missing.
    """
    files = sorted((Path(path) / "verilog").glob("*.v"))
    if not files:
        raise ValueError(f"{path} holds no Verilog: it is no folder that generate wrote")
    found: list[str] = []
    for file in files:
        found.extend(lint_file(file))
    return found


def lint_file(file: Path) -> list[str]:
    """Lint one file whose top module is named like the file; see `lint`."""
    simulator = find_simulator("verilator")
    waivers = [f"-Wno-{name}" for name in WAIVED]
    done = subprocess.run(
        ["verilator", "--lint-only", "-Wall", *waivers, "--top-module", file.stem, str(file)],
        env=simulator.process_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    warnings = [line for line in done.stderr.splitlines() if line.startswith("%")]
    if done.returncode and not warnings:
        warnings = [f"%Error: verilator ended with exit code {done.returncode}: {done.stderr}"]
    return warnings
