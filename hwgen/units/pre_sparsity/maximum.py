"""Expected time of the slowest of many lanes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

NEGLIGIBLE = 50.0
"""Negative logarithm of the probability that may wrap around the grid, on either side."""

CHUNK = 1 << 20
"""Grid points that are worked on at once."""


def mean(values: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """Mean of distributions, shapes (..., n) to (...)."""
    return np.asarray(np.sum(np.asarray(values) * np.asarray(probabilities), axis=-1))


def expected_maximum(values: ArrayLike, probabilities: ArrayLike, dots: ArrayLike,
                     lanes: ArrayLike, index: ArrayLike | None = None) -> NDArray[np.float64]:
    """Expectation of the maximum over independent lanes of sums of independent periods.

    The distribution of the sum is the inverse Fourier transform of a power of the characteristic
    function, exact but for rounding (5e-8 of the result and less, for up to 131072 lanes; 1e-12 for
    one), on a grid about the mean that holds all but e^−50 of it on either side: by Bernstein's
    inequality, for a variance v and a span r of one period and L = 50, the grid reaches
    L·r/3 + √((L·r/3)² + 2·L·v·dots) to either side, never less than ten standard deviations.

    Parameters
    ----------
    values, probabilities : integers and what they weigh, shape (n,) or (distributions, n)
    dots : periods in a sum, at least 1
    lanes : lanes, at least 1
    index : the distribution of each row; by default row i has distribution i, or the only one

    Returns
    -------
    Cycles, with the shape to which `dots`, `lanes` and `index` broadcast. A distribution of one
    value gives dots · value exactly.

    Raises
    ------
    ValueError
        If `dots` or `lanes` is below 1.
    """
    lowest, table, span = _grid(np.atleast_2d(values), np.atleast_2d(probabilities))
    if index is None:
        index = np.arange(len(table)) if len(table) > 1 else np.zeros((), np.int64)
    index, dots, lanes = np.broadcast_arrays(index, dots, lanes)
    shape = index.shape
    index, dots, lanes = index.reshape(-1), dots.reshape(-1), lanes.reshape(-1)
    for name, column in (("dots", dots), ("lanes", lanes)):
        if np.any(column < 1):
            raise ValueError(f"{name} must be at least 1, not {column.min()}")
    steps = np.arange(table.shape[1])
    average = table @ steps
    variance = np.sum(table * (steps - average[:, None]) ** 2, axis=1)
    spread = NEGLIGIBLE * span[index] / 3
    reach = spread + np.sqrt(spread**2 + 2 * NEGLIGIBLE * variance[index] * dots)
    points = np.minimum(dots * span[index] + 1, 2 * np.ceil(reach) + 2).astype(np.int64)
    sizes = 1 << np.ceil(np.log2(points)).astype(np.int64)
    result: NDArray[np.float64] = (lowest[index] * dots).astype(np.float64)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        if size > 1:
            step = max(1, CHUNK // size)
            for start in range(0, len(rows), step):
                part = rows[start:start + step]
                result[part] += _above_lowest(table, average, span, size, index[part],
                                              dots[part], lanes[part])
    return np.asarray(result.reshape(shape), np.float64)


def _grid(values: NDArray[np.int64], probabilities: NDArray[np.float64]
          ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Lowest values, probabilities of what lies 0, 1, 2 … above them, and highest less lowest."""
    values = np.broadcast_to(values, probabilities.shape)
    weights = np.maximum(probabilities, 0.0)
    possible = weights > 0
    lowest = np.min(np.where(possible, values, np.iinfo(np.int64).max), axis=1)
    offsets = np.where(possible, values - lowest[:, None], 0)
    span = offsets.max(axis=1)
    table = np.zeros((len(values), int(span.max()) + 1))
    np.add.at(table, (np.arange(len(values))[:, None], offsets), weights)
    table /= table.sum(axis=1, keepdims=True)
    return lowest, table, span


def _above_lowest(table: NDArray[np.float64], average: NDArray[np.float64],
                  span: NDArray[np.int64], size: int, index: NDArray[np.int64],
                  dots: NDArray[np.int64], lanes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Expected maximum above dots · lowest, for rows with grids of the same size."""
    used, row = np.unique(index, return_inverse=True)
    frequency = 2 * np.pi / size * np.arange(size // 2 + 1)
    # Centred characteristic functions: the power then multiplies no phase but that of the skew.
    factor = np.fft.rfft(table[used], size, axis=1)
    factor *= np.exp(1j * np.outer(average[used], frequency))
    with np.errstate(divide="ignore"):
        decay = np.log(np.abs(factor))
    total = average[index] * dots
    start = np.clip(np.ceil(total - size / 2), 0, np.maximum(0, dots * span[index] + 1 - size))
    line, column = np.nonzero(decay[row] * dots[:, None] > -100)
    angle = frequency[column] * (start - total)[line]
    spectrum = np.zeros((len(index), size // 2 + 1), np.complex128)
    spectrum[line, column] = factor[row[line], column] ** dots[line] * np.exp(1j * angle)
    probability = np.maximum(np.fft.irfft(spectrum, size, axis=1), 0.0)
    reached = np.cumsum(probability[:, ::-1], axis=1)[:, ::-1]
    beyond = np.minimum(reached[:, 1:] / reached[:, :1], 1.0)
    with np.errstate(divide="ignore"):
        some_lane = -np.expm1(lanes[:, None] * np.log1p(-beyond))
    return np.asarray(start + some_lane.sum(axis=1), np.float64)
