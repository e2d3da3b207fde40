"""Jobs of a pre-sparsity module: stimulus, expected results and cycles."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.post_sparsity.golden import compress
from hwgen.units.pre_sparsity import cost
from hwgen.units.pre_sparsity.golden import beats, pairs_per_window
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

Beats = dict[str, list[dict[str, Any]]]

UNUSED = -1
"""What the stimulus puts behind the last used value of a window: it must not matter."""


def random_job(spec: PreSparsitySpec, rng: np.random.Generator) -> Job:
    """Draw the dot products of a small tile, of any length and density, empty ones among them.

    One job in three is a burst: dot products so long, dense first and empty then, that the FIFO
    blocks and later runs dry, which is when its depth shows.
    """
    if rng.random() < 1 / 3:
        dots, windows = 2, min(64, 4 * spec.fifo_depth // spec.macs)
        length = windows * spec.window
        density = np.where(np.arange(windows) < windows // 3, 1.0, 0.02) * np.ones((dots, 1))
    else:
        dots = int(rng.integers(1, 9))
        lengths = [1, spec.window, 2 * spec.window, int(rng.integers(1, 4 * spec.window + 1))]
        length = int(rng.choice(lengths))
        density = (rng.choice([0.0, 0.3, 0.7, 0.95, 1.0], (dots, 1))
                   * rng.choice([0.0, 0.5, 1.0, 1.0], (dots, -(-length // spec.window))))
    density = np.repeat(density, spec.window, axis=1)[:, :length]
    top = 1 << (spec.bits - 1)
    operands = {}
    for side in ("left", "right"):
        value = rng.integers(-top, top, (dots, length))
        value[rng.random(value.shape) < 0.1] = rng.choice([-top, top - 1])
        operands[side] = np.where(rng.random(value.shape) < density, value, 0)
    job = Job("pre_sparsity", f"{dots} dot products of {length}", operands,
              shapes={"dot_products": [dots, length]})
    return job.with_cycles(predicted_cycles(spec, job))


def example_job(spec: PreSparsitySpec) -> Job:
    """Two dot products of two windows, half of each operand zero, as the data sheet shows them."""
    rng = np.random.default_rng(0)
    shape = (2, 2 * spec.window)
    operands = {side: rng.integers(1, 1 << (spec.bits - 1), shape) * (rng.random(shape) < 0.5)
                for side in ("left", "right")}
    job = Job("pre_sparsity", "two dot products of two windows, both operands half zero", operands,
              shapes={"dot_products": list(shape)})
    return job.with_cycles(predicted_cycles(spec, job))


def signals(spec: PreSparsitySpec, job: Job) -> dict[str, int]:
    """Values of the ports that stay constant during a job: there are none."""
    return {}


def stimulus(spec: PreSparsitySpec, job: Job) -> Beats:
    """Beats of each input port."""
    ports: Beats = {}
    for side in ("left", "right"):
        ports[f"i_{side}_mask"], ports[f"i_{side}"] = _windows(spec, job.operands[side])
    return ports


def expected(spec: PreSparsitySpec, job: Job) -> Beats:
    """Beats of each output port."""
    found = []
    for dense_left, dense_right in zip(job.operands["left"], job.operands["right"], strict=True):
        left, right = beats(*compress(dense_left), *compress(dense_right), spec.macs, spec.window)
        found += [{"left": a.tolist(), "right": b.tolist(), "last": int(number == len(left) - 1)}
                  for number, (a, b) in enumerate(zip(left, right, strict=True))]
    return {"o": found}


def predicted_cycles(spec: PreSparsitySpec, job: Job) -> int:
    """Cycles of the job from reset."""
    counts = pairs_per_window(job.operands["left"], job.operands["right"], spec.window)
    return int(cost.cycles(spec, counts))


def _windows(spec: PreSparsitySpec, operand: np.ndarray
             ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cut dot products, shape (dots, length), into zero_masks and zero-free values of windows."""
    masks, values = [], []
    for row in operand:
        for start in range(0, len(row), spec.window):
            value, zero_mask = compress(row[start:start + spec.window])
            packed = np.full(spec.window, UNUSED)
            packed[:len(value)] = value
            bits = sum(1 << position for position in np.flatnonzero(zero_mask).tolist())
            masks.append({"zero_mask": bits, "last": int(start + spec.window >= len(row))})
            values.append({"value": packed.tolist()})
    return masks, values
