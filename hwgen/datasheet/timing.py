"""Timing diagrams: a recorded simulation as WaveJSON, and WaveJSON as SVG."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from hwgen.datasheet.packages import import_package
from hwgen.simulation.waves import Recording, StreamWave

QUIET_CYCLES = 4
"""A stretch of so many cycles in which nothing changes is shortened to three columns."""

MAXIMUM_COLUMNS = 32
"""Columns of a diagram; what does not fit is left out at its right edge."""

FLAG_BITS = 4
"""Fields of so many bits have a row of their own."""

GAP = None
"""Stands for the cycles that are left out, in a list of columns."""


def wave_json(recording: Recording, title: str) -> dict[str, Any]:
    """Turn a recording into WaveJSON, one column a cycle.

    A payload is shown by the number of its beat, and small fields in rows of their own. Where
    nothing changes for long, a gap stands for the cycles that are left out; the row "cycle" counts
    them all.

    Parameters
    ----------
    recording : what was simulated
    title : what stands above the diagram
    """
    columns = shown_cycles(recording)
    following = [*columns[1:], recording.recorded_cycles]
    numbers = [
        # The dots show that the column goes on into the gap.
        f"{cycle} …" if after is GAP else cycle
        for cycle, after in zip(columns, following, strict=True)
    ]
    signal: list[Any] = [
        {"name": "clk", "wave": "".join("|" if cycle is GAP else "p" for cycle in columns)},
        _labels("cycle", numbers),
    ]
    for stream in recording.streams:
        signal += [{}, _group(stream, columns)]
    signal[0]["wave"] = re.sub("(?<=p)p", ".", signal[0]["wave"])
    return {"head": {"text": title}, "signal": signal, "config": {"hscale": 1}}


def shown_cycles(recording: Recording) -> list[int | None]:
    """Cycles that get a column, and `GAP` where some are left out."""
    states = [
        [
            (wave.valid[cycle], wave.ready[cycle], wave.beat[cycle], cycle in wave.transfers)
            for wave in recording.streams
        ]
        for cycle in range(recording.recorded_cycles)
    ]
    starts = [
        cycle
        for cycle, state in enumerate(states)
        if cycle == 0 or state != states[cycle - 1] or any(moved for *_, moved in state)
    ]
    columns: list[int | None] = []
    for start, end in zip(starts, [*starts[1:], len(states)], strict=True):
        if end - start < QUIET_CYCLES:
            columns += range(start, end)
        else:
            columns += [start, GAP, end - 1]
    return columns[:MAXIMUM_COLUMNS]


def _group(stream: StreamWave, columns: Sequence[int | None]) -> list[Any]:
    rows = [
        _levels("valid", [_at(stream.valid, cycle) for cycle in columns]),
        _levels("ready", [_at(stream.ready, cycle) for cycle in columns]),
        _labels("beat", [_at(stream.beat, cycle, "x") for cycle in columns]),
    ]
    for field in stream.port.fields:
        if field.count is None and field.width <= FLAG_BITS and len(stream.port.fields) > 1:
            values = [None if beat is None else beat[field.name] for beat in stream.fields]
            shown = [_at(values, cycle, "x") for cycle in columns]
            row = _levels if field.width == 1 else _labels
            rows.append(row(field.name, shown))
    return [stream.port.name, *rows]


def _at(values: Sequence[Any], cycle: int | None, otherwise: str = "") -> Any:
    """Value in a cycle; GAP in a gap, `otherwise` where there is none."""
    if cycle is GAP:
        return GAP
    return otherwise if values[cycle] is None else values[cycle]


def _levels(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Row of a signal of one bit."""
    wave, before = "", None
    for value in values:
        if value is GAP:
            wave += "|"
            continue
        level = value if value == "x" else str(int(value))
        wave += "." if level == before else level
        before = level
    return {"name": name, "wave": wave}


def _labels(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Row of a signal of several bits, a label a value; "x" where it does not matter."""
    wave, before = "", None
    data = []
    for value in values:
        if value is GAP:
            wave += "|"
        elif value == before:
            wave += "."
        elif value == "x":
            wave += "x"
        else:
            wave += "="
            data.append(str(value))
        before = before if value is GAP else value
    return {"name": name, "wave": wave, "data": data}


def levels(row: dict[str, Any]) -> list[str]:
    """Read a row back: a level or a label a column, "|" in a gap."""
    labels = iter(row.get("data", ()))
    found: list[str] = []
    now = ""
    for mark in row["wave"]:
        if mark == "|":
            found.append("|")
            continue
        if mark != ".":
            now = next(labels) if mark == "=" else mark
        found.append(now)
    return found


def render(diagram: dict[str, Any]) -> str:
    """Draw WaveJSON as SVG on white, with the drawing's unused patterns left out.

    Raises
    ------
    MissingToolError
        If the package wavedrom is not installed; says how to install it.
    """
    svg: str = import_package("wavedrom").render(json.dumps(diagram)).tostring()
    used = set(re.findall(r'xlink:href="#([^"]+)"', svg))
    svg = re.sub(
        r'<g id="([^"]+)">(?:<(?:path|rect)[^>]*/>)*</g>',
        lambda found: found[0] if found[1] in used or found[1].endswith("_0") else "",
        svg,
    )
    ground = '<rect x="0" y="0" width="100%" height="100%" fill="white"/>'
    return svg.replace("</defs>", f"</defs>{ground}", 1) + "\n"
