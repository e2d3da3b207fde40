"""Figures of data sheets: measured errors, and synthesised figures over parameters."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hwgen.datasheet.packages import import_package
from hwgen.units.accuracy import Accuracy

STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "font.size": 10,
    "legend.frameon": False,
    # Glyphs as text keep a figure small, and a fixed salt keeps its names the same.
    "svg.fonttype": "none",
    "svg.hashsalt": "transcode",
    "font.family": "DejaVu Sans",
}

FONTS = "DejaVu Sans, Verdana, sans-serif"
"""The font that labels are measured in, one as wide, and what there is."""

COLOURS = ("#0b5fa5", "#d1495b", "#2e7d32", "#8e5ea2", "#b26a00")
"""Distinct on white, in print and for the colour-blind together with the markers."""

MARKERS = ("o", "s", "^", "D", "v")


@dataclass(frozen=True)
class Line:
    """One line of a panel.

    Parameters
    ----------
    label : its name in the legend; empty for none
    x, y : its points
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Parameters
    ----------
    x_label, y_label : names with their units
    lines : what is drawn
    """

    x_label: str
    y_label: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Bars:
    """One pair of axes of horizontal bars, the first at the top.

    Parameters
    ----------
    x_label : name of what bars show, with its unit
    names : of the bars
    values : their lengths
    groups : what each belongs to; bars of a group have a colour
    """

    x_label: str
    names: Sequence[str]
    values: Sequence[float]
    groups: Sequence[str]


def bars_figure(panels: Sequence[Bars]) -> str:
    """Draw horizontal bars with their values and shares of the panel's sum."""
    groups = list(dict.fromkeys(group for panel in panels for group in panel.groups))
    colours = dict(zip(groups, COLOURS, strict=False))
    longest = max(len(panel.names) for panel in panels)
    with _figure(len(panels), width=5.4, height=1.1 + 0.24 * longest) as (axes, done):
        for axis, panel in zip(axes, panels, strict=True):
            total = sum(panel.values)
            places = range(len(panel.names))
            bars = axis.barh(
                places, panel.values, color=[colours[group] for group in panel.groups])
            axis.set_yticks(places, panel.names)
            axis.bar_label(
                bars, [f"{value:.2f} ({value / total:.0%})" for value in panel.values],
                padding=3, fontsize=8)
            axis.invert_yaxis()
            axis.grid(visible=False, axis="y")
            axis.set_xlim(0, 1.3 * max(panel.values))
            axis.set_xlabel(f"{panel.x_label}, together {total:.2f}")
        handles = [axes[0].barh([0], [0], color=colours[group]) for group in groups]
        axes[-1].legend(handles, groups, fontsize=8, loc="lower right")
    return done[0]


def error_figure(accuracies: Sequence[Accuracy]) -> str:
    """Draw the largest and the mean error in each part of the input range, and the bound."""
    with _figure(len(accuracies), width=7.2 if len(accuracies) == 1 else 4.6) as (axes, done):
        for axis, accuracy in zip(axes, accuracies, strict=True):
            edges = accuracy.edges
            for name, values, colour in (
                ("largest", accuracy.largest, COLOURS[1]),
                ("mean", accuracy.mean, COLOURS[0]),
            ):
                axis.stairs(values, edges, label=name, color=colour, linewidth=1.4)
            axis.axhline(accuracy.bound_ulp, color="#444444", linestyle="--", linewidth=1.2)
            axis.annotate(
                f"bound {accuracy.bound_ulp:g} ulp",
                (edges[0], accuracy.bound_ulp),
                textcoords="offset points",
                xytext=(2, 4),
            )
            axis.set_title(accuracy.title, fontsize=10)
            axis.set_xlabel(accuracy.quantity)
            axis.set_ylabel("magnitude of the error (ulp)")
            axis.set_ylim(0, accuracy.bound_ulp * 1.25)
            axis.legend(loc="center right", ncols=2, bbox_to_anchor=(1.0, 0.73))
    return done[0]


def panels_figure(panels: Sequence[Panel]) -> str:
    """Draw panels side by side."""
    with _figure(len(panels), width=3.6) as (axes, done):
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel)
    return done[0]


def _draw(axis: Any, panel: Panel) -> None:
    for line, colour, marker in zip(panel.lines, COLOURS * 9, MARKERS * 9, strict=False):
        axis.plot(line.x, line.y, color=colour, marker=marker, markersize=4, label=line.label)
    axis.set_xlabel(panel.x_label)
    # An axis is as high as a label of some thirty letters is long.
    axis.set_ylabel("\n".join(textwrap.wrap(panel.y_label, 30)))
    # Limits that are set end the automatic ones, and their margins.
    axis.set_ylim(0, 1.15 * max(max(line.y) for line in panel.lines))
    axis.locator_params(nbins=6)
    axis.locator_params(axis="x", integer=True)
    if any(line.label for line in panel.lines):
        axis.legend(fontsize=8)


@contextmanager
def _figure(columns: int, width: float, height: float = 2.9) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw in; the SVG is there once they are drawn."""
    matplotlib = import_package("matplotlib")
    done: list[str] = []
    with matplotlib.rc_context(STYLE):
        # No pyplot: nothing global, no display.
        figure = import_package("matplotlib.figure").Figure(
            figsize=(width * columns, height), layout="constrained"
        )
        yield figure.subplots(1, columns, squeeze=False)[0], done
        buffer = io.StringIO()
        metadata: Mapping[str, None] = {"Date": None, "Creator": None}
        figure.savefig(buffer, format="svg", metadata=metadata)
    done.append(_compact(buffer.getvalue()))


def _compact(svg: str) -> str:
    """Leave out what nobody sees: comments, metadata, indentation, less than 0.01 points."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    svg = re.sub(r"font-family: [^;\"]*", f"font-family: {FONTS}", svg)
    svg = re.sub(r"(\.\d\d)\d+", r"\1", svg)
    return re.sub(r"\n\s*", "\n", svg)
