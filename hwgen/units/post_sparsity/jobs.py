"""Jobs of a post-sparsity module: stimulus, expected results and cycles."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.post_sparsity import cost
from hwgen.units.post_sparsity.golden import compress, words
from hwgen.units.post_sparsity.spec import PostSparsitySpec

Beats = dict[str, list[dict[str, Any]]]


def random_job(spec: PostSparsitySpec, rng: np.random.Generator) -> Job:
    """Draw a few tiles, back to back, of lengths about those of the beats and of any density."""
    edge = max(spec.word, spec.mask_word)
    tiles = rng.choice([1, 2, spec.word, spec.mask_word, edge + 1, 4 * edge,
                        int(rng.integers(1, 4 * edge + 1))], size=int(rng.integers(1, 5)))
    top = 1 << (spec.bits - 1)
    parts = []
    for elements in tiles:
        value = rng.choice([-top, -1, 1, top - 1, int(rng.integers(1, top))], size=elements)
        parts.append(value * (rng.random(elements) < rng.choice([0.0, 0.2, 0.6, 0.9, 1.0])))
    operands = {"value": np.concatenate(parts)}
    job = Job("post_sparsity", f"{len(tiles)} tiles", operands, shapes={"tiles": tiles.tolist()})
    return job.with_cycles(predicted_cycles(spec, job))


def signals(spec: PostSparsitySpec, job: Job) -> dict[str, int]:
    """Values of the ports that stay constant during a job: there are none."""
    return {}


def stimulus(spec: PostSparsitySpec, job: Job) -> Beats:
    """Beats of each input port."""
    return {"i": [{"value": int(value), "last": int(position == len(tile) - 1)}
                  for tile in _tiles(job) for position, value in enumerate(tile)]}


def expected(spec: PostSparsitySpec, job: Job) -> Beats:
    """Beats of each output port."""
    value_beats, mask_beats = [], []
    for tile in _tiles(job):
        value, zero_mask = compress(tile)
        packed, counts = words(value, spec.word)
        value_beats += [{"value": beat.tolist(), "count": int(count),
                         "last": int(number == len(packed) - 1)}
                        for number, (beat, count) in enumerate(zip(packed, counts, strict=True))]
        masks, _ = words(zero_mask.astype(np.int64), spec.mask_word)
        mask_beats += [{"zero_mask": sum(bit << k for k, bit in enumerate(beat.tolist())),
                        "last": int(number == len(masks) - 1)}
                       for number, beat in enumerate(masks)]
    return {"o_value": value_beats, "o_mask": mask_beats}


def predicted_cycles(spec: PostSparsitySpec, job: Job) -> int:
    """Cycles of the job from reset."""
    return int(cost.cycles(spec, len(job.operands["value"])))


def _tiles(job: Job) -> list[np.ndarray]:
    """Cut the job's values into its tiles."""
    return np.split(np.asarray(job.operands["value"]), np.cumsum(job.shapes["tiles"])[:-1])


def example_job(spec: PostSparsitySpec) -> Job:
    """Two short tiles, back to back, as the data sheet shows them."""
    operands = {"value": np.array([3, 0, -1, 2, 0, 0, 1])}
    job = Job("post_sparsity", "tiles of four values and of three", operands,
              shapes={"tiles": [4, 3]})
    return job.with_cycles(predicted_cycles(spec, job))
