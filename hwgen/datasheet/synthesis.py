"""Area, critical path and energy of a unit, as far as its ppa.csv goes."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

import numpy as np

from hwgen.datasheet.figures import Line, Panel, panels_figure
from hwgen.units.ppa import FITTED, Points

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
    "bits": "bits",
}
"""Units by the part of a column's name that states them."""

DRAWN = {"area": ("um2",), "critical path": ("ns", "ps"), "energy": ("pj", "fj")}
"""What the figures show, one each: the columns with the first of these units that occurs."""

ASIDE = ("clock", "memory_energy", "other")
"""Columns that begin so stand in the table alone: settings, memories, the netlist not taken."""

NOTES = {
    "memory": "Memory macros are counted apart from the standard cells.",
    "other": "Other: of the netlist that was not taken, with or without gated clocks.",
}
"""What readers are told where columns begin so."""

FIGURES = tuple(f"{kind.replace(' ', '_')}.svg" for kind in DRAWN)
"""Files of the figures."""


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
    parts = column.split("_")
    return next((part for part in reversed(parts[1:]) if part in UNITS), "")


def label_of(column: str) -> str:
    """Name of a column with its unit: `energy_density_0_5_pj` is "energy density 0.5 (pJ)"."""
    unit = unit_of(column)
    name = "_".join(part for part in column.split("_") if part != unit)
    name = re.sub(r"(?<=\d)_(?=\d)", ".", name).replace("_", " ")
    return f"{name} ({UNITS[unit]})" if unit else name


class _Table:
    """A unit's points beside the default unit's spec."""

    def __init__(self, points: Points, spec: Any) -> None:
        self.points, self.columns = points, points.columns
        self.default = {name: value for name, value in asdict(spec).items() if name in self.columns}
        others = [name for name in self.columns if name not in self.default]
        self.common = [name for name in others if len(set(self.columns[name].tolist())) == 1]
        self.common = [name for name in self.common if not self._is_quantity(name)]
        self.own = [name for name in others if name not in self.common]
        self.quantities = [name for name in self.own if self._is_quantity(name)]
        self.differing = [
            tuple(name for name, value in self.default.items() if self.columns[name][row] != value)
            for row in range(len(points))
        ]

    def _is_quantity(self, name: str) -> bool:
        return self.columns[name].dtype.kind == "f" and unit_of(name) != ""

    def default_row(self) -> int | None:
        """Row of the default unit."""
        return self.differing.index(()) if () in self.differing else None

    def series(self) -> dict[tuple[str, ...], Any]:
        """Rows by what varies in them: a parameter, and those that follow from it.

        Parameters that a design derives from another one differ with it: of all rows that differ in
        a parameter, but in none before it, those count that differ in the fewest.
        """
        found = {}
        for name in self.default:
            if self.columns[name].dtype.kind != "f":
                continue
            sets = sorted({each for each in self.differing if each[:1] == (name,)}, key=len)
            if sets and () in self.differing:
                rows = [n for n, each in enumerate(self.differing) if each in ((), sets[0])]
                x = self.columns[name][rows]
                found[sets[0]] = np.asarray(rows)[np.argsort(x, kind="stable")]
        return found


def synthesis_section(points: Points, spec: Any, folder: str) -> Synthesis:
    """Describe the synthesised points of a unit.

    Parameters
    ----------
    points : what was synthesised: columns that are the spec's fields, quantities whose name states
        their unit, and what the points came from
    spec : the default unit's spec, from which the points that are drawn differ in one parameter
    folder : where the sheet finds the figures
    """
    table = _Table(points, spec)
    parts = [_sources(table), _default(table)]
    figures = {}
    for (kind, names), file in zip(_kinds(table).items(), FIGURES, strict=True):
        panels = [_panel(table, kind, names, *each) for each in table.series().items() if names]
        if panels:
            figures[file] = panels_figure(panels)
            parts.append(f"![{points.unit}: {kind} over parameters]({folder}/{file})")
    if figures:
        parts.append(
            "In each panel one parameter varies, and what follows from it in brackets; the others "
            "are the default unit's."
        )
    parts.append(_fits(points))
    return Synthesis("\n\n".join(parts), figures)


def _fits(points: Points) -> str:
    """How far the fits of cost.py are off at points that they do not know."""
    ppa = import_module(f"hwgen.units.{points.unit}.cost").PPA
    lines = [
        "`cost.py` makes figures of these points for any spec within their range, each a sum of "
        f"{len(ppa.terms(points.specs()[0]))} terms. Its errors at points left out of the fit:",
        "",
        "| quantity | median, % | largest, % |",
        "| --- | ---: | ---: |",
    ]
    for name in FITTED:
        try:
            errors = 100 * np.abs(ppa.fit_to(points, name).left_out_errors)
        except (ValueError, KeyError):
            return "There are too few points yet for the fits of `cost.py`."
        lines.append(f"| {label_of(name)} | {np.median(errors):.1f} | {errors.max():.1f} |")
    return "\n".join(lines)


def _sources(table: _Table) -> str:
    """What the points have in common: library, tools, and so on."""
    points = len(table.points)
    head = f"{points} synthesised point{'s' * (points > 1)} in "
    parts = [head + f"`hwgen/units/{table.points.unit}/ppa.csv`."]
    lines = [f"- {label_of(name)}: {_cell(table.columns[name].tolist()[0])}"
             for name in table.common]
    return "\n\n".join([*parts, *(["\n".join(lines)] if lines else [])])


def _default(table: _Table) -> str:
    row = table.default_row()
    if row is None:
        return "The default unit is not among them."
    lines = ["The default unit:", "", "| quantity | value |", "| --- | ---: |"]
    for name in table.own:
        lines.append(f"| {label_of(name)} | {_cell(table.columns[name].tolist()[row])} |")
    notes = [note for prefix, note in NOTES.items() if any(n.startswith(prefix) for n in table.own)]
    return "\n".join([*lines, *(["", " ".join(notes)] if notes else [])])


def _kinds(table: _Table) -> dict[str, list[str]]:
    """Columns that are drawn in each figure, all of one unit; none that is zero throughout."""
    drawn = [
        name
        for name in table.quantities
        if not name.startswith(ASIDE) and table.columns[name].any()
    ]
    found: dict[str, list[str]] = {kind: [] for kind in DRAWN}
    for kind, units in DRAWN.items():
        for unit in units:
            found[kind] = found[kind] or [name for name in drawn if unit_of(name) == unit]
    return found


def _panel(
    table: _Table, kind: str, names: list[str], varying: tuple[str, ...], rows: Any
) -> Panel:
    parameter, *following = varying
    unit = UNITS[unit_of(names[0])]
    operation = table.columns.get("operation")
    if kind == "energy" and operation is not None:
        unit += f" per {operation[0]}"
    labels = [label_of(name).rpartition(" (")[0] for name in names]
    lines = [
        Line(
            label if len(names) > 1 else "",
            table.columns[parameter][rows].tolist(),
            table.columns[name][rows].tolist(),
        )
        for label, name in zip(labels, names, strict=True)
    ]
    brackets = f" [{', '.join(name.replace('_', ' ') for name in following)}]" if following else ""
    return Panel(parameter.replace("_", " ") + brackets, f"{kind} ({unit})", tuple(lines))


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return str(value)
