"""Jobs of a MAC lane: random ones, and what goes in and must come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hwgen.fixed_point import FixedPoint
from hwgen.program import Job
from hwgen.units.activation.probes import probes
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.activation.table import LARGEST_GAIN, LIMIT_LOG2
from hwgen.units.mac_lane import cost, golden
from hwgen.units.mac_lane.spec import MacLaneSpec

Beat = dict[str, Any]


def make_job(spec: MacLaneSpec, name: str, left: Sequence[Any], right: Sequence[Any],
             initial: Sequence[Any], shift: int, *, activate: int = 0, i_exponent: int = 0,
             o_exponent: int = 0, seed: int | None = None, tiles: Sequence[int] | None = None
             ) -> Job:
    """Make a job of dot products that follow one another.

    Parameters
    ----------
    left, right : one sequence of integers a dot product, of any length
    initial : one integer a dot product
    shift, activate, i_exponent, o_exponent, seed : as for `golden.finish`
    tiles : dot products of each tile; by default all are one tile

    Raises
    ------
    ValueError
        If the numbers of dot products or of pairs differ, or there is a seed and the lane has no
        noise.
    """
    if not len(left) == len(right) == len(initial):
        raise ValueError(f"left, right and initial must have one entry a dot product, not "
                         f"{len(left)}, {len(right)} and {len(initial)}")
    lengths = [len(row) for row in left]
    if lengths != [len(row) for row in right]:
        raise ValueError("left and right must have the same number of pairs in each dot product")
    if seed is not None and not spec.noise_bits:
        raise ValueError(f"seed must be None for a lane with noise_bits = 0, not {seed}")
    tiles = [len(left)] if tiles is None else list(tiles)
    if sum(tiles) != len(left):
        raise ValueError(f"tiles must be {len(left)} dot products together, not {sum(tiles)}")
    operands = {"left": [np.asarray(row, dtype=np.int64).tolist() for row in left],
                "right": [np.asarray(row, dtype=np.int64).tolist() for row in right],
                "initial": np.asarray(initial, dtype=np.int64),
                "shift": int(shift), "activate": int(activate)}
    if seed is not None:
        operands["seed"] = int(seed)
    job = Job("mac_lane", name, operands, {"i": int(i_exponent), "o": int(o_exponent)},
              {"pairs": lengths, "tiles": tiles})
    return job.with_cycles(predicted_cycles(spec, job))


def random_job(spec: MacLaneSpec, rng: np.random.Generator) -> Job:
    """Draw dot products of one to many beats, near and beyond every limit of the lane.

    Some dot products are of random operands (realistic, sparse, or the largest there are); the
    others are completed by their initial value to a sum that was chosen: ties, the neighbours of
    the saturation's limits, and the activation's probes.
    """
    activate = int(rng.choice(3, p=(0.35, 0.45, 0.2)))
    i_exponent, o_exponent = _random_exponents(spec, rng)
    targets = _edge_values(spec, rng)
    if activate:
        targets = np.concatenate([targets, probes(ActivationSpec(spec.bits, spec.nonlinearity),
                                                  i_exponent, o_exponent, rng)])
    # Up to here every chosen value fits the initial value's range; beyond, the sum is left to luck.
    fitting = spec.accumulator_bits - spec.bits - 2
    shift = int(rng.integers(0, spec.accumulator_bits) if rng.random() < 0.2
                else rng.integers(0, fitting + 1))
    left, right, initial = [], [], []
    for _ in range(int(rng.integers(4, 10))):
        a, b = _random_pairs(spec, rng, 12)
        left.append(a)
        right.append(b)
        initial.append(_random_initial(spec, rng))
    sums = [(int(target) << shift) + _random_rest(shift, rng) for target in targets]
    # Ties of both signs between an even and an odd number, whichever is above.
    sums += [tie << shift >> 1 for tie in (-7, -5, -3, -1, 1, 3, 5, 7) if shift]
    for total in sums if shift <= fitting else ():
        a, b = _random_pairs(spec, rng, 1 if rng.random() < 0.9 else 3)
        left.append(a)
        right.append(b)
        initial.append(_clipped(total - int(golden.accumulate(a, b, 0)), spec))
    order = rng.permutation(len(left))
    left, right, initial = ([rows[k] for k in order] for rows in (left, right, initial))
    seed, tiles = None, None
    if spec.noise_bits:
        ends = np.sort(rng.choice(np.arange(1, len(left)), 2, replace=False))
        tiles = np.diff([0, *ends, len(left)]).tolist()
        seed = (None, 0, int(rng.integers(1 << spec.noise_bits)))[rng.integers(3)]
    return make_job(spec, "random dot products", left, right, initial, shift, activate=activate,
                    i_exponent=i_exponent, o_exponent=o_exponent, seed=seed, tiles=tiles)


def signals(spec: MacLaneSpec, job: Job) -> dict[str, int]:
    """Values of the constant inputs."""
    seed = job.operands.get("seed")
    # A seed must not matter to what is rounded to nearest.
    noise = {"stochastic": int(seed is not None), "seed": 5 if seed is None else int(seed)}
    return {"shift": int(job.operands["shift"]), "activate": int(job.operands["activate"]),
            "i_exponent": job.exponents["i"], "o_exponent": job.exponents["o"],
            **(noise if spec.noise_bits else {})}


def stimulus(spec: MacLaneSpec, job: Job) -> dict[str, list[Beat]]:
    """Beats of the operands; `initial` is drawn from the dot product's first beat alone."""
    beats: list[Beat] = []
    ends = set(np.cumsum(_tiles(job)).tolist())
    for number, (left, right, initial) in enumerate(zip(
            job.operands["left"], job.operands["right"], job.operands["initial"], strict=True)):
        count = int(cost.beats_of(spec, len(left)))
        a, b = (np.pad(np.asarray(row, dtype=np.int64), (0, count * spec.macs - len(row)))
                .reshape(count, spec.macs).tolist() for row in (left, right))
        # Later beats carry another initial value: a lane that reads it there is found out. So is
        # one that takes a tile's end from another beat than a dot product's last.
        tile_last = int(number + 1 in ends)
        beats += [{"left": a[k], "right": b[k], "last": int(k == count - 1),
                   "initial": int(initial) if k == 0 else ~int(initial),
                   **({"tile_last": tile_last if k == count - 1 else 1 - tile_last}
                      if spec.noise_bits else {})} for k in range(count)]
    return {"i": beats}


