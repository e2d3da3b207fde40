"""Jobs of a stochastic rounding module: tiles that follow one another."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwgen.program import Job
from hwgen.units.stochastic_rounding import cost
from hwgen.units.stochastic_rounding.golden import golden
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

Beats = dict[str, list[dict[str, Any]]]


def make_job(
    spec: StochasticRoundingSpec, tiles: list[Any], seeds: list[int], shift: int, name: str
) -> Job:
    """Job of tiles, one after another.

    Parameters
    ----------
    spec : the module
    tiles : accumulators of each tile, at least one each
    seeds : each tile's seed
    shift : right shift of all accumulators
    name : what the job is
    """
    job = Job(
        "stochastic_rounding",
        name,
        {
            "value": np.concatenate([np.asarray(tile, dtype=np.int64) for tile in tiles]),
            "seeds": np.asarray(seeds, dtype=np.int64),
            "shift": shift,
        },
        shapes={"tiles": [len(tile) for tile in tiles]},
    )
    return job.with_cycles(predicted_cycles(spec, job))


def random_job(spec: StochasticRoundingSpec, rng: np.random.Generator) -> Job:
    """Draw tiles about the ends of the result's range, ties and whole quotients, and any seeds."""
    shift = int(rng.integers(0, spec.accumulator_bits))
    tiles, seeds = [], []
    for _ in range(int(rng.integers(1, 5))):
        n = int(rng.choice([1, 2, int(rng.integers(3, 65))]))
        tiles.append(_values(spec, shift, n, rng))
        seeds.append(int(rng.choice([0, 1, (1 << spec.noise_bits) - 1,
                                     int(rng.integers(1 << spec.noise_bits))])))
    return make_job(spec, tiles, seeds, shift, f"shift {shift}")


def example_job(spec: StochasticRoundingSpec) -> Job:
    """Halves of both signs in two tiles of one seed, as the data sheet shows them."""
    shift = spec.bits
    halves = [(2 * place + 1) << (shift - 1) for place in range(-2, 2)]
    return make_job(spec, [halves, halves[:2]], [1, 1], shift, "two tiles of halves, of one seed")


def _values(spec: StochasticRoundingSpec, shift: int, n: int, rng: np.random.Generator) -> Any:
    """Quotients at the edges and of all sizes, with fractions that the noise can or cannot move."""
    low, high = -(1 << (spec.accumulator_bits - 1)), (1 << (spec.accumulator_bits - 1)) - 1
    top = 1 << (spec.bits - 1)
    quotient = rng.choice([-top - 1, -top, -1, 0, 1, top - 2, top - 1, top], n)
    some = rng.integers(low, high, n, endpoint=True) >> rng.integers(0, spec.accumulator_bits, n)
    one = 1 << shift
    rest = np.where(rng.random(n) < 0.5, rng.choice([0, 1, one >> 1, one - 1], n) % one,
                    rng.integers(0, one, n))
    # Clipped before the shift, which could leave int64.
    edge = (np.clip(quotient, low >> shift, high >> shift) << shift) + rest
    return np.clip(np.where(rng.random(n) < 0.6, edge, some), low, high)


def signals(spec: StochasticRoundingSpec, job: Job) -> dict[str, int]:
    """Values of the constant inputs."""
    return {"shift": int(job.operands["shift"])}


def stimulus(spec: StochasticRoundingSpec, job: Job) -> Beats:
    """Beats of the input; after a tile's first element `seed` holds what no longer counts."""
    sent = []
    for tile, seed in _tiles(job):
        other = ~seed & ((1 << spec.noise_bits) - 1)
        sent += [{"value": int(value), "seed": other if place else seed,
                  "last": int(place == len(tile) - 1)} for place, value in enumerate(tile)]
    return {"i": sent}


def expected(spec: StochasticRoundingSpec, job: Job) -> Beats:
    """Beats of the output."""
    received = []
    for tile, seed in _tiles(job):
        rounded = golden(tile, int(job.operands["shift"]), seed, spec).tolist()
        received += [{"value": value, "last": int(place == len(tile) - 1)}
                     for place, value in enumerate(rounded)]
    return {"o": received}


def predicted_cycles(spec: StochasticRoundingSpec, job: Job) -> int:
    """Cycles of all tiles from reset, without a gap."""
    return int(cost.cycles(spec, len(job.operands["value"])))


def _tiles(job: Job) -> list[tuple[np.ndarray, int]]:
    """Each tile's accumulators and seed."""
    cuts = np.cumsum(job.shapes["tiles"])[:-1]
    values = np.split(np.asarray(job.operands["value"]), cuts)
    return [(tile, int(seed)) for tile, seed in zip(values, job.operands["seeds"], strict=True)]
