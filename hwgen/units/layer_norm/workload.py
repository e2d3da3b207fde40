"""What a layer-norm module does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.layer_norm.jobs import make_job
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.operands import typical

OPERATION = "element"
ROW_BEATS, ROWS = 32, 6


def job(spec: LayerNormSpec, rng: np.random.Generator, density: float) -> Job:
    """Rows of a density, scaled by about 1 and moved by a little, into the format's range."""
    length = min(spec.max_row, ROW_BEATS * spec.parallel)
    rows = typical(rng, (ROWS, length), spec.bits, density)
    one = 1 << (spec.bits - 2)
    gamma = one + rng.integers(-one // 4, one // 4, length)
    beta = rng.integers(-one // 4, one // 4, length)
    exponents = {"i": 4 - spec.bits, "gamma": 2 - spec.bits, "beta": 2 - spec.bits,
                 "o": 4 - spec.bits}
    masks = np.ones_like(rows)
    return make_job(
        spec, list(rows), list(masks), gamma, beta, exponents, f"density {density:g}"
    )


def operations(spec: LayerNormSpec, job: Job) -> int:
    """Elements of all rows."""
    return sum(job.shapes["rows"])
