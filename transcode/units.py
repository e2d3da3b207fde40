"""The commands about units: what they cost, and their data sheets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transcode.options import Json, Quiet, app
from transcode.output import console, print_json, progress_bar


@app.command()
def characterize(
    units: Annotated[
        list[str] | None, typer.Argument(help="Units such as dynatran; default: all with RTL.")
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            help='"nangate45": area, timing and power, into ppa.csv; or "ecp5": an FPGA\'s LUTs, '
            "DSPs, flip-flops and Fmax, into ecp5.csv."
        ),
    ] = "nangate45",
    default_only: Annotated[
        bool, typer.Option("--default-only", help="Only the spec that the design edge has.")
    ] = False,
    count: Annotated[
        int | None,
        typer.Option("--points", help="At most so many specs a unit, the default first.", min=1),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for <unit>/ppa.csv; default: each unit's own folder."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Specs that are worked on at once.", min=1)] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Synthesise units and write down what they cost: the figures behind every estimate.

    nangate45: Yosys maps the RTL to Nangate45's cells, OpenSTA finds the critical path, and Icarus
    runs the netlist on typical operands of density 1, 0.5 and 0.25, compares its results with
    golden, and records what switches. Needs pip install 'transcode-codesign\\[characterize]' and
    Debian's opensta and iverilog.

    Rows are written one by one: a run that was stopped goes on where it was. A row whose RTL,
    library and tools have not changed is kept.

    Example: transcode characterize dynatran post_sparsity --default-only
    """
    from hwgen.technology.flow.characterize import characterize as run_characterization
    from hwgen.units.registry import RTL_UNITS
    from transcode.figures import print_figures

    with progress_bar(not quiet) as progress:
        report = run_characterization(
            units or RTL_UNITS,
            target,
            default_only=default_only,
            count=count,
            folder=out,
            workers=workers,
            progress=progress,
        )
    if as_json:
        print_json(report.to_json())
    else:
        print_figures(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def datasheet(
    units: Annotated[
        list[str] | None,
        typer.Argument(help="Units with RTL, such as softmax; none means all.", show_default=False),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of the pages; a unit's figures go into a folder in it.")
    ] = Path("docs/units"),
    design: Annotated[
        str, typer.Option(help="The design whose units are described: a name or a YAML file.")
    ] = "edge",
    quiet: Quiet = False,
) -> None:
    """Write a data sheet a unit: function, ports, timing, error, latency, area and energy.

    A sheet is made from the unit itself: its docstrings, its ports, a simulation of its RTL, its
    measured error, its cost, and the synthesised points that transcode characterize has written.

    Example: transcode datasheet softmax --out docs/units
    """
    from hwgen.datasheet import write_sheets

    with progress_bar(not quiet) as progress:
        pages = write_sheets(units or (), out, design=design, progress=progress)
    for page in pages:
        console.print(f"data sheet: {page}", highlight=False)
