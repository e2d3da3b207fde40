"""A unit's table of figures: rows that are found by spec, written one by one, each at once."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

import hwgen.units

Row = dict[str, str]


def unit_folder(unit: str, folder: Path | None = None) -> Path:
    """Folder of a unit's tables: its own, or one of its name in another folder."""
    return (folder or Path(hwgen.units.__file__).parent) / unit


class Table:
    """Rows of a CSV file, keyed by a spec's fields.

    Parameters
    ----------
    path : the file; it need not exist
    parameters : the spec's fields, which are the first columns
    columns : the other columns
    """

    def __init__(self, path: Path, parameters: Sequence[str], columns: Sequence[str]) -> None:
        self.path = path
        self._parameters = tuple(parameters)
        self._columns = (*parameters, *columns)
        self._lock = Lock()

    def rows(self) -> list[Row]:
        """Read all rows; a table of other columns counts as empty."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader) if tuple(reader.fieldnames or ()) == self._columns else []

    def find(self, spec: Any) -> Row | None:
        """Return the row of a spec, or None."""
        key = self._key(asdict(spec))
        return next((row for row in self.rows() if self._key(row) == key), None)

    def put(self, row: Mapping[str, Any]) -> None:
        """Add a row, or replace the one of the same spec; the file is whole at every instant."""
        text = {name: str(row[name]) for name in self._columns}
        with self._lock:
            rows = [old for old in self.rows() if self._key(old) != self._key(text)]
            rows.append(text)
            rows.sort(key=lambda each: [_order(each[name]) for name in self._parameters])
            self._write(rows)

    def _key(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(values[name]) for name in self._parameters)

    def _write(self, rows: Sequence[Row]) -> None:
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(buffer.getvalue())
            Path(name).chmod(0o644)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _order(text: str) -> tuple[int, float, str]:
    """Numbers in their order, before words."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text
