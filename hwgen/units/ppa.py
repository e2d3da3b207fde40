"""Area, energy and leakage of a unit for any spec, fitted to its synthesised points (ppa.csv)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Terms = Callable[[Any], Sequence[Any]]
"""What a unit's figures are linear in, from a spec or from an object whose fields are arrays."""


def has_points(unit: str) -> bool:
    """Whether the unit has a ppa.csv."""
    return (files("hwgen") / "units" / unit / "ppa.csv").is_file()


@dataclass(frozen=True)
class Points:
    """Synthesised points of a unit.

    Parameters
    ----------
    unit : its name
    columns : by name, an entry a point; numbers as float64, names as strings
    """

    unit: str
    columns: dict[str, NDArray[Any]]

    @classmethod
    def read(cls, unit: str) -> Points:
        """Read the unit's ppa.csv.

        Raises
        ------
        ValueError
            If the unit has none.
        """
        path = files("hwgen") / "units" / unit / "ppa.csv"
        if not has_points(unit):
            raise ValueError(
                f"{unit} has no synthesised points (hwgen/units/{unit}/ppa.csv); "
                f"make them with: transcode characterize {unit}"
            )
        return cls.parse(unit, path.read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, unit: str, text: str) -> Points:
        """Read points from the text of a ppa.csv.

        Raises
        ------
        ValueError
            If there is none.
        """
        rows = list(csv.DictReader(text.splitlines()))
        if not rows:
            raise ValueError(f"{unit}: ppa.csv must hold at least one point")
        return cls(unit, {name: _column([row[name] for row in rows]) for name in rows[0]})

    def __len__(self) -> int:
        """Return the number of points."""
        return len(next(iter(self.columns.values())))

    def check(self, spec: Any, parameters: Sequence[str]) -> None:
        """Refuse a spec outside the range of the points.

        Raises
        ------
        ValueError
            Names the parameter, its value and what was characterised.
        """
        for name in parameters:
            known = self.columns[name]
            values = np.atleast_1d(np.asarray(getattr(spec, name)))
            if known.dtype.kind == "U":
                wrong = values[~np.isin(values, known)]
                allowed = ", ".join(sorted(set(known.tolist())))
            else:
                wrong = values[(values < known.min()) | (values > known.max())]
                allowed = f"{known.min():g} to {known.max():g}"
            if wrong.size:
                raise ValueError(
                    f"{self.unit} was synthesised for {name} = {allowed}, not {wrong[0]}; "
                    f"add a point with: transcode characterize {self.unit}"
                )


@dataclass(frozen=True)
class Fit:
    """A quantity of a unit as a sum of terms, by least squares of the relative errors.

    Parameters
    ----------
    points : what was fitted
    quantity : column of the points
    parameters : columns that are the spec's fields
    terms : what the quantity is linear in
    coefficients : one a term
    left_out_errors : relative error at each point of a fit to all others
    """

    points: Points
    quantity: str
    parameters: tuple[str, ...]
    terms: Terms
    coefficients: Floats
    left_out_errors: Floats

    @classmethod
    def of(
        cls, points: Points, quantity: str, parameters: Sequence[str], terms: Terms
    ) -> Fit:
        """Fit a quantity to the points.

        Raises
        ------
        ValueError
            If there are not more points than terms, or the terms do not tell the points apart.
        """
        known = points.columns[quantity]
        values = _matrix(terms(_Columns(points.columns)), len(points))
        scaled = values / known[:, None]
        if np.linalg.matrix_rank(scaled) < scaled.shape[1] or len(scaled) <= scaled.shape[1]:
            raise ValueError(
                f"{points.unit}: {len(points)} points do not determine the "
                f"{scaled.shape[1]} terms of {quantity}"
            )
        inverse = np.linalg.pinv(scaled)
        coefficients = inverse.sum(axis=1)
        # A point's own weight in its estimate tells what the fit without it would have missed by.
        own = np.einsum("ij,ji->i", scaled, inverse)
        errors = (scaled @ coefficients - 1) / (1 - own)
        return cls(points, quantity, tuple(parameters), terms, coefficients, errors)

    def evaluate(self, spec: Any) -> Any:
        """Value for a spec, or an array for an object whose fields are arrays.

        Raises
        ------
        ValueError
            If the spec is outside the range of the points.
        """
        self.points.check(spec, self.parameters)
        return sum(
            coefficient * term
            for coefficient, term in zip(self.coefficients, self.terms(spec), strict=True)
        )


@cache
def fit(unit: str, quantity: str, parameters: tuple[str, ...], terms: Terms) -> Fit:
    """Fit a column of the unit's ppa.csv, once."""
    return Fit.of(Points.read(unit), quantity, parameters, terms)


class _Columns:
    """Points as an object whose fields are arrays, as terms and costs take them."""

    def __init__(self, columns: dict[str, NDArray[Any]]) -> None:
        self.__dict__.update(columns)


def _matrix(terms: Sequence[Any], rows: int) -> Floats:
    return np.stack([np.broadcast_to(np.asarray(term, np.float64), rows) for term in terms], axis=1)


def _column(texts: list[str]) -> NDArray[Any]:
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.array(texts)
