"""Area, critical path and energy of a unit, as far as its ppa.csv goes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hwgen.datasheet.figures import Line, Panel, panels_figure
from hwgen.units.ppa import Points

UNITS = {
    "um2": "µm²",
    "ns": "ns",
    "ps": "ps",
    "pj": "pJ",
    "fj": "fJ",
    "nw": "nW",
    "uw": "µW",
    "mw": "mW",
    "mhz": "MHz",
}
"""Units by the part of a column's name that states them."""

DRAWN = {"area": ("um2",), "critical path": ("ns", "ps"), "energy": ("pj", "fj")}
"""What the figures show, one each: the columns with the first of these units that occurs."""


@dataclass(frozen=True)
class Synthesis:
    """The section of a data sheet, and its figures.

    Parameters
    ----------
    text : Markdown
    figures : SVG by file name; none where nothing varies
    """

    text: str
    figures: dict[str, str]


def unit_of(column: str) -> str:
    """Return the part of a column's name that states its unit; empty if none does."""
    return next((part for part in reversed(column.split("_")) if part in UNITS), "")


def label_of(column: str) -> str:
    """Name of a column with its unit: `area_um2` is "area (µm²)"."""
    unit = unit_of(column)
    name = " ".join(part for part in column.split("_") if part != unit)
    return f"{name} ({UNITS[unit]})" if unit else name


class _Table:
    """A unit's points beside the default unit's spec."""

    def __init__(self, points: Points, spec: Any) -> None:
        self.points, self.columns = points, points.columns
        self.default = {name: value for name, value in asdict(spec).items() if name in self.columns}
        self.quantities = [
            name
            for name, values in self.columns.items()
            if name not in self.default and values.dtype.kind == "f" and unit_of(name)
        ]
        self.sources = [
            name for name in self.columns if name not in (*self.default, *self.quantities)
        ]

    def rows(self, varying: str | None = None) -> Any:
        """Points whose parameters are the default's, but for the one that varies."""
        chosen = np.ones(len(self.points), dtype=bool)
        for name, value in self.default.items():
            if name != varying:
                chosen &= self.columns[name] == value
        return np.flatnonzero(chosen)

    def varied(self) -> list[str]:
        """Parameters of which several values were synthesised, all others as in the default."""
        return [
            name
            for name in self.default
            if self.columns[name].dtype.kind == "f"
            and len(np.unique(self.columns[name][self.rows(name)])) > 1
        ]


FIGURES = tuple(f"{kind.replace(' ', '_')}.svg" for kind in DRAWN)
"""Files of the figures."""


def synthesis_section(points: Points, spec: Any, folder: str) -> Synthesis:
    """Describe the synthesised points of a unit.

    Parameters
    ----------
    points : what was synthesised: columns that are the spec's fields, quantities whose name states
        their unit, and what the points came from
    spec : the default unit's spec: what is drawn differs from it in one parameter
    folder : where the sheet finds the figures
    """
    table = _Table(points, spec)
    parts = [_sources(table), _default(table)]
    varied = table.varied()
    figures = {}
    for (kind, names), file in zip(_kinds(table).items(), FIGURES, strict=True):
        if names and varied:
            panels = [_panel(table, parameter, kind, names) for parameter in varied]
            figures[file] = panels_figure(panels)
            parts.append(f"![{points.unit}: {kind} over parameters]({folder}/{file})")
    if figures:
        parts.append("In each panel one parameter varies; the others are the default unit's.")
    return Synthesis("\n\n".join(parts), figures)


def _sources(table: _Table) -> str:
    """What the points came from: a line a column, or the number of its values."""
    lines = []
    for name in table.sources:
        values = sorted({_cell(value) for value in table.columns[name].tolist()})
        said = ", ".join(values) if len(values) <= 3 else f"{len(values)} different ones"
        lines.append(f"- {label_of(name)}: {said}")
    unit = table.points.unit
    head = f"{len(table.points)} synthesised points in `hwgen/units/{unit}/ppa.csv`."
    return "\n\n".join([head, *(["\n".join(lines)] if lines else [])])


def _default(table: _Table) -> str:
    rows = table.rows()
    if not rows.size:
        return "The default unit is not among them."
    lines = ["The default unit:", "", "| quantity | value |", "| --- | ---: |"]
    for name in table.quantities:
        value = table.columns[name].tolist()[rows[0]]
        lines.append(f"| {label_of(name)} | {_cell(value)} |")
    return "\n".join(lines)


def _kinds(table: _Table) -> dict[str, list[str]]:
    """Columns that are drawn in each figure, all of one unit."""
    found: dict[str, list[str]] = {kind: [] for kind in DRAWN}
    for kind, units in DRAWN.items():
        for unit in units:
            found[kind] = found[kind] or [n for n in table.quantities if unit_of(n) == unit]
    return found


def _panel(table: _Table, parameter: str, kind: str, names: list[str]) -> Panel:
    rows = table.rows(parameter)
    x, first = np.unique(table.columns[parameter][rows], return_index=True)
    unit = unit_of(names[0])
    labels = [label_of(name).rpartition(" (")[0] for name in names]
    if len(names) == 1:
        kind, labels = labels[0], [""]
    lines = [
        Line(label, x.tolist(), table.columns[name][rows][first].tolist())
        for label, name in zip(labels, names, strict=True)
    ]
    return Panel(label_of(parameter), f"{kind} ({UNITS[unit]})", tuple(lines))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)