def expected(spec: MacLaneSpec, job: Job) -> dict[str, list[Beat]]:
    """Results by the golden model."""
    left, right = _padded(job.operands["left"]), _padded(job.operands["right"])
    initial = np.asarray(job.operands["initial"], dtype=np.int64)
    results: list[Beat] = []
    for end, count in zip(np.cumsum(_tiles(job)), _tiles(job), strict=True):
        tile = slice(end - count, end)
        value, accumulator = golden.lane(
            left[tile], right[tile], initial[tile], int(job.operands["shift"]), spec,
            activate=int(job.operands["activate"]), i_exponent=job.exponents["i"],
            o_exponent=job.exponents["o"], seed=job.operands.get("seed"))
        results += [{"value": int(v), "accumulator": int(a)}
                    for v, a in zip(value, accumulator, strict=True)]
    return {"o": results}


def predicted_cycles(spec: MacLaneSpec, job: Job) -> int:
    """Cycles by the cost function."""
    beats = sum(int(cost.beats_of(spec, len(row))) for row in job.operands["left"])
    return int(cost.cycles(spec, beats))


def _tiles(job: Job) -> list[int]:
    """Dot products of each tile; a job of before there were tiles is one."""
    return job.shapes.get("tiles", [len(job.operands["left"])])


def _padded(rows: Sequence[Any]) -> np.ndarray:
    padded = np.zeros((len(rows), max(len(row) for row in rows)), dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, :len(row)] = row
    return padded


