"""Characterisation of units: which rows are kept, which are made, in what order, with what result.

It goes on where it was: a row is written as soon as it is there, and a row whose RTL, library and
tools are those of today is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hwgen.simulation.build import cache_folder
from hwgen.technology.flow import fpga, ppa
from hwgen.technology.flow.points import points
from hwgen.technology.flow.synthesis import Elaborated
from hwgen.technology.flow.table import Row, Table
from hwgen.technology.flow.tools import FlowError, require, stop
from hwgen.units.registry import RTL_UNITS, check_unit_name, spec_of

TARGETS = ("nangate45", "ecp5")

KEPT_LOGS = (".log", ".v", ".tcl", ".ys", ".lib")
"""What stays of a run; netlists in other forms, stimulus and recordings do not."""


class Progress(Protocol):
    """What is called with the share that is done, 0 to 1, and what is being done."""

    def __call__(self, fraction: float, message: str = "") -> None:
        """Show how far the work is."""


@dataclass
class Report:
    """What a characterisation did.

    Parameters
    ----------
    target : "nangate45" or "ecp5"
    made : rows that are new
    kept : rows that were there and hold
    stale : rows in the tables whose RTL, library or tools have changed and that no point of this
        run renewed
    failed : by point, what went wrong
    """

    target: str
    made: list[Row] = field(default_factory=list)
    kept: list[Row] = field(default_factory=list)
    stale: list[Row] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every point has its row."""
        return not self.failed

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True)
class _Target:
    """How a target's rows are made."""

    programs: Sequence[str]
    table: Callable[..., Table]
    elaborate: Callable[[str, Any], Elaborated]
    is_fresh: Callable[[Row, Elaborated], bool]
    measure: Callable[[str, Any, Elaborated, Path], dict[str, Any]]


_TARGETS = {
    "nangate45": _Target(
        ppa.PROGRAMS, ppa.ppa_table, ppa.elaborate_unit, ppa.is_fresh, ppa.measure
    ),
    "ecp5": _Target(
        fpga.PROGRAMS, fpga.ecp5_table, fpga.elaborate_unit, fpga.is_fresh, fpga.measure
    ),
}


@dataclass(frozen=True)
class _Point:
    unit: str
    spec: Any
    elaborated: Elaborated
    table: Table

    @property
    def name(self) -> str:
        values = ", ".join(f"{name}={value}" for name, value in asdict(self.spec).items())
        return f"{self.unit}({values})"


def characterize(
    units: Sequence[str] = RTL_UNITS,
    target: str = "nangate45",
    *,
    default_only: bool = False,
    count: int | None = None,
    folder: Path | None = None,
    workers: int = 1,
    progress: Progress = lambda fraction, message="": None,
) -> Report:
    """Characterise units and write their tables, ppa.csv or ecp5.csv.

    Parameters
    ----------
    units : their names
    target : "nangate45" (area, timing, power) or "ecp5" (FPGA)
    default_only : only the unit of the default design
    count : at most so many points a unit, the default one first
    folder : where <unit>/ppa.csv lies; by default each unit's own folder
    workers : points that are worked on at once
    progress : called with the share that is done and what is being done

    Raises
    ------
    ValueError
        If a unit or the target is unknown.
    MissingToolError
        If a tool is missing; says what to install.
    """
    if target not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1 point, not {count}")
    for unit in units:
        check_unit_name(unit)
    kind = _TARGETS[target]
    require(kind.programs)
    report = Report(target)
    waiting: list[_Point] = []
    for number, unit in enumerate(units):
        progress(0.0, f"elaborating {unit} ({number + 1} of {len(units)} units)")
        _plan(unit, kind, 1 if default_only else count, folder, report, waiting)
    _work(waiting, kind, report, workers, progress)
    progress(1.0, "done")
    return report


def _plan(
    unit: str,
    kind: _Target,
    count: int | None,
    folder: Path | None,
    report: Report,
    waiting: list[_Point],
) -> None:
    """Sort a unit's points into rows that hold and points that wait, and find stale rows."""
    table = kind.table(unit, folder)
    chosen = points(unit)[:count]
    for spec in chosen:
        point = _Point(unit, spec, kind.elaborate(unit, spec), table)
        row = table.find(spec)
        if row is not None and kind.is_fresh(row, point.elaborated):
            report.kept.append({"unit": unit, **row})
        else:
            waiting.append(point)
    names = list(asdict(chosen[0]))
    types = {name: type(value) for name, value in asdict(chosen[0]).items()}
    for row in table.rows():
        spec = spec_of(unit, {name: types[name](row[name]) for name in names})
        if spec not in chosen and not kind.is_fresh(row, kind.elaborate(unit, spec)):
            report.stale.append({"unit": unit, **row})


def _work(
    waiting: list[_Point], kind: _Target, report: Report, workers: int, progress: Progress
) -> None:
    """Make the rows that wait; the time that a point takes goes about with the size of its RTL."""
    sizes = [len(point.elaborated.text) for point in waiting]
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        futures = {
            pool.submit(_make, point, kind): index for index, point in enumerate(waiting)
        }
        try:
            for future in as_completed(futures):
                index = futures[future]
                point = waiting[index]
                try:
                    row = future.result()
                except (FlowError, ValueError) as error:
                    report.failed[point.name] = str(error)
                else:
                    report.made.append({"unit": point.unit, **row})
                done += sizes[index]
                progress(0.999 * done / sum(sizes), point.name)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def _make(point: _Point, kind: _Target) -> Row:
    """Make one row and write it; its logs stay under the cache."""
    work = cache_folder() / "characterize" / f"{point.unit}-{point.elaborated.sha256[:16]}"
    row = kind.measure(point.unit, point.spec, point.elaborated, work)
    point.table.put(row)
    for file in work.rglob("*"):
        if file.is_file() and file.suffix not in KEPT_LOGS:
            file.unlink()
    return {name: str(value) for name, value in row.items()}
