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
    component_class: Any,
    spec: Any,
    jobs: Sequence[Job],
    simulator: Simulator | str | None = None,
    stall_seeds: Sequence[int] = STALL_SEEDS,
) -> list[JobResult]:
    """Assert that a unit's RTL equals golden, stalled or not, and takes the cycles of its cost.

    Parameters
    ----------
    component_class : the unit's component, built from its spec
    spec : the unit's spec
    jobs : jobs, all of one unit
    simulator : "verilator", "icarus", or None for the default
    stall_seeds : seeds of the stalled runs

    Returns
    -------
    The results, first those without stalls.

    Raises
    ------
    AssertionError
        Says which job differs, with what seed, and how.
    """
    from hwgen.emit import unit_module  # Amaranth is needed here alone

    if not jobs:
        raise ValueError("jobs must hold at least one job")
    module = unit_module(component_class(spec), jobs[0].unit)
    return check_module(module, spec, jobs, simulator, stall_seeds)


def check_module(
    module: VerilogModule,
    spec: Any,
    jobs: Sequence[Job],
    simulator: Simulator | str | None = None,
    stall_seeds: Sequence[int] = STALL_SEEDS,
) -> list[JobResult]:
    """Assert of a unit's Verilog, RTL or netlist, what `check_unit` asserts of its component.

    Parameters
    ----------
    module : the Verilog with its ports
    spec, jobs, simulator, stall_seeds : as for `check_unit`

    Returns
    -------
    The results, first those without stalls.

    Raises
    ------
    AssertionError
        Says which job differs, with what seed, and how.
    """
    if not jobs:
        raise ValueError("jobs must hold at least one job")
    unit = jobs[0].unit
    results = run_jobs(module, spec, jobs, simulator, [None, *stall_seeds])
    problems: list[str] = []
    for result in results:
        seed = result.stall_seed
        stalls = "without stalls" if seed is None else f"stall seed {seed}"
        problems.extend(f"{result.name}, {stalls}: {found}" for found in result.mismatches[:3])
    for job, result in zip(jobs, results[: len(jobs)], strict=True):
        predicted = jobs_of(unit).predicted_cycles(spec, job)
        if result.cycles != predicted:
            problems.append(f"{job.name}: {result.cycles} cycles counted, {predicted} predicted")
        if job.cycles is not None and job.cycles != predicted:
            problems.append(f"{job.name}: carries {job.cycles} cycles, cost says {predicted}")
    assert not problems, f"{unit} with {spec}:\n" + "\n".join(problems[:20])
    return results
