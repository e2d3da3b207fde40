"""Areas and paths of constructions: rows of a file, each made again where it no longer holds."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FIELDS = ("component", "spec", "area_um2", "logic_um2", "critical_path_ns", "full_adder_cells",
          "clock_target_ps", "library_sha256", "rtl_sha256", "tools")

Row = dict[str, str]


def read(path: Path) -> dict[str, Row]:
    """Rows of a file by component."""
    with path.open(newline="", encoding="utf-8") as file:
        return {row["component"]: row for row in csv.DictReader(file)}


def write(path: Path, rows: Mapping[str, Row], fields: Sequence[str] = FIELDS) -> None:
    """Write rows in their order."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def refresh(path: Path, components: Iterable[tuple[str, Any, int, Callable[[], Any]]],
            measure: Callable[[Any, int], Row] | None = None, fields: Sequence[str] = FIELDS
            ) -> None:
    """Synthesise every component whose row does not hold, and write each as soon as it is known.

    Parameters
    ----------
    path : the file
    components : name, what it was made from, clock that synthesis aims at (ps), how to make it
    measure : what gives a row's figures, by default of a component by synthesis; with it, what is
        made has an `sha256` of its own
    fields : columns of the file
    """
    # Amaranth and the tools are needed here alone.
    from hwgen.technology.flow.ppa import origin
    from hwgen.technology.flow.synthesis import elaborate

    old = read(path) if path.is_file() else {}
    rows: dict[str, Row] = {}
    planned = list(components)
    for name, spec, clock_ps, make in planned:
        elaborated = make() if measure else elaborate(make(), "bound")
        made_from = {key: value for key, value in origin(elaborated, clock_ps).items()
                     if key in fields}
        row = old.get(name, {})
        if any(row.get(key) != value for key, value in made_from.items()):
            print(f"{name} …", flush=True)
            row = {"component": name, "spec": str(spec),
                   **(measure or _measure)(elaborated, clock_ps), **made_from}
        rows[name] = row
        known = {**old, **rows}
        write(path, {key: known[key] for key, *_ in planned if key in known}, fields)


def _measure(elaborated: Any, clock_ps: int) -> Row:
    from hwgen.technology.flow.timing import synthesise_for_clock

    with tempfile.TemporaryDirectory() as folder:
        netlist, path, full_adders = synthesise_for_clock(elaborated, Path(folder), clock_ps)
    return {
        "area_um2": f"{netlist.area_um2:.6g}", "logic_um2": f"{netlist.logic_um2:.6g}",
        "critical_path_ns": f"{path.delay_ns:.4f}",
        "full_adder_cells": "yes" if full_adders else "no"}
