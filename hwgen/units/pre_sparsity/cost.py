"""Cycles of a pre-sparsity module: exact for given operands, in distribution for densities.

The module's state is c, the pairs in its FIFO. Each cycle it first issues `macs` pairs where c is
at least `macs`, or what is left where the dot product's end is in the FIFO; then it takes as many
of the window's p effectual pairs as fit, where no other dot product's end is in the way. Before the
end is in, a window therefore takes 1 + max(0, ⌈(c₁ + p − fifo_depth) / macs⌉) cycles, where c₁ is c
less what is issued in the first of them: each later one moves `macs` pairs through the full FIFO.
Then ⌈c / macs⌉ cycles empty the FIFO, in the last of which the next dot product's first window is
begun. One more cycle, for an empty last beat, is needed where the last window has no pairs and
those before it fill whole beats: which beats a dot product makes then depends on its operands
alone, never on stalls.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgen.units.ppa import Ppa
from hwgen.units.pre_sparsity.maximum import expected_maximum, mean
from hwgen.units.stages import tree_levels

__all__ = ["LATENCY", "cycles", "cycles_back_to_back", "cycles_distribution", "distributions",
           "expected_maximum", "latency", "mean", "periods"]

LATENCY = 5
"""Four stages of masks, and the FIFO."""


def latency(spec: Any) -> int:
    """Cycles that a job takes beyond the sum of its periods; the same for every spec."""
    return LATENCY


def periods(spec: Any, counts: ArrayLike) -> NDArray[np.int64]:
    """Cycles from one dot product's first window to the next one's, exactly.

    Parameters
    ----------
    spec : PreSparsitySpec, or a namespace whose fields broadcast with the result
    counts : effectual pairs of each window, shape (..., windows)

    Returns
    -------
    Integers of shape (...): no two dot products share a window or a cycle of the FIFO's state, so
    that each period depends on its own counts alone.
    """
    counts = np.asarray(counts, dtype=np.int64)
    macs, depth = np.asarray(spec.macs), np.asarray(spec.fifo_depth)
    held = np.zeros(np.broadcast_shapes(counts.shape[:-1], macs.shape, depth.shape), np.int64)
    taken = held.copy()
    for window in range(counts.shape[-1]):
        held = np.where(held >= macs, held - macs, held) + counts[..., window]
        waits = np.maximum(0, -((depth - held) // macs))
        held -= waits * macs
        taken += 1 + waits
    bare = (counts[..., -1] == 0) & (held % macs == 0)
    period: NDArray[np.int64] = taken - 1 - (-held // macs) + bare
    return period


def cycles(spec: Any, counts: ArrayLike) -> NDArray[np.int64]:
    """Cycles of a job from reset, first input transfer to last output transfer inclusive.

    Parameters
    ----------
    spec : PreSparsitySpec
    counts : effectual pairs of each window, shape (..., dot products, windows)
    """
    return cycles_back_to_back(spec, counts) + latency(spec)


def cycles_back_to_back(spec: Any, counts: ArrayLike) -> NDArray[np.int64]:
    """Cycles that a job adds which follows another without a gap."""
    total: NDArray[np.int64] = periods(spec, counts).sum(axis=-1)
    return total


def cycles_distribution(spec: Any, length: int, density_left: float, density_right: float
                        ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Distribution of one dot product's period under independent Bernoulli masks.

    Parameters
    ----------
    spec : PreSparsitySpec
    length : positions of the dot product; its last window may be partial
    density_left, density_right : probability that an element is not zero

    Returns
    -------
    Periods (consecutive integers) and their probabilities.
    """
    values, probabilities = distributions(spec.macs, spec.window, spec.fifo_depth, length,
                                          density_left * density_right)
    return values[0], probabilities[0]