def _random_exponents(spec: MacLaneSpec, rng: np.random.Generator) -> tuple[int, int]:
    """Mostly exponents that show the whole of the non-linearity, some that the clamps are for."""
    bits = spec.bits
    # With this exponent the numbers reach just to where gelu's table ends.
    whole = LIMIT_LOG2 - (bits - 1)
    kind = rng.choice(["all of gelu", "all of gelu", "near", "anywhere"])
    if spec.nonlinearity == "relu" or kind == "anywhere":
        i_exponent = int(rng.integers(-2 * bits - 12, LIMIT_LOG2 + 12))
        lowest = -LARGEST_GAIN if spec.nonlinearity == "gelu" else -bits - 2
        return i_exponent, i_exponent + int(rng.integers(lowest, bits + 12))
    if kind == "near":
        i_exponent = whole + int(rng.integers(-3, 3))
        return i_exponent, i_exponent + int(rng.integers(-LARGEST_GAIN, 3))
    return whole, whole - LARGEST_GAIN


def _edge_values(spec: MacLaneSpec, rng: np.random.Generator) -> np.ndarray:
    """Rounded sums at and around saturation and zero, and some anywhere."""
    number = FixedPoint(spec.bits, 0)
    edges = np.asarray([number.minimum, 0, number.maximum])[:, None] + np.arange(-2, 3)
    anywhere = rng.integers(2 * number.minimum, 2 * number.maximum, size=8)
    return np.concatenate([edges.ravel(), anywhere])


def _random_rest(shift: int, rng: np.random.Generator) -> int:
    """What is rounded away: nothing, a tie, its neighbours, or anything."""
    half = (1 << shift) >> 1
    choice = int(rng.integers(0, 5))
    if choice == 4 and half:
        return int(rng.integers(-half, half))
    return (0, half, -half, max(half - 1, 0), 0)[choice]


def _random_pairs(spec: MacLaneSpec, rng: np.random.Generator,
                  beats: int) -> tuple[np.ndarray, np.ndarray]:
    """Operands of a dot product of up to `beats` beats, and no longer than the lane is made for."""
    number = FixedPoint(spec.bits, 0)
    longest = min(1 << (spec.accumulator_bits - 2 * spec.bits), beats * spec.macs)
    length = int(rng.integers(0, longest + 1))
    kind = rng.choice(["any", "any", "small", "sparse", "largest", "opposite"])
    if kind in ("largest", "opposite"):
        left = np.full(length, number.minimum)
        return left, (left if kind == "largest" else np.full(length, number.maximum))
    spread = 1 << (spec.bits // 2) if kind == "small" else 1 << (spec.bits - 1)
    left, right = rng.integers(-spread, spread, size=(2, length))
    if kind == "sparse":
        left, right = (row * (rng.random(length) < 0.5) for row in (left, right))
    return left, right


def _random_initial(spec: MacLaneSpec, rng: np.random.Generator) -> int:
    """Nothing, a bias of any size, or the largest there is."""
    limit = 1 << (spec.accumulator_bits - 2)
    width = int(rng.integers(1, spec.accumulator_bits - 1))
    return (0, int(rng.integers(-(1 << width), 1 << width)), -limit, limit - 1)[rng.integers(0, 4)]


def _clipped(initial: int, spec: MacLaneSpec) -> int:
    """Keep an initial value where no sum can overflow the accumulator."""
    limit = 1 << (spec.accumulator_bits - 2)
    return max(-limit, min(limit - 1, initial))


def example_job(spec: MacLaneSpec) -> Job:
    """Two dot products of three beats and of two, as the data sheet shows them."""
    rng = np.random.default_rng(0)
    longest = 1 << (spec.accumulator_bits - 2 * spec.bits)
    top = 1 << (spec.bits - 1)
    left, right = ([rng.integers(-top, top, min(beats * spec.macs, longest)) for beats in (3, 2)]
                   for _ in range(2))
    return make_job(spec, "dot products of three beats and of two", left, right, [0, 0],
                    spec.bits, activate=True, i_exponent=3 - spec.bits, o_exponent=3 - spec.bits)
