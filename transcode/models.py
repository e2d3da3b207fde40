"""The commands about models: training, pre-training, evaluation in hardware arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from transcode.options import Json, Quiet, Seed, TaskName, app
from transcode.output import console, print_json, print_table, progress_bar


@app.command()
def train(
    model: Annotated[str, typer.Argument(help="A name such as bert-tiny, or a JSON file.")],
    task: TaskName = "movie-sentences",
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder; default: runs/train/<model>-<task>-<seed>.")
    ] = None,
    tau_activation: Annotated[
        float | None, typer.Option(help="Threshold τ_I of activations; default: the recipe's.")
    ] = None,
    tau_gradient: Annotated[
        float | None, typer.Option(help="Threshold τ_T of gradients; default: the recipe's.")
    ] = None,
    density_activation: Annotated[
        float | None,
        typer.Option(help="Target density of activations, of all real entries, instead of τ_I."),
    ] = None,
    density_gradient: Annotated[
        float | None,
        typer.Option(help="Target density of gradients, of all real entries, instead of τ_T."),
    ] = None,
    ramp_steps: Annotated[
        int | None, typer.Option(help="Steps over which pruning rises from nothing.", min=1)
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training split and transfer texts.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of AdamW; default: the recipe's, for layers from scratch.")
    ] = None,
    dropout: Annotated[
        float | None,
        typer.Option(help="Share of hidden values and probabilities dropped in training."),
    ] = None,
    transfer_texts: Annotated[
        int | None,
        typer.Option(help="IMDB sentences without labels that the teacher answers.", min=0),
    ] = None,
    hidden_distillation: Annotated[
        float | None, typer.Option(help="Weight of the loss of hidden states against a teacher's.")
    ] = None,
    intermediate_task: Annotated[
        str | None,
        typer.Option(help='Task of the same labels that the teacher learns first, such as "imdb".'),
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(help="Tokens at which texts are cut; default: the task's.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(help='Start from "minilm", a BERT\'s folder, or one that pretrain made.'),
    ] = None,
    device: Annotated[
        str, typer.Option(help='Where PyTorch trains: "cpu", "cuda", "cuda:1", …')
    ] = "cpu",
    trace_at: Annotated[
        list[float] | None,
        typer.Option(help="Share of the training at which densities are recorded; repeatable."),
    ] = None,
    final: Annotated[
        bool, typer.Option("--final", help="Open the test split, once, and record that.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a model with DynaProp on a task; a killed training goes on where it was.

    Example: transcode train bert-tiny --task movie-sentences --seed 7 --final --json
    """
    from model.job import DEFAULT_POLICY
    from model.recipe import Recipe
    from transcode.training import train_one

    given = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "dropout": dropout,
        "transfer_texts": transfer_texts,
        "hidden_distillation": hidden_distillation,
        "intermediate_task": intermediate_task,
    }
    recipe = Recipe.load({name: value for name, value in given.items() if value is not None})
    chosen = {
        **_pruning("activation", tau_activation, density_activation),
        **_pruning("gradient", tau_gradient, density_gradient),
        **({} if ramp_steps is None else {"ramp": {"steps": ramp_steps}}),
    }
    policy = type(DEFAULT_POLICY).load({**DEFAULT_POLICY.model_dump(), **chosen})
    named = f"{Path(model).stem}-{task.strip('/').replace('/', '-')}-{seed}"
    folder = out or Path("runs") / "train" / named
    with progress_bar(not quiet) as progress:
        result = train_one(
            model, task, seed, folder, policy, recipe, final, progress, sequence_length, encoder,
            device, tuple(trace_at or ()),
        )  # fmt: skip
    if as_json:
        print_json(result)
        return
    rows = [[name, value] for name, value in result.items() if not isinstance(value, dict)]
    rows += [[f"density of {role}", value] for role, value in result["densities"].items()]
    print_table(f"{model} on {task}", ["", "value"], rows)


def _pruning(kind: str, threshold: float | None, density: float | None) -> dict[str, float]:
    """Fields of a policy; a density takes the place of the default threshold."""
    if threshold is None and density is not None:
        return {f"{kind}_threshold": 0.0, f"{kind}_density": density}
    given = {"threshold": threshold, "density": density}
    return {f"{kind}_{name}": value for name, value in given.items() if value is not None}


@app.command()
def pretrain(
    model: Annotated[str, typer.Argument(help="A name such as bert-tiny, or a JSON file.")],
    out: Annotated[Path, typer.Option(help="Folder of the encoder.")],
    seed: Seed = 0,
    epochs: Annotated[float | None, typer.Option(help="Passes over the texts; default: 1.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pre-train an encoder on the IMDB texts with masked words, for train --encoder.

    A killed pre-training goes on where it was.

    Example: transcode pretrain bert-tiny --out runs/encoder
    """
    from transcode.training import pretrain_one

    with progress_bar(not quiet) as progress:
        result = pretrain_one(model, seed, out, epochs, progress)
    if as_json:
        print_json(result)
        return
    print_table(f"{model}, pre-trained", ["", "value"], [[*item] for item in result.items()])
    console.print(f"next: transcode train {model} --encoder {out}", highlight=False)


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A trained model's folder.")],
    arithmetic: Annotated[
        str, typer.Option(help="The accelerator: a name such as edge, or a YAML file.")
    ] = "edge",
    bits: Annotated[
        int | None, typer.Option(help="Width of a value, 4 to 24; default: the accelerator's.")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help='How exponents are chosen: "max", nothing seen saturates; a percentage of values '
            'that do not, such as 99.9; "mse", least squared error. Default: those saved with the '
            "model where they are of this width, else mse."
        ),
    ] = None,
    channels: Annotated[
        bool,
        typer.Option(
            "--channels", help="An exponent an output channel of weights; no RTL of today has it."
        ),
    ] = False,
    split: Annotated[str, typer.Option(help='"validation" or "train".')] = "validation",
    final: Annotated[
        bool, typer.Option("--final", help="Open the test split instead, and record that.")
    ] = False,
    fine_tune: Annotated[
        float | None,
        typer.Option(help="Epochs to train on in this arithmetic, into a new model at --out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The fine-tuned model; default: <model>-<bits>-bits.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a trained model in an accelerator's arithmetic, bit for bit, over a whole split.

    Reports accuracy beside float, agreement, and what saturates and underflows by layer (by
    tensor with --json). A killed fine-tuning goes on where it was.

    Example: transcode evaluate runs/train/bert-tiny-movie-sentences-7 --arithmetic edge --bits 8
    """
    from transcode.evaluation import evaluate_one, print_evaluation

    with progress_bar(not quiet) as progress:
        found = evaluate_one(
            model, arithmetic, bits, calibration, channels, split, final, fine_tune, out, seed,
            progress,
        )  # fmt: skip
    if as_json:
        print_json(found)
    else:
        print_evaluation(found)
