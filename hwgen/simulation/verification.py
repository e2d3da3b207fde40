"""The verdict on a generated folder: does its Verilog compute and take what was promised?"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from hwgen.simulation.build import BuildError
from hwgen.simulation.folder import (
    GeneratedAccelerator,
    GeneratedUnit,
    read_accelerator,
    read_folder,
)
from hwgen.simulation.machine import MachineResult, run_program_jobs
from hwgen.simulation.run import JobResult, SimulationError, run_jobs
from hwgen.simulation.simulators import Simulator, find_simulator

ACCELERATOR = "accelerator"
"""Name of the whole accelerator in a report."""

STALL_SEEDS = (1, 2)
"""Every job runs once without stalls and once with each of these seeds."""


@dataclass(frozen=True)
class UnitReport:
    """The verdict on one unit.

    Parameters
    ----------
    unit : its name
    jobs : number of jobs
    bit_exact : whether every result of every run, stalled or not, equals golden
    cycles_predicted : sum of the cycles that the jobs carry
    cycles_counted : sum of the cycles counted without stalls; None if a job gave no output
    cycles_equal : whether they agree job by job
    first_mismatch : what is wrong, in a sentence; None if nothing is
    simulated_cycles : cycles that were simulated in all runs
    seconds : wall-clock time, with the build
    """

    unit: str
    jobs: int
    bit_exact: bool
    cycles_predicted: int | None
    cycles_counted: int | None
    cycles_equal: bool
    first_mismatch: str | None
    simulated_cycles: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether results and cycles agree."""
        return self.bit_exact and self.cycles_equal and self.first_mismatch is None


@dataclass(frozen=True)
class VerifyReport:
    """The verdict on a generated folder.

    Parameters
    ----------
    path : the folder
    simulator, simulator_version : what simulated it
    stall_seeds : seeds of the stalled runs
    units : one report a unit, in the manifest's order, and at the end one of the whole accelerator,
        where the folder has programs of it
    """

    path: str
    simulator: str
    simulator_version: str
    stall_seeds: tuple[int, ...]
    units: tuple[UnitReport, ...]

    @property
    def ok(self) -> bool:
        """Whether every unit's results and cycles agree."""
        return bool(self.units) and all(unit.ok for unit in self.units)

    def table(self) -> str:
        """Return the verdict as text, one line a unit."""
        rows = [("unit", "jobs", "bit-exact", "cycles predicted", "counted", "")]
        rows += [
            (
                unit.unit,
                str(unit.jobs),
                "yes" if unit.bit_exact else "NO",
                _number(unit.cycles_predicted),
                _number(unit.cycles_counted),
                unit.first_mismatch or "",
            )
            for unit in self.units
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column in (0, 2) else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, [*widths, 0], strict=True))
            ).rstrip()
            for row in rows
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {
            "ok": self.ok,
            "path": self.path,
            "simulator": self.simulator,
            "simulator_version": self.simulator_version,
            "stall_seeds": list(self.stall_seeds),
            "units": [{**asdict(unit), "ok": unit.ok} for unit in self.units],
        }


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def verify(
    path: str | Path,
    simulator: str | None = None,
    *,
    stall_seeds: Sequence[int] = STALL_SEEDS,
    workers: int | None = None,
    on_unit: Callable[[UnitReport], None] | None = None,
) -> VerifyReport:
    """Simulate the Verilog files of a generated folder and compare with golden and cost.

    Results must be bit-exact without stalls and with random stalls on every port; without stalls,
    every job must take exactly the cycles that it carries; and of the whole accelerator every step
    of every program. The files are taken as they lie there.

    Parameters
    ----------
    path : a folder that `hwgen.emit.generate` wrote
    simulator : "verilator", "icarus", or None for the default
    stall_seeds : seeds of the stalled runs
    workers : units that are simulated at once; by default one a core
    on_unit : called with each unit's report as soon as it is there

    Raises
    ------
    ValueError
        If the folder is not what generate writes.
    MissingToolError
        If there is no simulator; says what to install.
    """
    units, accelerator = read_folder(path), read_accelerator(path)
    found = find_simulator(simulator)
    reports: dict[str, UnitReport] = {}
    names = [unit.unit for unit in units]
    with ThreadPoolExecutor(workers or min(os.cpu_count() or 1, len(units))) as pool:
        futures = [pool.submit(_verify_unit, unit, found, tuple(stall_seeds)) for unit in units]
        if accelerator is not None and accelerator.programs:
            names.append(ACCELERATOR)
            futures.append(pool.submit(_verify_accelerator, accelerator, found))
        for future in as_completed(futures):
            report = future.result()
            reports[report.unit] = report
            if on_unit:
                on_unit(report)
    return VerifyReport(
        str(path),
        found.name,
        found.version,
        tuple(stall_seeds),
        tuple(reports[name] for name in names),
    )


