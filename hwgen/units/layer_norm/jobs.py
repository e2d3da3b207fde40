"""Jobs of the layer-norm module: γ and β, then rows that follow one another."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.layer_norm.cost import cycles_of_rows, load_cycles
from hwgen.units.layer_norm.golden import golden
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.rows import (
    padded_words,
    random_rows,
    result_beats,
    row_beats,
    row_operands,
    rows_of,
)

Beats = dict[str, list[dict[str, Any]]]

EXPONENTS = ("i", "gamma", "beta", "o")


def make_job(
    spec: LayerNormSpec,
    rows: list[Any],
    valid_masks: list[Any],
    gamma: Any,
    beta: Any,
    exponents: dict[str, int],
    name: str,
) -> Job:
    """Job of rows, one after another, once γ and β are loaded.

    Parameters
    ----------
    spec : the module
    rows : integers of each row
    valid_masks : booleans of each row
    gamma, beta : integers, as many as the longest row has
    exponents : those of "i", "gamma", "beta" and "o"
    name : what the job is
    """
    job = Job(
        "layer_norm",
        name,
        {
            **row_operands(rows, valid_masks),
            "gamma": [int(v) for v in gamma],
            "beta": [int(v) for v in beta],
        },
        {key: int(exponents[key]) for key in EXPONENTS},
        {"rows": [len(row) for row in rows]},
    )
    return job.with_cycles(predicted_cycles(spec, job))


def example_job(spec: LayerNormSpec) -> Job:
    """A row of a beat and a bit and one of a beat, as the data sheet shows them."""
    rng = np.random.default_rng(0)
    top = 1 << (spec.bits - 2)
    lengths = (min(spec.parallel + 1, spec.max_row), min(spec.parallel, spec.max_row))
    rows = [rng.integers(-top, top, n) for n in lengths]
    gamma, beta = rng.integers(top // 2, top, (2, lengths[0]))
    exponent = 2 - spec.bits
    exponents = {"i": exponent, "gamma": exponent, "beta": exponent, "o": exponent + 1}
    masks = [[1] * n for n in lengths]
    return make_job(spec, rows, masks, gamma, beta, exponents, "rows of two beats and of one")


def random_job(spec: LayerNormSpec, rng: np.random.Generator) -> Job:
    """Rows of various lengths and distributions, with padding, under any exponents."""
    rows, valid_masks = random_rows(
        spec.max_row, rng, lambda n: _row(spec, n, rng), {0.0: 0.05, 0.5: 0.15, 0.9: 0.1, 1.0: 0.7}
    )
    low, high = -(2 ** (spec.bits - 1)), 2 ** (spec.bits - 1)
    longest = max(len(row) for row in rows)
    gamma, beta = (rng.integers(low, high, longest) for _ in range(2))
    if rng.random() < 0.3:
        gamma[:] = rng.choice([1, low, high - 1])
    # Mostly exponents under which neither ε nor the scaled row nor β is nothing or saturates.
    exponents = {"i": int(rng.integers(-spec.bits - 4, 2)), "gamma": -int(rng.integers(spec.bits))}
    exponents["o"] = exponents["gamma"] + int(rng.integers(-3, 8))
    exponents["beta"] = exponents["o"] + int(rng.integers(-12, 6))
    for key in EXPONENTS:
        if rng.random() < 0.1:
            exponents[key] = int(rng.integers(-128, 128))
    return make_job(spec, rows, valid_masks, gamma, beta, exponents, "random rows")


def _row(spec: LayerNormSpec, n: int, rng: np.random.Generator) -> np.ndarray:
    low, high = -(2 ** (spec.bits - 1)), 2 ** (spec.bits - 1) - 1
    kind = rng.choice(["uniform", "normal", "constant", "one-hot", "two", "nearly constant"])
    if kind == "uniform":
        return rng.integers(low, high + 1, n)
    if kind == "normal":
        spread = high * rng.random() ** 3
        return np.clip(np.rint(rng.normal(high / 3, spread, n)), low, high).astype(np.int64)
    if kind == "two":
        return rng.choice([low, high], n)
    x = np.full(n, rng.integers(low, high))
    if kind != "constant":
        x[rng.integers(n)] = high if kind == "one-hot" else x[0] + 1
    return x


def signals(spec: LayerNormSpec, job: Job) -> dict[str, int]:
    """Values of the constant inputs."""
    return {f"{key}_exponent": job.exponents[key] for key in EXPONENTS}


def stimulus(spec: LayerNormSpec, job: Job) -> Beats:
    """Beats of both inputs; positions beyond a row are not valid and hold its first element."""
    sent = [beat for row in rows_of(job) for beat in row_beats(*row, spec.parallel)]
    gamma, beta = (padded_words(job.operands[name], spec.parallel) for name in ("gamma", "beta"))
    weights = [
        {"gamma": one, "beta": other, "last": int(number == len(gamma) - 1)}
        for number, (one, other) in enumerate(zip(gamma, beta, strict=True))
    ]
    return {"i": sent, "weights": weights}


def expected(spec: LayerNormSpec, job: Job) -> Beats:
    """Beats of the output: golden, and zeros beyond a row."""
    received = []
    gamma, beta = (np.asarray(job.operands[name]) for name in ("gamma", "beta"))
    exponents = job.exponents
    for row, valid_mask in rows_of(job):
        n = len(row)
        result = golden(
            row,
            exponents["i"],
            gamma[:n],
            exponents["gamma"],
            beta[:n],
            exponents["beta"],
            exponents["o"],
            spec,
            valid_mask,
        )
        received += result_beats(result, spec.parallel)
    return {"o": received}


def predicted_cycles(spec: LayerNormSpec, job: Job) -> int:
    """Cycles from reset: γ and β first, then all rows without a gap."""
    loading = load_cycles(spec, len(job.operands["gamma"]))
    return int(loading + cycles_of_rows(spec, job.shapes["rows"]))
