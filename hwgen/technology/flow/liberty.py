"""What power needs from a liberty file: loads, transitions, internal energy and leakage."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_TOKEN = re.compile(
    r'/\*.*?\*/|\\\s*\n|"([^"]*)"|([A-Za-z_][\w.]*|-?[\d.]+(?:[eE][-+]?\d+)?)|([(){}:;,])', re.S
)


@dataclass
class Group:
    """A liberty group: `name (arguments) { attributes, groups }`."""

    name: str
    arguments: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)

    def of(self, name: str) -> list[Group]:
        """Return the groups of one name."""
        return [group for group in self.groups if group.name == name]

    def first(self, name: str) -> Group | None:
        """Return the first group of a name, if there is one."""
        return next(iter(self.of(name)), None)


@dataclass(frozen=True)
class Table:
    """A table over one or two variables, or a constant; linear between and beyond its points."""

    rows: tuple[float, ...]
    columns: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    def at(self, row: float, column: float = 0.0) -> float:
        """Return the value at an input's transition and, with two variables, a load."""
        row_index, row_share = _place(self.rows, row)
        upper = self._along(row_index, column)
        if not row_share:
            return upper
        return upper + row_share * (self._along(row_index + 1, column) - upper)

    def _along(self, index: int, column: float) -> float:
        values = self.values[index]
        place, share = _place(self.columns, column)
        return values[place] + (share * (values[place + 1] - values[place]) if share else 0.0)


@dataclass(frozen=True)
class Energy:
    """Internal energy of a transition of a pin.

    Parameters
    ----------
    related : the input that causes it; empty for an input's own
    when : condition over the cell's pins, empty for always
    rise, fall : energy (fJ) over an input's transition and the load
    """

    related: str
    when: str
    rise: Table
    fall: Table


@dataclass(frozen=True)
class Arc:
    """Transition time of an output after one of an input.

    Parameters
    ----------
    related : the input
    sense : positive_unate, negative_unate or non_unate
    rise, fall : transition time (ns) over the input's transition and the load
    """

    related: str
    sense: str
    rise: Table
    fall: Table


@dataclass(frozen=True)
class Pin:
    """A pin of a cell: direction, load (fF), energies, and for an output its arcs."""

    direction: str
    capacitance_ff: float
    energies: tuple[Energy, ...]
    arcs: tuple[Arc, ...]


@dataclass(frozen=True)
class CellPower:
    """A cell: pins and mean leakage (nW)."""

    pins: dict[str, Pin]
    leakage_nw: float


def _place(points: tuple[float, ...], value: float) -> tuple[int, float]:
    """Index of the interval and the share of it that lies before a value."""
    if len(points) < 2:
        return 0, 0.0
    index = min(max(bisect_right(points, value) - 1, 0), len(points) - 2)
    return index, (value - points[index]) / (points[index + 1] - points[index])


def parse(text: str) -> Group:
    """Parse a liberty group.

    Raises
    ------
    ValueError
        If the text is no group.
    """
    tokens = ((found[1], found[2], found[3]) for found in _TOKEN.finditer(text))
    stream = (token for token in tokens if token != (None, None, None))
    quoted, word, _ = next(stream)
    if not word or quoted is not None:
        raise ValueError("a liberty group begins with its name")
    group = _statement(word, stream)
    if not isinstance(group, Group):
        raise ValueError(f"{word} is no liberty group")
    return group


def _statement(name: str, stream: Iterator[Any]) -> Any:
    _, _, mark = next(stream)
    if mark == ":":
        words = []
        for quoted, word, mark in stream:
            if mark == ";":
                break
            words.append(quoted if quoted is not None else word)
        return " ".join(words)
    arguments = []
    for quoted, word, mark in stream:
        if mark == ")":
            break
        if mark != ",":
            arguments.append(quoted if quoted is not None else word)
    quoted, word, mark = next(stream)
    if mark != "{":
        return arguments
    group = Group(name, arguments)
    for _, word, mark in stream:
        if mark == "}":
            break
        if mark == ";":
            continue
        value = _statement(word, stream)
        if isinstance(value, Group):
            group.groups.append(value)
        else:
            group.attributes[word] = value
    return group


@cache
def _cell_texts(path: Path) -> dict[str, str]:
    """Text of each cell's group."""
    text = path.read_text()
    starts = list(re.finditer(r"^\s*cell\s*\(\s*\"?(\w+)\"?\s*\)\s*\{", text, re.M))
    ends = [found.start() for found in starts[1:]] + [len(text)]
    return {
        found[1]: text[found.start() : end].strip()
        for found, end in zip(starts, ends, strict=True)
    }


@cache
def cell_power(path: Path, kind: str) -> CellPower:
    """Read a cell.

    Raises
    ------
    ValueError
        If the library has no such cell.
    """
    texts = _cell_texts(path)
    if kind not in texts:
        raise ValueError(f"{path.name} has no cell {kind}")
    cell = parse(texts[kind])
    pins = {group.arguments[0]: _pin(group) for group in cell.of("pin")}
    return CellPower(pins, float(cell.attributes.get("cell_leakage_power", 0)))


def _pin(group: Group) -> Pin:
    energies = tuple(
        Energy(
            power.attributes.get("related_pin", ""),
            power.attributes.get("when", ""),
            _table(power.first("rise_power")),
            _table(power.first("fall_power")),
        )
        for power in group.of("internal_power")
    )
    arcs = tuple(
        Arc(
            timing.attributes["related_pin"],
            timing.attributes.get("timing_sense", "non_unate"),
            _table(timing.first("rise_transition")),
            _table(timing.first("fall_transition")),
        )
        for timing in group.of("timing") if timing.first("rise_transition")
    )
    attributes = group.attributes
    return Pin(
        attributes["direction"], float(attributes.get("capacitance", 0)), energies, arcs
    )


def _table(group: Group | None) -> Table:
    if group is None:
        return Table((), (), ((0.0,),))
    values = tuple(_numbers(row) for row in group.attributes["values"])
    rows = group.attributes.get("index_1")
    columns = group.attributes.get("index_2")
    if columns is None and rows is not None:  # one variable stands in one row
        values = tuple((value,) for value in values[0])
    return Table(
        _numbers(rows[0]) if rows else (), _numbers(columns[0]) if columns else (), values
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.replace(",", " ").split())
