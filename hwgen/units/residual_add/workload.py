"""What a residual adder does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.operands import typical
from hwgen.units.residual_add.jobs import make_job
from hwgen.units.residual_add.spec import ResidualAddSpec

OPERATION = "element of both operands"
BEATS, ROWS = 64, 2


def job(spec: ResidualAddSpec, rng: np.random.Generator, density: float) -> Job:
    """Rows of two operands of a density, of which one has a bit less after the point."""
    shape = (2, BEATS * spec.parallel)
    rows = [typical(rng, shape, spec.bits, density) for _ in range(ROWS)]
    exponent = 4 - spec.bits
    exponents = (exponent, exponent + 1, exponent + 1)
    return make_job(spec, rows, exponents, f"density {density:g}")


def operations(spec: ResidualAddSpec, job: Job) -> int:
    """Elements of the sum."""
    return len(job.operands["a"])