def _verify_unit(
    unit: GeneratedUnit, simulator: Simulator, stall_seeds: tuple[int, ...]
) -> UnitReport:
    begun = perf_counter()
    problem: str | None = None
    results: list[JobResult] = []
    try:
        results = run_jobs(unit.module, unit.spec, unit.jobs, simulator, [None, *stall_seeds])
    except (BuildError, SimulationError) as error:
        problem = str(error)
    plain = results[: len(unit.jobs)]
    differing = [
        (job, result)
        for job, result in zip(unit.jobs, plain, strict=False)
        if result.cycles != job.cycles
    ]
    problem = (
        problem
        or _first_mismatch(results)
        or (
            f"{differing[0][0].name}: {differing[0][1].cycles} cycles counted, "
            f"{differing[0][0].cycles} predicted"
            if differing
            else None
        )
    )
    if not unit.jobs:
        problem = "no jobs: nothing is proven"
    return UnitReport(
        unit=unit.unit,
        jobs=len(unit.jobs),
        bit_exact=bool(results) and all(result.ok for result in results),
        cycles_predicted=_sum([job.cycles for job in unit.jobs]),
        cycles_counted=_sum([result.cycles for result in plain]),
        cycles_equal=bool(results) and not differing,
        first_mismatch=problem,
        simulated_cycles=sum(result.simulated_cycles for result in results),
        seconds=perf_counter() - begun,
    )


def _verify_accelerator(accelerator: GeneratedAccelerator, simulator: Simulator) -> UnitReport:
    begun = perf_counter()
    problem: str | None = None
    found: list[tuple[MachineResult, list[str]]] = []
    programs = accelerator.programs
    try:
        found = run_program_jobs(
            accelerator.module, accelerator.spec.activations, programs, simulator
        )
    except (BuildError, SimulationError) as error:
        problem = str(error)
    for job, (result, said) in zip(programs, found, strict=False):
        if problem is None and said:
            problem = f"{job.name}: {said[0]}"
        if problem is None and result.step_cycles != job.step_cycles:
            problem = f"{job.name}: {_first_step(job.step_cycles, result.step_cycles)}"
    return UnitReport(
        unit=ACCELERATOR,
        jobs=len(programs),
        bit_exact=bool(found) and not any(said for _, said in found),
        cycles_predicted=sum(sum(job.step_cycles) for job in programs),
        cycles_counted=sum(sum(result.step_cycles) for result, _ in found) if found else None,
        cycles_equal=bool(found)
        and all(
            result.step_cycles == job.step_cycles
            for job, (result, _) in zip(programs, found, strict=True)
        ),
        first_mismatch=problem,
        simulated_cycles=sum(result.cycles for result, _ in found),
        seconds=perf_counter() - begun,
    )


def _first_step(predicted: Sequence[int], counted: Sequence[int]) -> str:
    for number, (one, other) in enumerate(zip(predicted, counted, strict=False)):
        if one != other:
            return f"step {number}: {other} cycles counted, {one} predicted"
    return f"{len(counted)} steps counted, {len(predicted)} predicted"


def _sum(cycles: Sequence[int | None]) -> int | None:
    known = [count for count in cycles if count is not None]
    return sum(known) if known and len(known) == len(cycles) else None


def _first_mismatch(results: Sequence[JobResult]) -> str | None:
    for result in results:
        if result.mismatches:
            seed = result.stall_seed
            stalls = "" if seed is None else f" (stall seed {seed})"
            return f"{result.name}{stalls}: {result.mismatches[0]}"
    return None
