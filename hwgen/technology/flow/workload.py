"""The jobs that a unit does while its power is recorded, at a given density of its operands.

A unit that has a module `workload` in its folder says itself what a typical job is:

    OPERATION            what energy is given for, in words
    job(spec, rng, density)      a hwgen.program.Job of a few hundred beats
    operations(spec, job)        how many operations the job is

For any other, random jobs are thinned: of the operands that have the most numbers, a share of
1 − density is set to zero, and an operation is one of those numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.registry import check_unit_name, jobs_of

SEED = 20
"""Seed of the operands: a row of ppa.csv can be made again."""

THINNED_JOBS = 24
"""Random jobs of which the longest is taken."""


@dataclass(frozen=True)
class Workload:
    """A job, and how many operations it is.

    Parameters
    ----------
    job : operands and predicted cycles
    operations : how many
    operation : what one is, in words
    """

    job: Job
    operations: int
    operation: str


def workload(unit: str, spec: Any, density: float) -> Workload:
    """Make the job of a unit for a density; the same one in every process.

    Parameters
    ----------
    unit : its name
    spec : its spec
    density : share of non-zeros of each operand, above 0 and at most 1
    """
    check_unit_name(unit)
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1, not {density}")
    rng = np.random.default_rng(SEED)
    name = f"hwgen.units.{unit}.workload"
    if find_spec(name) is None:
        return _thinned(unit, spec, rng, density)
    module = import_module(name)
    job = module.job(spec, rng, density)
    return Workload(job, int(module.operations(spec, job)), str(module.OPERATION))


def _thinned(unit: str, spec: Any, rng: np.random.Generator, density: float) -> Workload:
    jobs = jobs_of(unit)
    job = max((jobs.random_job(spec, rng) for _ in range(THINNED_JOBS)), key=_numbers)
    most = _numbers(job)
    operands = {
        name: _thin(value, rng, density) if _size(value) == most else value
        for name, value in job.operands.items()
    }
    thinned = replace(job, name=f"density {density:g}", operands=operands, cycles=None)
    return Workload(
        thinned.with_cycles(jobs.predicted_cycles(spec, thinned)), max(most, 1), "element"
    )


def _numbers(job: Job) -> int:
    """How many numbers the largest operand has; masks, which are zeros and ones, are none."""
    return max(_size(value) for value in job.operands.values())


def _size(value: Any) -> int:
    numbers = list(_flat(value))
    return len(numbers) if any(number not in (0, 1) for number in numbers) else 0


def _flat(value: Any) -> Iterable[int]:
    if isinstance(value, np.ndarray | list | tuple):
        for part in value:
            yield from _flat(part)
    else:
        yield int(value)


def _thin(value: Any, rng: np.random.Generator, density: float) -> Any:
    if isinstance(value, np.ndarray):
        return value * (rng.random(value.shape) < density)
    if isinstance(value, list | tuple):
        return [_thin(part, rng, density) for part in value]
    return int(value) if rng.random() < density else 0
