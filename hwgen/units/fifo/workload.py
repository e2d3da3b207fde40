"""What a FIFO does while its power is recorded."""

from __future__ import annotations

import numpy as np

from hwgen.program import Job
from hwgen.units.fifo.jobs import WORD_BITS, with_prediction
from hwgen.units.fifo.spec import FifoSpec
from hwgen.units.operands import typical

OPERATION = "entry"
ENTRIES = 256


def job(spec: FifoSpec, rng: np.random.Generator, density: float) -> Job:
    """Entries of a density, one a cycle: pairs of operands, where the width is even."""
    narrow = spec.bits // 2 if spec.bits % 2 == 0 and 8 <= spec.bits <= 48 else min(spec.bits, 24)
    count = -(-spec.bits // narrow)
    numbers = typical(rng, (ENTRIES, count), narrow, density) & ((1 << narrow) - 1)
    words = np.zeros((ENTRIES, -(-spec.bits // WORD_BITS)), np.int64)
    for entry, values in enumerate(numbers.tolist()):
        whole = sum(value << (narrow * place) for place, value in enumerate(values))
        whole &= (1 << spec.bits) - 1
        for place in range(words.shape[1]):
            words[entry, place] = whole >> (WORD_BITS * place) & ((1 << WORD_BITS) - 1)
    return with_prediction(spec, Job("fifo", f"density {density:g}", {"value": words}))


def operations(spec: FifoSpec, job: Job) -> int:
    """Entries of the job."""
    return len(job.operands["value"])
