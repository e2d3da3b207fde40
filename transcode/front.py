"""Runs and verdicts, printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transcode.output import console, print_table


def is_run(source: str) -> bool:
    """Whether a path is a search run's folder."""
    return (Path(source) / "archive.sqlite").is_file()


def pair_of(source: str, pick: str) -> Any:
    """Choose a member of a run's front."""
    from search import Run

    return Run.load(Path(source)).pick(pick)


def print_front(run: Any) -> None:
    """Print a run's front, a row a member."""
    console.print(str(run), highlight=False, soft_wrap=True)


def print_verdict(report: Any) -> None:
    """Print what a verification found, unit by unit."""
    rows = [
        [unit.unit, unit.jobs, unit.bit_exact, unit.cycles_predicted, unit.cycles_counted]
        for unit in report.units
    ]
    print_table(
        f"verification with {report.simulator}",
        ["unit", "jobs", "bit-exact", "cycles predicted", "cycles counted"],
        rows,
    )
    for unit in report.units:
        if unit.first_mismatch:
            console.print(f"{unit.unit}: {unit.first_mismatch}", highlight=False)
    console.print(
        "verdict: results bit-exact and cycles equal, every job of every unit"
        if report.ok
        else "verdict: NOT equal",
        highlight=False,
    )
