"""What a MAC lane does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.mac_lane.jobs import make_job
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.operands import typical

OPERATION = "pair of a multiplier"
DOT_PRODUCTS, BEATS = 24, 8


def job(spec: MacLaneSpec, rng: np.random.Generator, density: float) -> Job:
    """Dot products of several beats of operands of a density, activated.

    A lane that can rounds stochastically.
    """
    shape = (DOT_PRODUCTS, BEATS * spec.macs)
    left, right = (typical(rng, shape, spec.bits, density) for _ in range(2))
    seed = int(rng.integers(1, 1 << spec.noise_bits)) if spec.noise_bits else None
    # Sums then fill the format, and the format the range in which the activation bends.
    return make_job(
        spec, f"density {density:g}", list(left), list(right), [0] * DOT_PRODUCTS, spec.bits - 1,
        activate=True, i_exponent=3 - spec.bits, o_exponent=3 - spec.bits,
        seed=seed,
    )


def operations(spec: MacLaneSpec, job: Job) -> int:
    """Pairs that the multipliers took, zeros among them."""
    return sum(job.shapes["pairs"])
