"""Jobs of the softmax module: rows that follow one another."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.rows import random_rows, result_beats, row_beats, row_operands, rows_of
from hwgen.units.softmax.cost import cycles_of_rows
from hwgen.units.softmax.golden import golden
from hwgen.units.softmax.spec import SoftmaxSpec

Beats = dict[str, list[dict[str, Any]]]


def make_job(
    spec: SoftmaxSpec, rows: list[Any], valid_masks: list[Any], i_exponent: int, name: str
) -> Job:
    """Job of rows of scores, one after another.

    Parameters
    ----------
    spec : the module
    rows : integers of each row
    valid_masks : booleans of each row
    i_exponent : exponent of the scores
    name : what the job is
    """
    job = Job(
        "softmax",
        name,
        row_operands(rows, valid_masks),
        {"i": i_exponent},
        {"rows": [len(row) for row in rows]},
    )
    return job.with_cycles(predicted_cycles(spec, job))


def random_job(spec: SoftmaxSpec, rng: np.random.Generator) -> Job:
    """Rows of various lengths and distributions, with padding, under any exponent."""
    rows, valid_masks = random_rows(
        spec.max_row, rng, lambda n: _row(spec, n, rng), {0.0: 0.05, 0.5: 0.15, 0.9: 0.2, 1.0: 0.6}
    )
    # Mostly exponents that give some, but not all elements a share.
    usual = int(rng.integers(-spec.bits - 2, 3))
    i_exponent = usual if rng.random() < 0.8 else int(rng.integers(-128, 128))
    return make_job(spec, rows, valid_masks, i_exponent, "random rows")


def _row(spec: SoftmaxSpec, n: int, rng: np.random.Generator) -> np.ndarray:
    low, high = -(2 ** (spec.bits - 1)), 2 ** (spec.bits - 1) - 1
    kind = rng.choice(["uniform", "normal", "constant", "one-hot", "pruned"])
    if kind == "uniform":
        return rng.integers(low, high + 1, n)
    if kind == "constant":
        return np.full(n, rng.integers(low, high + 1))
    if kind == "one-hot":
        scores = np.full(n, low)
        scores[rng.integers(n)] = high
        return scores
    scores = np.clip(np.rint(rng.normal(0, high / 4, n)), low, high).astype(np.int64)
    if kind == "pruned":
        scores[rng.random(n) < 0.5] = 0
    return scores


def signals(spec: SoftmaxSpec, job: Job) -> dict[str, int]:
    """Values of the constant inputs."""
    return {"i_exponent": job.exponents["i"]}


def stimulus(spec: SoftmaxSpec, job: Job) -> Beats:
    """Beats of the input; positions beyond a row are not valid and hold its first score."""
    return {"i": [beat for row in rows_of(job) for beat in row_beats(*row, spec.parallel)]}


def expected(spec: SoftmaxSpec, job: Job) -> Beats:
    """Beats of the output: golden, and zeros beyond a row."""
    return {
        "o": [
            beat
            for row, valid_mask in rows_of(job)
            for beat in result_beats(
                golden(row, job.exponents["i"], spec, valid_mask), spec.parallel
            )
        ]
    }


def predicted_cycles(spec: SoftmaxSpec, job: Job) -> int:
    """Cycles of all rows from reset, without a gap."""
    return cycles_of_rows(spec, job.shapes["rows"])


def example_job(spec: SoftmaxSpec) -> Job:
    """Two rows, back to back, as the data sheet shows them: three beats (or what fits) and one."""
    rng = np.random.default_rng(0)
    top = 2 ** (spec.bits - 1)
    lengths = [min(3 * spec.parallel, spec.max_row), min(spec.parallel, spec.max_row)]
    rows = [rng.integers(-top, top, n) for n in lengths]
    masks = [np.ones(n, dtype=bool) for n in lengths]
    return make_job(spec, rows, masks, 3 - spec.bits, "two rows, back to back")
