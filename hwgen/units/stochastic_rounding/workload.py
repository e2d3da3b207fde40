"""What a stochastic rounding module does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.operands import typical
from hwgen.units.stochastic_rounding.jobs import make_job
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

OPERATION = "result"
RESULTS, TILES = 128, 2


def job(spec: StochasticRoundingSpec, rng: np.random.Generator, density: float) -> Job:
    """Tiles of sums that fill the format of the result once they are shifted."""
    shift = spec.bits - 1
    bits = min(spec.bits + shift, spec.accumulator_bits)
    tiles = [typical(rng, (RESULTS,), bits, density) for _ in range(TILES)]
    seeds = rng.integers(1, 1 << spec.noise_bits, TILES).tolist()
    return make_job(spec, tiles, seeds, shift, f"density {density:g}")


def operations(spec: StochasticRoundingSpec, job: Job) -> int:
    """Results of the job."""
    return len(job.operands["value"])
