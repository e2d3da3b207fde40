"""What a post-sparsity module does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.operands import typical
from hwgen.units.post_sparsity.jobs import predicted_cycles
from hwgen.units.post_sparsity.spec import PostSparsitySpec

OPERATION = "element"
TILE, TILES = 256, 2

SPECS = tuple(
    PostSparsitySpec(bits, word, mask_word)
    for bits, word, mask_word in (
        (20, 16, 16), (8, 16, 16), (16, 16, 16), (12, 16, 16), (24, 16, 16), (20, 8, 16),
        (20, 4, 16), (8, 8, 16), (16, 8, 16), (24, 4, 16), (12, 4, 16), (8, 32, 16), (16, 4, 16),
        (20, 16, 8), (20, 16, 32), (8, 16, 8), (12, 16, 32), (16, 16, 8), (12, 8, 16), (20, 1, 16),
        (8, 1, 16), (16, 1, 16), (20, 2, 16), (12, 2, 16), (24, 2, 16),
        (20, 4, 4), (8, 4, 4), (20, 8, 8), (20, 32, 32),
    )
)
"""What is characterised, that of the design `edge` first; words and masks apart, so that a fit can
tell them apart."""


def job(spec: PostSparsitySpec, rng: np.random.Generator, density: float) -> Job:
    """Tiles of a density, back to back."""
    operands = {"value": typical(rng, (TILE * TILES,), spec.bits, density)}
    shapes = {"tiles": [TILE] * TILES}
    made = Job("post_sparsity", f"density {density:g}", operands, shapes=shapes)
    return made.with_cycles(predicted_cycles(spec, made))


def operations(spec: PostSparsitySpec, job: Job) -> int:
    """Elements of the job, zeros among them."""
    return int(job.operands["value"].size)
