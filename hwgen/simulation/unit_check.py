"""The check that every unit's RTL test makes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwgen.program import Job
from hwgen.simulation.module import VerilogModule
from hwgen.simulation.run import JobResult, run_jobs
from hwgen.simulation.simulators import Simulator
from hwgen.units.registry import jobs_of

STALL_SEEDS = (1, 2)


def check_unit(
    unit: Any,
    spec: Any,
    jobs: Sequence[Job],
    simulator: Simulator | str | None = None,
    stall_seeds: Sequence[int] = STALL_SEEDS,
) -> list[JobResult]:
    """Assert that a unit's RTL equals golden, stalled or not, and takes the cycles of its cost.

    Parameters
    ----------
    unit : the unit's component class, which is built from the spec; or a VerilogModule of the unit,
        as a netlist is
    spec : the unit's spec
    jobs : jobs, all of the unit
    simulator : "verilator", "icarus", or None for the default
    stall_seeds : seeds of the stalled runs

    Returns
    -------
    The results, first those without stalls.

    Raises
    ------
    ValueError
        If there is no job.
    AssertionError
        Says which job differs, with what seed, and how.
    """
    if not jobs:
        raise ValueError("jobs must hold at least one job")
    name = jobs[0].unit
    module = unit if isinstance(unit, VerilogModule) else _module_of(unit(spec), name)
    results = run_jobs(module, spec, jobs, simulator, [None, *stall_seeds])
    problems: list[str] = []
    for result in results:
        seed = result.stall_seed
        stalls = "without stalls" if seed is None else f"stall seed {seed}"
        problems.extend(f"{result.name}, {stalls}: {found}" for found in result.mismatches[:3])
    for job, result in zip(jobs, results[: len(jobs)], strict=True):
        predicted = jobs_of(name).predicted_cycles(spec, job)
        if result.cycles != predicted:
            problems.append(f"{job.name}: {result.cycles} cycles counted, {predicted} predicted")
        if job.cycles is not None and job.cycles != predicted:
            problems.append(f"{job.name}: carries {job.cycles} cycles, cost says {predicted}")
    assert not problems, f"{name} with {spec}:\n" + "\n".join(problems[:20])
    return results


def _module_of(component: Any, name: str) -> VerilogModule:
    from hwgen.emit import unit_module  # Amaranth is needed here alone

    return unit_module(component, name)