def distributions(macs: ArrayLike, window: ArrayLike, fifo_depth: ArrayLike, length: ArrayLike,
                  pair_density: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Distributions of the period for many rows at once.

    Parameters
    ----------
    macs, window, fifo_depth, length : integers; arrays that broadcast to (rows,)
    pair_density : probability that both elements of a position are not zero

    Returns
    -------
    Periods, shape (rows, widest), consecutive integers in each row, and their probabilities;
    shorter rows are padded with probability 0.

    Raises
    ------
    ValueError
        If a density is outside 0 to 1 or a length is below 1.
    """
    *whole, density = np.broadcast_arrays(macs, window, fifo_depth, length,
                                          np.asarray(pair_density, dtype=np.float64))
    density = density.reshape(-1)
    keys = np.stack([column.reshape(-1) for column in whole], axis=1).astype(np.int64)
    if not np.all((density >= 0) & (density <= 1)):
        raise ValueError(f"pair_density must be from 0 to 1, not {density}")
    if np.any(keys[:, 3] < 1):
        raise ValueError(f"length must be at least 1, not {keys[:, 3].min()}")
    kinds, kind = np.unique(keys, axis=0, return_inverse=True)
    groups = []
    for number, (one_macs, one_window, depth, one_length) in enumerate(kinds.tolist()):
        rows = np.flatnonzero(kind.reshape(-1) == number)
        distinct, inverse = np.unique(density[rows], return_inverse=True)
        first, found = _period(one_macs, one_window, depth, one_length, distinct)
        groups.append((rows, first, found[inverse]))
    values = np.empty((len(density), max(found.shape[1] for _, _, found in groups)), np.int64)
    probabilities = np.zeros(values.shape)
    for rows, first, found in groups:
        values[rows] = first + np.arange(values.shape[1])
        probabilities[rows, :found.shape[1]] = found
    return values, probabilities


def _binomial(trials: int, density: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of 0 to `trials` successes, shape (densities, trials + 1)."""
    ways = np.array([float(math.comb(trials, k)) for k in range(trials + 1)])
    k = np.arange(trials + 1)
    return ways * density[:, None] ** k * (1 - density[:, None]) ** (trials - k)


def _period(macs: int, window: int, depth: int, length: int, density: NDArray[np.float64]
            ) -> tuple[int, NDArray[np.float64]]:
    """Smallest period, and the probabilities of it and those that follow, for each density.

    The state is the joint distribution of the cycles that windows have waited and the pairs held.
    """
    windows = -(-length // window)
    state = np.ones((len(density), 1, 1))
    for number in range(windows):
        pairs = _binomial(min(window, length - number * window), density)
        before = _issue(state, macs)
        if number == windows - 1:
            # Nothing in the last window: an end after whole beats needs a beat of its own.
            bare = pairs[:, 0, None, None] * before
            pairs[:, 0] = 0
        state = _accept(before, macs, depth, pairs)
    # With pairs in the last window, 1 to macs take one cycle, macs + 1 to 2·macs two, and so on.
    ended = np.add.reduceat(state, [0, *range(1, state.shape[2], macs)], axis=2)[:, :, 1:]
    bare = np.add.reduceat(bare, range(0, bare.shape[2], macs), axis=2)
    result = np.zeros((len(density), ended.shape[1] - 1 + max(ended.shape[2], bare.shape[2])))
    for beats in (ended, bare):
        for waited in range(beats.shape[1]):
            result[:, waited:waited + beats.shape[2]] += beats[:, waited]
    return windows, result


def _issue(state: NDArray[np.float64], macs: int) -> NDArray[np.float64]:
    """Take `macs` pairs where there are as many."""
    result = state[:, :, :macs].copy()
    rest = state[:, :, macs:]
    if rest.shape[2] > result.shape[2]:
        result = np.pad(result, ((0, 0), (0, 0), (0, rest.shape[2] - result.shape[2])))
    result[:, :, :rest.shape[2]] += rest
    return result


def _accept(state: NDArray[np.float64], macs: int, depth: int, pairs: NDArray[np.float64]
            ) -> NDArray[np.float64]:
    """Add a window's pairs; what does not fit waits while `macs` a cycle leave."""
    rows, waited, held = state.shape
    added = np.zeros((rows, waited, held + pairs.shape[1] - 1))
    for count in range(pairs.shape[1]):
        added[:, :, count:count + held] += pairs[:, count, None, None] * state
    waits = max(0, -((depth - (added.shape[2] - 1)) // macs))
    result = np.zeros((rows, waited + waits, min(added.shape[2], depth + 1)))
    result[:, :waited] = added[:, :, :depth + 1]
    for wait in range(1, waits + 1):
        block = added[:, :, depth + 1 + (wait - 1) * macs:depth + 1 + wait * macs]
        start = depth + 1 - macs
        result[:, wait:wait + waited, start:start + block.shape[2]] += block
    return result


def _terms(spec: Any) -> tuple[Any, ...]:
    """A window's values and the switches to their columns, FIFO, pairs that leave, counts."""
    return (
        spec.window * spec.bits,
        spec.window * spec.bits * tree_levels(spec.macs),
        spec.fifo_depth * spec.bits,
        spec.macs * spec.bits,
        spec.window,
        spec.bits,
        1,
    )


PPA = Ppa(
    "pre_sparsity",
    ("macs", "bits", "window", "fifo_depth"),
    _terms,
    operations=lambda spec: spec.window,
)
"""What a module costs; an operation is a position of a dot product."""
