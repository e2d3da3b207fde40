"""Jobs of a residual adder: rows that follow one another."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.residual_add import cost
from hwgen.units.residual_add.golden import golden
from hwgen.units.residual_add.spec import ResidualAddSpec
from hwgen.units.stages import beats

Beats = dict[str, list[dict[str, Any]]]


def make_job(
    spec: ResidualAddSpec, rows: list[Any], exponents: tuple[int, int, int], name: str
) -> Job:
    """Job of rows of both addends, one after another.

    Parameters
    ----------
    spec : the module
    rows : the two addends of each row, integers of shape (2, elements), elements at least 1
    exponents : of the first addend, of the second, and of the sum; −128 to 127
    name : what the job is
    """
    a, b = np.concatenate([np.asarray(row, dtype=np.int64) for row in rows], axis=1)
    job = Job(
        "residual_add",
        name,
        {"a": a, "b": b},
        dict(zip("abo", exponents, strict=True)),
        {"rows": [len(row[0]) for row in rows]},
    )
    return job.with_cycles(predicted_cycles(spec, job))


def random_job(spec: ResidualAddSpec, rng: np.random.Generator) -> Job:
    """Draw rows of edges and of values of all sizes, under exponents near and far."""
    rows = []
    for _ in range(int(rng.integers(1, 5))):
        n = (1, spec.parallel, int(rng.integers(1, 6 * spec.parallel + 1)))[rng.integers(3)]
        rows.append(np.stack([_operand(spec.bits, n, rng) for _ in range(2)]))
    # Near one another most of the time, or all but a few sums saturate or vanish.
    spread = int(rng.choice([2, spec.bits, 3 * spec.bits, 255]))
    drawn = np.clip(rng.integers(-128, 128) + rng.integers(-spread, spread + 1, 3), -128, 127)
    a, b, o = drawn.tolist()
    return make_job(spec, rows, (a, b, o), f"exponents {a}, {b} to {o}")


def example_job(spec: ResidualAddSpec) -> Job:
    """A row of two beats and a bit and one of a beat, as the data sheet shows them."""
    rng = np.random.default_rng(0)
    top = 1 << (spec.bits - 2)
    rows = [rng.integers(-top, top, (2, n)) for n in (2 * spec.parallel + 1, spec.parallel)]
    return make_job(spec, rows, (-16, -15, -15), "rows of three beats and of one")


def _operand(bits: int, n: int, rng: np.random.Generator) -> np.ndarray:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    sizes = rng.integers(low, high + 1, n) >> rng.integers(0, bits, n)
    return np.where(rng.random(n) < 0.3, rng.choice([low, low + 1, -1, 0, 1, high], n), sizes)


def signals(spec: ResidualAddSpec, job: Job) -> dict[str, int]:
    """Values of the constant inputs."""
    return {f"{name}_exponent": exponent for name, exponent in job.exponents.items()}


def stimulus(spec: ResidualAddSpec, job: Job) -> Beats:
    """Beats of each input; positions beyond a row are not valid and hold its first elements."""
    sent: Beats = {"i_a": [], "i_b": []}
    for a, b, marks in _words(spec, job):
        sent["i_a"] += [{"value": word.tolist(), **mark}
                        for word, mark in zip(a, marks, strict=True)]
        sent["i_b"] += [{"value": word.tolist()} for word in b]
    return sent


def expected(spec: ResidualAddSpec, job: Job) -> Beats:
    """Beats of the output; positions beyond a row hold the sum of what came there."""
    exponents = job.exponents
    return {"o": [
        {"value": word.tolist(), **mark}
        for a, b, marks in _words(spec, job)
        for word, mark in zip(
            golden(a, exponents["a"], b, exponents["b"], exponents["o"], spec), marks, strict=True)
    ]}


def predicted_cycles(spec: ResidualAddSpec, job: Job) -> int:
    """Cycles of all rows from reset, without a gap."""
    first, *others = job.shapes["rows"]
    return int(cost.cycles(spec, first)
               + sum(cost.cycles_back_to_back(spec, n) for n in others))


def _words(spec: ResidualAddSpec, job: Job) -> Any:
    """Both addends of each row as beats, with each beat's valid_mask and last."""
    start = 0
    for n in job.shapes["rows"]:
        count = beats(n, spec.parallel)
        a, b = (np.resize(np.asarray(job.operands[name])[start:start + n],
                          (count, spec.parallel)) for name in "ab")
        marks = [{"valid_mask": (1 << min(spec.parallel, n - number * spec.parallel)) - 1,
                  "last": int(number == count - 1)} for number in range(count)]
        start += n
        yield a, b, marks
