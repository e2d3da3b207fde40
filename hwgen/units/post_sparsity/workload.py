"""What a post-sparsity module does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.operands import typical
from hwgen.units.post_sparsity.jobs import predicted_cycles
from hwgen.units.post_sparsity.spec import PostSparsitySpec

OPERATION = "element"
TILE, TILES = 256, 2


def job(spec: PostSparsitySpec, rng: np.random.Generator, density: float) -> Job:
    """Tiles of a density, back to back."""
    operands = {"value": typical(rng, (TILE * TILES,), spec.bits, density)}
    shapes = {"tiles": [TILE] * TILES}
    made = Job("post_sparsity", f"density {density:g}", operands, shapes=shapes)
    return made.with_cycles(predicted_cycles(spec, made))


def operations(spec: PostSparsitySpec, job: Job) -> int:
    """Elements of the job, zeros among them."""
    return int(job.operands["value"].size)
