"""Jobs of a dynatran module: stimulus, expected results and cycles."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.dynatran import cost
from hwgen.units.dynatran.golden import prune
from hwgen.units.dynatran.spec import DynatranSpec

Beats = dict[str, list[dict[str, Any]]]


def random_job(spec: DynatranSpec, rng: np.random.Generator) -> Job:
    """Draw a tile of values around a threshold, with the extremes and ties among them."""
    top = 1 << (spec.bits - 1)
    shape = (int(rng.integers(1, 33)), spec.parallel)
    inside = int(rng.integers(2, top))
    threshold = int(rng.choice([0, 1, inside, inside, top - 1, top, 2 * top - 1]))
    edges = np.array([-top, 1 - top, -1, 0, 1, top - 1, *np.clip(
        [-threshold - 1, -threshold, 1 - threshold, threshold - 1, threshold, threshold + 1],
        -top, top - 1)])
    value = np.where(rng.random(shape) < 0.5, rng.choice(edges, shape),
                     rng.integers(-top, top, shape))
    valid_mask = np.ones(shape, np.int64)
    if rng.random() < 0.5:
        valid_mask = (rng.random(shape) < 0.8).astype(np.int64)
    last = (rng.random(shape[0]) < 0.2).astype(np.int64)
    last[-1] = 1
    operands = {"value": value, "valid_mask": valid_mask, "last": last, "threshold": threshold}
    return with_prediction(spec, Job("dynatran", f"threshold {threshold}", operands))


def with_prediction(spec: DynatranSpec, job: Job) -> Job:
    """Fill in what the cost function says."""
    return job.with_cycles(predicted_cycles(spec, job))


def signals(spec: DynatranSpec, job: Job) -> dict[str, int]:
    """Values of the ports that stay constant during a job."""
    return {"threshold": int(job.operands["threshold"])}


def stimulus(spec: DynatranSpec, job: Job) -> Beats:
    """Beats of each input port."""
    operands = job.operands
    return {"i": [{"value": value.tolist(), "valid_mask": pack(valid), "last": int(last)}
                  for value, valid, last in zip(operands["value"], operands["valid_mask"],
                                                operands["last"], strict=True)]}


def expected(spec: DynatranSpec, job: Job) -> Beats:
    """Beats of each output port."""
    operands = job.operands
    values, masks = prune(operands["value"], int(operands["threshold"]), operands["valid_mask"])
    return {"o": [{"value": value.tolist(), "zero_mask": pack(mask), "last": int(last)}
                  for value, mask, last in zip(values, masks, operands["last"], strict=True)]}


def predicted_cycles(spec: DynatranSpec, job: Job) -> int:
    """Cycles of the job from reset."""
    return int(cost.cycles(spec, len(job.operands["value"])))


def pack(mask: np.ndarray) -> int:
    """Make an integer of bits, the first the least significant."""
    return sum(1 << position for position in np.flatnonzero(mask).tolist())


def example_job(spec: DynatranSpec) -> Job:
    """Five beats of two tiles, as the data sheet shows them: about half of the values stay."""
    rng = np.random.default_rng(0)
    top = 1 << (spec.bits - 1)
    shape = (5, spec.parallel)
    operands = {"value": rng.integers(-top, top, shape), "valid_mask": np.ones(shape, np.int64),
                "last": np.array([0, 0, 1, 0, 1]), "threshold": top // 2}
    return with_prediction(spec, Job("dynatran", "tiles of three beats and of two", operands))
