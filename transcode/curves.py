"""The command that draws what trainings gave: accuracy against sparsity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transcode.options import Json, Quiet, app
from transcode.output import console, print_json, print_table, progress_bar


@app.command()
def curves(
    models: Annotated[
        list[Path], typer.Argument(help="Folders of trained models of one task, or above them.")
    ],
    out: Annotated[Path, typer.Option(help="HTML file.")] = Path("runs/curves.html"),
    sweep: Annotated[
        bool,
        typer.Option(
            help="Also prune the least sparse models of each design without retraining; minutes "
            "the first time."
        ),
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw accuracy against sparsity, DynaProp and top-k, and densities over training.

    Trainings that differ in their seed alone become a mean with its deviation; sparsity is what was
    measured, on the validation split and in the last training steps.

    Example: transcode curves runs/train --out runs/curves.html
    """
    from transcode.curves_page import write_curves

    with progress_bar(not quiet) as progress:
        made = write_curves(models, out, sweep, progress)
    if as_json:
        print_json(made)
        return
    print_table(
        f"{made['task']}, validation split, n = {made['n']:,}; means over seeds, %",
        ["model", "pruning", "seeds", "accuracy", "zeros in activations", "zeros in gradients"],
        [
            [
                group["model"],
                group["pruning"],
                len(group["seeds"]),
                *(
                    100 * group[name]["mean"]
                    for name in ("accuracy", "activation_sparsity", "gradient_sparsity")
                ),
            ]
            for group in made["groups"]
        ],
    )
    console.print(f"curves: {out}", highlight=False)
