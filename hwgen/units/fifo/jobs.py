"""Jobs of a FIFO: stimulus, expected results and cycles."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.fifo import cost
from hwgen.units.fifo.golden import golden
from hwgen.units.fifo.spec import FifoSpec

Beats = dict[str, list[dict[str, Any]]]

WORD_BITS = 32
"""Entries are kept as words of so many bits, the lowest first: they may be wider than int64."""


def random_job(spec: FifoSpec, rng: np.random.Generator) -> Job:
    """Draw fewer entries than the FIFO holds, as many, or enough to go round it a few times."""
    depth = min(spec.depth, 256)
    beats = int(rng.choice([1, depth - 1, depth, depth + 1, int(rng.integers(2, 4 * depth + 1))]))
    words = -(-spec.bits // WORD_BITS)
    value = rng.integers(0, 1 << WORD_BITS, (beats, words))
    value[rng.random(beats) < 0.1] = 0
    value[rng.random(beats) < 0.1] = (1 << WORD_BITS) - 1
    value[:, -1] &= (1 << (spec.bits - (words - 1) * WORD_BITS)) - 1
    return with_prediction(spec, Job("fifo", f"{beats} entries", {"value": value}))


def example_job(spec: FifoSpec) -> Job:
    """Six entries, as the data sheet shows them."""
    words = -(-spec.bits // WORD_BITS)
    value = np.zeros((6, words), np.int64)
    value[:, 0] = np.arange(1, 7) & ((1 << min(spec.bits, WORD_BITS)) - 1)
    return with_prediction(spec, Job("fifo", "six entries", {"value": value}))


def with_prediction(spec: FifoSpec, job: Job) -> Job:
    """Fill in what the cost function says."""
    return job.with_cycles(predicted_cycles(spec, job))


def signals(spec: FifoSpec, job: Job) -> dict[str, int]:
    """Values of the ports that stay constant during a job: there are none."""
    return {}


def stimulus(spec: FifoSpec, job: Job) -> Beats:
    """Beats of the input."""
    return {"i": [{"i": entry} for entry in _entries(job.operands["value"])]}


def expected(spec: FifoSpec, job: Job) -> Beats:
    """Beats of the output."""
    return {"o": [{"o": entry} for entry in _entries(golden(job.operands["value"]))]}


def predicted_cycles(spec: FifoSpec, job: Job) -> int:
    """Cycles of the job from reset."""
    return int(cost.cycles(spec, len(job.operands["value"])))


def _entries(value: np.ndarray) -> list[int]:
    """Entries of words as integers."""
    return [sum(word << (WORD_BITS * place) for place, word in enumerate(words))
            for words in value.tolist()]
