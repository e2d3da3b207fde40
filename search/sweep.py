"""The exact half: the best accelerators for a given model, from many thousands."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from hwgen.design import DesignBatch
from search.objectives import COST_RESOLUTION, COSTS, knee, non_dominated, spread
from search.problem import Costs
from search.space import Codec

CHUNK = 4096
"""Designs that are costed at once."""

CANDIDATES = 120
"""Designs that the kept ones are chosen from."""


def best_accelerators(
    codec: Codec,
    nonlinearity: str,
    costs: Callable[[DesignBatch], Costs],
    constraints: dict[str, float],
    *,
    count: int,
    keep: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, int, bool]:
    """Find the accelerators that no other beats for one model.

    Where the space holds at most `count` designs all are costed. Otherwise half of `count` is
    drawn uniformly, and half made by crossover and mutation of the best so far.

    Parameters
    ----------
    codec : the space
    nonlinearity : the model's activation
    costs : what costs designs for this model
    constraints : limits; those on costs are kept
    count : designs to cost, about
    keep : designs to return, at most
    rng : where randomness comes from

    Returns
    -------
    genes : accelerator genes, shape (kept, fields)
    costed : number of designs that were costed
    exact : whether they are all that the space holds
    """
    sizes = np.array([len(options) for options in codec.accelerator_options.values()])
    fixed = codec.nonlinearity - codec.accelerator_start
    value = codec.space.accelerator.nonlinearity.index(nonlinearity)
    sizes[fixed] = 1
    total = math.prod(sizes.tolist())
    best = _Best(codec, costs, constraints, fixed, value)
    if total <= count:
        for start in range(0, total, CHUNK):
            flat = np.arange(start, min(start + CHUNK, total))
            best.offer(np.stack(np.unravel_index(flat, sizes), axis=1))
        return best.chosen(keep), total, True
    costed = 0
    while costed < count // 2:
        best.offer(rng.integers(sizes, size=(min(CHUNK, count // 2 - costed), len(sizes))))
        costed += CHUNK
    costed = count // 2
    while costed < count and len(best.genes):
        size = min(CHUNK // 4, count - costed)
        best.offer(_children(best.genes, sizes, size, rng))
        costed += size
    return best.chosen(keep), costed, False


def _children(
    parents: np.ndarray, sizes: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    pairs = parents[rng.integers(len(parents), size=(2, count))]
    made = np.where(rng.random((count, len(sizes))) < 0.5, pairs[0], pairs[1])
    fresh = rng.random((count, len(sizes))) < 1.5 / len(sizes)
    return np.where(fresh, rng.integers(sizes, size=(count, len(sizes))), made)


class _Best:
    """Designs of which none is dominated by another, by boxes of 2 % in each cost."""

    def __init__(
        self,
        codec: Codec,
        costs: Callable[[DesignBatch], Costs],
        constraints: dict[str, float],
        fixed: int,
        value: int,
    ) -> None:
        self._codec, self._costs, self._constraints = codec, costs, constraints
        self._fixed, self._value = fixed, value
        self.genes = np.empty((0, len(codec.accelerator_options)), dtype=np.int64)
        self._logarithms = np.empty((0, len(COSTS)))

    def offer(self, genes: np.ndarray) -> None:
        """Cost designs and keep what is not dominated."""
        genes = np.unique(genes, axis=0)
        genes[:, self._fixed] = self._value
        costs = self._costs(self._codec.space.accelerator.batch(genes))
        right = np.array([name is None for name in costs.wrong()])
        kept = right & (costs.excess(self._constraints) <= 0)
        logarithms = np.stack([np.log(getattr(costs, name)) for name in COSTS], axis=1)
        genes = np.concatenate([self.genes, genes[kept]])
        logarithms = np.concatenate([self._logarithms, logarithms[kept]])
        if len(genes):
            best = non_dominated(np.floor(logarithms / COST_RESOLUTION))
            self.genes, self._logarithms = genes[best], logarithms[best]

    def chosen(self, keep: int) -> np.ndarray:
        """At most `keep` of them: the cheapest in each cost, the knee, and a wide spread."""
        if len(self.genes) <= keep:
            return self.genes
        logarithms = self._logarithms
        order = dict.fromkeys([*logarithms.argmin(axis=0).tolist(), knee(logarithms)])
        resolution = COST_RESOLUTION
        left = np.arange(len(logarithms))
        while len(left) > CANDIDATES:
            resolution *= 1.5
            left = non_dominated(np.floor(logarithms / resolution))
        for index in spread([logarithms[i : i + 1] for i in left], keep):
            order[int(left[index])] = None
        return self.genes[list(order)[:keep]]
