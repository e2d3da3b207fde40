"""Time of lanes in density mode, each distinct case computed once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.units.pre_sparsity import cost as pre_sparsity
from sim.tiling import Ints

Floats = NDArray[np.float64]

TILE_BITS, LANE_BITS = 17, 23
"""Widths of a key's fields: a tile has at most 2^16 dot products, an accelerator 2^22 lanes."""


class LaneTimes:
    """Expected cycles of lanes, remembered from one call to the next."""

    def __init__(self) -> None:
        """Start with nothing remembered."""
        self._numbers: dict[tuple[int, int, int, int, float], int] = {}
        self._distributions: list[tuple[NDArray[np.int64], Floats]] = []
        self._means: list[float] = []
        self._keys = np.empty(0, dtype=np.int64)
        self._maxima = np.empty(0)

    def kinds(self, designs: DesignBatch, length: Ints, density: tuple[float, float]) -> Ints:
        """Number the distribution of a dot product's period, shape (designs,).

        Parameters
        ----------
        designs : their pre_sparsity counts
        length : elements of the dot product, shape (designs,)
        density : of the left and of the right operand
        """
        # One integer a row: macs below 2^7, window below 2^9, FIFO below 2^11, lengths below 2^21.
        spec = designs.pre_sparsity
        code = ((spec.macs << 9 | spec.window) << 11 | spec.fifo_depth) << 21 | length
        distinct, inverse = np.unique(code, return_inverse=True)
        numbers = [
            self._number((c >> 41, c >> 32 & 511, c >> 21 & 2047, c & 0x1FFFFF), density)
            for c in distinct.tolist()
        ]
        return np.asarray(numbers)[inverse]

    def _number(self, case: tuple[int, int, int, int], density: tuple[float, float]) -> int:
        macs, window, fifo_depth, length = case
        pairs = density[0] * density[1]
        key = (*case, pairs)
        if key not in self._numbers:
            values, probabilities = pre_sparsity.distributions(
                macs, window, fifo_depth, length, pairs
            )
            self._numbers[key] = len(self._distributions)
            self._distributions.append((values[0], probabilities[0]))
            self._means.append(float(pre_sparsity.mean(values[0], probabilities[0])))
        return self._numbers[key]

    def mean(self, kinds: Ints) -> Floats:
        """Mean period of each kind."""
        return np.asarray(self._means)[kinds]

    def maximum(self, kinds: Ints, dots: Ints, lanes: Ints) -> Floats:
        """Expected time of the slowest of `lanes` lanes with `dots` dot products each."""
        key = (kinds << TILE_BITS | dots) << LANE_BITS | lanes
        distinct, inverse = np.unique(key, return_inverse=True)
        new = distinct[~np.isin(distinct, self._keys, assume_unique=True)]
        if new.size:
            self._learn(new)
        return np.asarray(self._maxima[np.searchsorted(self._keys, distinct)][inverse])

    def _learn(self, keys: Ints) -> None:
        kinds = keys >> TILE_BITS + LANE_BITS
        used, index = np.unique(kinds, return_inverse=True)
        widest = max(len(self._distributions[kind][0]) for kind in used)
        values = np.zeros((len(used), widest), dtype=np.int64)
        probabilities = np.zeros((len(used), widest))
        for row, kind in enumerate(used):
            one_values, one_probabilities = self._distributions[kind]
            values[row] = one_values[0] + np.arange(widest)
            probabilities[row, : len(one_values)] = one_probabilities
        found = pre_sparsity.expected_maximum(
            values,
            probabilities,
            keys >> LANE_BITS & (1 << TILE_BITS) - 1,
            keys & (1 << LANE_BITS) - 1,
            index,
        )
        order = np.argsort(np.concatenate([self._keys, keys]))
        self._keys = np.concatenate([self._keys, keys])[order]
        self._maxima = np.concatenate([self._maxima, found])[order]
