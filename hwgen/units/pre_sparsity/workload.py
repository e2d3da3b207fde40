"""What a pre-sparsity module does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.operands import typical
from hwgen.units.pre_sparsity.jobs import predicted_cycles
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

OPERATION = "position of a dot product"
DOT_PRODUCTS, WINDOWS = 16, 4


def job(spec: PreSparsitySpec, rng: np.random.Generator, density: float) -> Job:
    """Dot products of operands of a density."""
    shape = (DOT_PRODUCTS, WINDOWS * spec.window)
    operands = {side: typical(rng, shape, spec.bits, density) for side in ("left", "right")}
    shapes = {"dot_products": list(shape)}
    made = Job("pre_sparsity", f"density {density:g}", operands, shapes=shapes)
    return made.with_cycles(predicted_cycles(spec, made))


def operations(spec: PreSparsitySpec, job: Job) -> int:
    """Pairs of positions that were looked at."""
    return int(job.operands["left"].size)
