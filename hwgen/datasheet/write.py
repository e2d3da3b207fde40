"""Writes data sheets into a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hwgen.datasheet.sheet import DEFAULT_DESIGN, make_sheet
from hwgen.datasheet.synthesis import FIGURES
from hwgen.units.registry import RTL_UNITS, check_unit_name


def write_sheets(
    units: Sequence[str] = (),
    out: str | Path = "docs/units",
    *,
    design: str = DEFAULT_DESIGN,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> list[Path]:
    """Write the data sheets of units: `<unit>.md`, and figures in a folder `<unit>`.

    A folder's figures are those of the new sheet; other files in it stay.

    Parameters
    ----------
    units : names of units with RTL; none means all of them
    out : folder to write into
    design : the design whose units are described
    progress : called with the share that is done and what is done next

    Returns
    -------
    The pages.

    Raises
    ------
    ValueError
        If there is no such unit or design; then nothing is written.
    MissingToolError, SimulationError
        As `make_sheet`.
    """
    chosen = list(dict.fromkeys(units)) or list(RTL_UNITS)
    for unit in chosen:
        check_unit_name(unit)
    pages = []
    for number, unit in enumerate(chosen):
        progress(number / len(chosen), unit)
        sheet = make_sheet(unit, design)
        figures = Path(out) / unit
        figures.mkdir(parents=True, exist_ok=True)
        for name in ("error.svg", *FIGURES):
            if name not in sheet.files:
                (figures / name).unlink(missing_ok=True)
        for name, content in sheet.files.items():
            (figures / name).write_text(content, encoding="utf-8")
        page = Path(out) / f"{unit}.md"
        page.write_text(sheet.text, encoding="utf-8")
        pages.append(page)
    progress(1.0, "done")
    return pages
