"""Tables, progress and JSON of the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table


class Progress(Protocol):
    """What is called with the share that is done, 0 to 1, and what is being done."""

    def __call__(self, fraction: float, message: str = "") -> None:
        """Show how far the work is."""


console = Console()
errors = Console(stderr=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object and nothing else."""
    console.file.write(json.dumps(value, indent=2, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table whose numbers are right-aligned."""
    table = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_text(value) for value in row))
    console.print(table)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


LINE_SECONDS = 15.0
"""Time between two lines of progress where there is no terminal to draw on."""


@contextmanager
def progress_bar(enabled: bool = True) -> Iterator[Progress]:
    """Give a callback (fraction, message) that shows progress with the time left on stderr."""
    if not enabled:
        yield lambda fraction, message="": None
    elif errors.is_terminal:
        with _drawn() as update:
            yield update
    else:
        yield _written()


@contextmanager
def _drawn() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with RichProgress(*columns, console=errors, refresh_per_second=2) as progress:
        task = progress.add_task("starting", total=1.0)

        def update(fraction: float, message: str = "") -> None:
            progress.update(task, completed=fraction, description=message or None)

        yield update


def _written() -> Progress:
    """Lines for a log, LINE_SECONDS apart."""
    started = last = time.monotonic()

    def update(fraction: float, message: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < LINE_SECONDS and fraction < 1:
            return
        last = now
        left = (now - started) * (1 - fraction) / fraction if fraction > 0 else None
        remaining = "" if left is None else f", about {left / 60:.1f} min left"
        errors.print(f"{fraction:4.0%}  {message}{remaining}", highlight=False)

    return update
