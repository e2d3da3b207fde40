"""Build seconds and cycles a second of every unit and simulator: python benchmarks/rtl.py.

Units are those of a design (default `edge`). "Verilog" is the seconds that Amaranth takes to write
a unit; "cold" builds it without ccache and, for the first unit, in an empty cache; "again" finds it
there. Cycles a second are those of random jobs, with random stalls in two runs of three, after the
build; the start of the simulator's process is part of it, so "start" gives the shortest run's.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.emit import unit_module
from hwgen.program import Job
from hwgen.simulation import find_simulator, run_jobs
from hwgen.simulation.build import build
from hwgen.simulation.module import VerilogModule
from hwgen.simulation.simulators import SIMULATORS, MissingToolError, Simulator
from hwgen.units.registry import RTL_UNITS, component_of, jobs_of


def processor() -> str:
    """Model name of the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ())
        if line.startswith("model name")
    ]
    return names[0] if names else platform.processor() or platform.machine()


def measure(
    module: VerilogModule, spec: object, jobs: list[Job], simulator: Simulator, cache: str
) -> list[str]:
    """Build and run one unit; return the cells of its row."""
    os.environ["TRANSCODE_CACHE"] = cache
    seconds = []
    for _ in range(2):
        begun = perf_counter()
        build(module, simulator)
        seconds.append(perf_counter() - begun)
    begun = perf_counter()
    run_jobs(module, spec, jobs[:1], simulator)
    start = perf_counter() - begun
    begun = perf_counter()
    results = run_jobs(module, spec, jobs, simulator, (None, 1, 2))
    running = perf_counter() - begun
    if not all(result.ok for result in results):
        raise SystemExit(f"{module.name} with {simulator.name} is not bit-exact")
    cycles = sum(result.simulated_cycles for result in results)
    return [
        f"{seconds[0]:.2f}",
        f"{seconds[1]:.3f}",
        f"{start:.2f}",
        str(cycles),
        f"{cycles / running:.0f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--design", default="edge", help="name or file of a design")
    parser.add_argument("--jobs", type=int, default=24, help="random jobs of each unit")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    say = sys.stdout.write
    design = AcceleratorDesign.load(arguments.design)
    say(f"units of {arguments.design}, {arguments.jobs} random jobs each, seed {arguments.seed}\n")
    say(f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}\n")
    found = []
    for name in SIMULATORS:
        try:
            found.append(find_simulator(name))
            say(f"{name}: {found[-1].version}\n")
        except MissingToolError as error:
            say(f"{name}: not measured. {error}\n")
    os.environ["CCACHE_DISABLE"] = "1"
    header = ("unit", "simulator", "Verilog", "cold", "again", "start", "cycles", "cycles/s")
    say("{:19} {:10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9}\n".format(*header))
    with tempfile.TemporaryDirectory(prefix="transcode-") as cache:
        for index, unit in enumerate(RTL_UNITS):
            if unit not in design.unit_specs:
                continue
            spec = design.unit_specs[unit]
            begun = perf_counter()
            module = unit_module(component_of(unit)(spec), unit)
            writing = f"{perf_counter() - begun:.2f}"
            rng = np.random.default_rng([arguments.seed, index])
            jobs = [jobs_of(unit).random_job(spec, rng) for _ in range(arguments.jobs)]
            for simulator in found:
                row = (
                    unit,
                    simulator.name,
                    writing,
                    *measure(module, spec, jobs, simulator, cache),
                )
                say("{:19} {:10} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9}\n".format(*row))


if __name__ == "__main__":
    main()
