"""The job that a unit's timing diagram shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.simulation.run import case_of
from hwgen.units.registry import jobs_of

DRAWS = 32
"""Random jobs of which the smallest is taken, where a unit has no example of its own."""


def example_job(unit: str, spec: Any) -> Job:
    """Return the unit's own example (`jobs.example_job`), or a small one of its random jobs.

    Parameters
    ----------
    unit : name of a unit with RTL
    spec : its spec
    """
    library = jobs_of(unit)
    if hasattr(library, "example_job"):
        job: Job = library.example_job(spec)
        return job
    rng = np.random.default_rng(0)
    drawn: list[Job] = [library.random_job(spec, rng) for _ in range(DRAWS)]
    return min(drawn, key=lambda job: _unlike_an_example(spec, job))


def _unlike_an_example(spec: Any, job: Job) -> tuple[bool, int]:
    """Jobs of a single beat show no interval; among the others the shorter one is clearer."""
    case = case_of(spec, job)
    beats = [len(port) for port in (*case.stimulus.values(), *case.expected.values())]
    return min(beats) < 2, sum(beats)
