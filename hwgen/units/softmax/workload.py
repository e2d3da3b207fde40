"""What a softmax module does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.operands import typical
from hwgen.units.softmax.cost import LONGEST_RECORDED
from hwgen.units.softmax.jobs import make_job
from hwgen.units.softmax.spec import SoftmaxSpec

OPERATION = "element"
BEATS = 3 * LONGEST_RECORDED


def job(spec: SoftmaxSpec, rng: np.random.Generator, density: float) -> Job:
    """Rows of scores of which a share of 1 − density was pruned to zero."""
    length = min(spec.max_row, LONGEST_RECORDED * spec.parallel)
    rows = typical(rng, (max(BEATS * spec.parallel // length, 1), length), spec.bits, density)
    valid_masks = np.ones_like(rows)
    # The scores' standard deviation is then 2: a few elements have most of the weight.
    return make_job(spec, list(rows), list(valid_masks), 4 - spec.bits, f"density {density:g}")


def operations(spec: SoftmaxSpec, job: Job) -> int:
    """Elements of all rows."""
    return sum(job.shapes["rows"])
