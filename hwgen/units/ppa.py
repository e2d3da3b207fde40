"""Area, energy and leakage of a unit for any spec, fitted to its synthesised points (ppa.csv)."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import SimpleNamespace
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

    def specs(self) -> list[SimpleNamespace]:
        """Each point as a namespace of its columns; a spec's fields are among them."""
        columns = [column.tolist() for column in self.columns.values()]
        return [SimpleNamespace(**{
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in zip(self.columns, row, strict=True)
        }) for row in zip(*columns, strict=True)]

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
        values = np.array([terms(spec) for spec in points.specs()], np.float64)
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


@dataclass(frozen=True)
class Ppa:
    """What a unit costs, for any spec within the range of its synthesised points.

    All figures of the standard cells are linear in the same terms: the area, the leakage, the power
    of an idle module with gated clocks, and the energy of a cycle in which it does all it can.
    Memory macros are apart, for they are not synthesised (hwgen/technology/sram.py).

    Parameters
    ----------
    unit : its name
    parameters : columns of the points that are the spec's fields
    terms : what the figures are linear in
    operations : operations (of the column `operation`) in a busy cycle, from a spec
    related : further quantities of a spec, by what an error calls them, that must lie in the range
        of the points: where parameters of the points depend on one another
    """

    unit: str
    parameters: tuple[str, ...]
    terms: Terms
    operations: Callable[[Any], Any]
    related: tuple[tuple[str, Callable[[Any], Any]], ...] = ()

    def area_um2(self, spec: Any) -> Any:
        """Area of the standard cells, of one instance.

        Raises
        ------
        ValueError
            Like all figures, if the spec is outside the range of the points.
        """
        return self._evaluate("area_um2", spec)

    def leakage_mw(self, spec: Any) -> Any:
        """Leakage of the standard cells."""
        return self._evaluate("leakage_mw", spec)

    def idle_mw(self, spec: Any) -> Any:
        """Dynamic power at 700 MHz without work, its clocks gated where the netlist gates them."""
        return self._evaluate("idle_mw", spec)

    def energy_pj(self, spec: Any, density: float = 1.0) -> Any:
        """Dynamic energy of an operation at operands of a density, one of `DENSITIES`.

        Raises
        ------
        ValueError
            If it is another density, or the spec is outside the range of the points.
        """
        if density not in DENSITIES:
            raise ValueError(f"density must be one of {DENSITIES}, not {density}")
        return self._evaluate(energy_column(density), spec)

    def _evaluate(self, quantity: str, spec: Any) -> Any:
        self.check(spec)
        return self.fit(quantity).evaluate(spec)

    def fit(self, quantity: str) -> Fit:
        """Fit of a column of the points, made once."""
        return _fit(self, quantity)

    def fit_to(self, points: Points, quantity: str) -> Fit:
        """Fit of a column of other points.

        Raises
        ------
        ValueError
            If they do not determine it.
        """

        def of_quantity(spec: Any) -> list[Any]:
            terms = self.terms(spec)
            if not quantity.startswith("energy"):
                return list(terms)
            return [term / self.operations(spec) for term in terms]

        return Fit.of(points, quantity, self.parameters, of_quantity)

    def complete(self) -> bool:
        """Whether there are enough points for a fit."""
        if not has_points(self.unit):
            return False
        points = _points(self.unit)
        return len(points) > len(self.terms(points.specs()[0]))

    def slowest_path_ns(self, spec: Any) -> float:
        """Longest critical path, without wires, among points of formats as wide or narrower.

        As wide as the next one that was characterised, if this one was not.
        """
        columns = self.fit("area_um2").points.columns
        width = columns["bits"][columns["bits"] >= spec.bits].min()
        return float(columns["critical_path_ns"][columns["bits"] <= width].max())

    def check(self, spec: Any) -> None:
        """Refuse a spec outside the range of the points.

        Raises
        ------
        ValueError
            Names the parameter, its value and what was characterised.
        """
        points = self.fit("area_um2").points
        points.check(spec, self.parameters)
        for name, quantity in self.related:
            known, value = [quantity(point) for point in points.specs()], quantity(spec)
            if not min(known) <= value <= max(known):
                raise ValueError(
                    f"{self.unit} was synthesised for {name} = {min(known):g} to {max(known):g}, "
                    f"not {value:g}; add a point with: transcode characterize {self.unit}"
                )


DENSITIES = (1.0, 0.5, 0.25)
"""Densities of operands at which energies were recorded."""


def energy_column(density: float) -> str:
    """Name of the column with the energy of an operation at a density of operands."""
    return f"energy_density_{density:g}_pj".replace(".", "_")


FITTED = ("area_um2", *map(energy_column, DENSITIES), "leakage_mw", "idle_mw")
"""Columns that figures are fitted to."""


@cache
def _points(unit: str) -> Points:
    return Points.read(unit)


@cache
def _fit(ppa: Ppa, quantity: str) -> Fit:
    return ppa.fit_to(_points(ppa.unit), quantity)


def _column(texts: list[str]) -> NDArray[Any]:
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.array(texts)
