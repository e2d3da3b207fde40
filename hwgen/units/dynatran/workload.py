"""What a dynatran module does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.dynatran.jobs import with_prediction
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.operands import typical

OPERATION = "element"
BEATS = 256

SPECS = tuple(
    DynatranSpec(parallel, bits)
    for parallel, bits in (
        (16, 20), (16, 8), (16, 16), (16, 12), (16, 24), (8, 20), (4, 20), (8, 8), (8, 16), (4, 24),
        (4, 12), (32, 8), (4, 16), (8, 12), (1, 20), (1, 8), (1, 16), (2, 20), (2, 12), (2, 24),
    )
)
"""What is characterised, the row engines' of the design `edge` first; a lane's is of one value."""


def job(spec: DynatranSpec, rng: np.random.Generator, density: float) -> Job:
    """One tile of which a share of 1 − density lies below the threshold: small, but not zero."""
    shape = (BEATS, spec.parallel)
    threshold = 1 << max(spec.bits - 5, 1)
    kept = typical(rng, shape, spec.bits, 1.0)
    kept = np.where(np.abs(kept) < threshold, np.sign(kept) * threshold, kept)
    small = rng.integers(1 - threshold, threshold, shape)
    operands = {
        "value": np.where(rng.random(shape) < density, kept, small),
        "valid_mask": np.ones(shape, np.int64),
        "last": np.arange(BEATS) == BEATS - 1,
        "threshold": threshold,
    }
    return with_prediction(spec, Job("dynatran", f"density {density:g}", operands))


def operations(spec: DynatranSpec, job: Job) -> int:
    """Elements of the job."""
    return int(job.operands["value"].size)
