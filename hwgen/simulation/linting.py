"""Verilator's lint over generated Verilog."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from hwgen.simulation.simulators import find_simulator

WAIVERS = {
    ("DECLFILENAME", ""): "submodules are named <unit>.<submodule> and stand in the unit's file",
    ("PROCASSINIT", ""): "registers start at their reset value, as FPGAs and simulators can",
    ("UNUSEDSIGNAL", ""): "every field of every layout gets a name, read or not",
    ("WIDTHEXPAND", ""): "operands are extended where they are used",
    ("WIDTHTRUNC", "Logical operator"): "`!` of a word stands for its comparison with zero",
    ("CMPCONST", ""): "comparisons of generic parameters may be constant",
}
"""Rules of `-Wall`, with the message's beginning, that Amaranth's output breaks by its nature."""


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
    with tempfile.TemporaryDirectory(prefix="transcode-") as folder:
        waivers = Path(folder) / "waivers.vlt"
        lines = [f'lint_off -rule {rule} -file "*" -match "{text}*"' for rule, text in WAIVERS]
        waivers.write_text("\n".join(["`verilator_config", *lines, ""]))
        done = subprocess.run(
            [
                "verilator",
                "--lint-only",
                "-Wall",
                "--top-module",
                file.stem,
                str(waivers),
                str(file),
            ],
            env=simulator.process_environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    warnings = [line for line in done.stderr.splitlines() if line.startswith("%")]
    if done.returncode and not warnings:
        warnings = [f"%Error: verilator ended with exit code {done.returncode}: {done.stderr}"]
    return warnings
