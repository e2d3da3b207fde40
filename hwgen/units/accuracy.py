"""Errors of approximating units, measured against real arithmetic over their input range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 128
"""Parts of the input range whose largest and mean errors are kept."""


@dataclass(frozen=True)
class Accuracy:
    """Errors of a unit, in ulp of its output, by what they depend on.

    Parameters
    ----------
    title : what tells it from the unit's other measurements
    inputs : what was measured, in words, with the number of results
    quantity : what the errors are shown over, with its unit
    edges : limits of the bins, shape (bins + 1,)
    largest : largest magnitude of an error in each bin (NaN: no result there), shape (bins,)
    mean : mean magnitude of an error in each bin, likewise
    bound_ulp : what no error exceeds
    """

    title: str
    inputs: str
    quantity: str
    edges: Floats
    largest: Floats
    mean: Floats
    bound_ulp: float

    @property
    def largest_ulp(self) -> float:
        """Largest error that was measured."""
        return float(np.nanmax(self.largest))

    @property
    def mean_ulp(self) -> float:
        """Mean of the bins' mean errors."""
        return float(np.nanmean(self.mean))

    @classmethod
    def of(
        cls,
        title: str,
        inputs: str,
        quantity: str,
        where: Floats,
        error_ulp: Floats,
        bound_ulp: float,
    ) -> Accuracy:
        """Sort errors into `BINS` bins of equal width.

        Parameters
        ----------
        title, inputs, quantity, bound_ulp : as for the class
        where : place of each result on the axis, shape (results,)
        error_ulp : result less exact value, in ulp, shape (results,)

        Raises
        ------
        ValueError
            If there is no result, or one has no finite place or error.
        """
        if not where.size or not (np.isfinite(where).all() and np.isfinite(error_ulp).all()):
            raise ValueError(f"errors over {quantity} must be finite, and at least one")
        edges = np.linspace(where.min(), where.max(), BINS + 1)
        place = np.clip(np.searchsorted(edges, where, side="right") - 1, 0, BINS - 1)
        size = np.abs(error_ulp)
        count = np.bincount(place, minlength=BINS)
        largest = np.full(BINS, -np.inf)
        np.maximum.at(largest, place, size)
        with np.errstate(invalid="ignore"):
            mean = np.bincount(place, weights=size, minlength=BINS) / count
        largest[count == 0] = np.nan
        return cls(title, inputs, quantity, edges, largest, mean, bound_ulp)
