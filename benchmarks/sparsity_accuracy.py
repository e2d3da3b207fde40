"""Sparsity against accuracy: DynaProp beside dense training, over seeds, paired.

Trains each model dense, with sparse activations, with sparse gradients and with both, from the same
seeds and with a ramp, and compares on the validation split: the difference to dense with a 95 %
interval by a bootstrap over seeds and examples, beside the densities that were measured. The target
is that its lower bound lies above −1.5 points. For a final figure --splits opens the test split, on
record, alone or beside the other, which narrows the interval. Activations have one density at every
place or, with --net, one by operation, which leaves half of all stored values. Prints a table and
one JSON object, which also lies in --out beside the models and, in each model's folder, which
examples it answers correctly.

A run that was stopped goes on where it was. Trainings are processes of one thread each; of several
devices they take turns.

    python benchmarks/sparsity_accuracy.py [--models bert-mini minilm] [--seeds 5]
        [--variants dense activations gradients both] [--net] [--dense-residual] [--workers 2]
        [--devices cpu] [--splits validation] [--recipe epochs=4 learning_rate=1e-3]
        [--out FOLDER] [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training.trainings import CORRECT, MINILM, Training, prepare_teacher, run, setting, task_of

from model.policy import PruningPolicy
from model.recipe import Recipe
from model.statistics import paired_difference
from model.trained import TrainedModel, final_test

MODELS: dict[str, tuple[Any, str | None, Recipe]] = {
    "bert-mini": (
        "bert-mini",
        None,
        Recipe(learning_rate=5e-4, warmup_epochs=0.5, hidden_distillation=1.0),
    ),
    "minilm": (
        MINILM,
        "minilm",
        Recipe(
            epochs=3.0,
            batch_size=128,
            learning_rate=2e-4,
            decay=0.9,
            hidden_distillation=1.0,
            transfer_texts=34_000,
        ),
    ),
}
"""Design, what its layers start from, and how it is trained."""

VARIANTS = {
    "dense": (),
    "activations": ("activation",),
    "gradients": ("gradient",),
    "both": ("activation", "gradient"),
}
NET_DENSITIES = {
    "feed_forward_0": 0.12, "attention_softmax": 0.3, "query": 0.55, "key": 0.55, "value": 0.7,
    "context": 0.7, "attention_output": 0.75, "feed_forward_1": 0.75, "attention_norm": 0.85,
    "feed_forward_norm": 0.85, "embedding": 0.85,
}  # fmt: skip
"""Half of all that an encoder of MiniLM's shape stores: few zeros where they cost accuracy (hidden
states), many where most values are small (behind GELU and softmax)."""
MARGIN = -0.015
SPLITS = ("validation", "test")
TRACE_AT = (0.0, 0.25, 0.5, 0.75)


def main() -> None:
    given = parser().parse_args()
    trainings = [
        training_of(given, model, variant, seed)
        for seed in range(given.seeds)
        for model in given.models
        for variant in given.variants
    ]
    prepare_teacher(task_of(given.task, given.sequence_length), trainings, given.devices[0])
    done = run(trainings, given.workers, given.devices, given.minutes)
    sizes = task_of(given.task, given.sequence_length).sizes
    # Each once: an example that counts twice would narrow the interval.
    splits = [split for split in SPLITS if split in given.splits]
    result = {
        "task": given.task,
        "n": sum(sizes[split] for split in splits),
        "splits": splits,
        "margin": MARGIN,
        "gradients_off": given.gradients_off,
        "devices": given.devices,
        "torch": torch.__version__,
        "models": {model: compare(model, done, splits) for model in given.models},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print_result(result)
    print(json.dumps(result))
    if given.plot is not None:
        from transcode.curves_page import write_curves

        write_curves([made.folder for made in done], given.plot, swept=False)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    made.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    made.add_argument("--seeds", type=int, default=5)
    made.add_argument("--task", default="movie-sentences")
    made.add_argument(
        "--splits", nargs="+", choices=SPLITS, default=["validation"],
        help="examples of which splits are compared; test is for what is chosen already",
    )  # fmt: skip
    made.add_argument("--sequence-length", type=int, help="tokens; default: the task's")
    made.add_argument("--activation-density", type=float, default=0.5)
    made.add_argument(
        "--net", action="store_true",
        help="densities of activations by operation, half of all values, instead of one for all",
    )  # fmt: skip
    made.add_argument(
        "--dense-residual", action="store_true",
        help="the residual branch reads activations as they were before pruning",
    )  # fmt: skip
    made.add_argument("--gradient-density", type=float, default=0.1)
    made.add_argument(
        "--gradients-off", nargs="*", default=["classifier", "pooler"], metavar="PRODUCT",
        help="products whose gradient is left alone; default: the small ones at the top, where "
        "sparsity takes whole sequences out of all layers below",
    )  # fmt: skip
    made.add_argument("--selection", default="threshold", help="or top_k_row, top_k_tensor")
    made.add_argument(
        "--ramp", type=float, default=0.25, help="share of the steps over which pruning rises"
    )
    made.add_argument(
        "--refresh-steps", type=int, default=50, help="steps between two tables of thresholds"
    )
    made.add_argument(
        "--recipe", nargs="+", default=[], type=setting, metavar="KEY=NUMBER",
        help="fields of the recipe that are other than the model's own",
    )  # fmt: skip
    made.add_argument("--workers", type=int, default=1, help="trainings at once")
    made.add_argument("--devices", nargs="+", default=["cpu"], help="cpu, or cuda:0 cuda:1 …")
    made.add_argument("--minutes", type=float, help="start no training after so many")
    made.add_argument("--out", type=Path, default=Path("runs/sparsity"))
    made.add_argument("--plot", type=Path, help="an HTML page, as of transcode curves")
    return made


def training_of(given: argparse.Namespace, model: str, variant: str, seed: int) -> Training:
    design, encoder, own = MODELS[model]
    recipe = Recipe.load({**asdict(own), **dict(given.recipe)})
    texts = len(task_of(given.task, given.sequence_length).train) + recipe.transfer_texts
    batches = math.ceil(texts / recipe.batch_size)
    # Of dense training, too: densities are compared at the same places.
    policy: dict[str, Any] = {"gradients_off": tuple(given.gradients_off)}
    if kinds := VARIANTS[variant]:
        policy |= {f"{kind}_density": getattr(given, f"{kind}_density") for kind in kinds}
        if given.net and "activation" in kinds:
            rows = [{"operation": name, "density": kept} for name, kept in NET_DENSITIES.items()]
            policy |= {"overrides": rows}
        if given.dense_residual and "activation" in kinds:
            policy |= {"prune_residual": False}
        policy |= {"selection": given.selection, "refresh_steps": given.refresh_steps}
        if given.ramp > 0:
            steps = recipe.schedule(batches).steps
            policy["ramp"] = {"steps": max(1, round(given.ramp * steps))}
    return Training(
        model, design, encoder, variant, seed, given.task, given.sequence_length, recipe, policy,
        given.out / model / f"{variant}-{seed}", TRACE_AT, "test" in given.splits,
    )  # fmt: skip


def answers_of(training: Training, splits: Sequence[str]) -> np.ndarray:
    """Whether each example of these splits is answered correctly, one split after the other."""
    found = []
    if "validation" in splits:
        found.append(np.load(training.folder / CORRECT))
    if "test" in splits:
        found.append(np.array(final_test(TrainedModel.load(training.folder)).test_correct))
    return np.concatenate(found)


def compare(model: str, done: list[Training], splits: Sequence[str]) -> dict[str, Any]:
    """Each variant's accuracies and densities, and its difference to dense over common seeds."""
    trainings = {(t.variant, t.seed): t for t in done if t.model == model}
    answers = {key: answers_of(t, splits) for key, t in trainings.items()}
    made: dict[str, Any] = {}
    for variant in dict.fromkeys(variant for variant, _ in trainings):
        seeds = [seed for kind, seed in trainings if kind == variant]
        first = trainings[variant, seeds[0]]
        row = {
            "policy": PruningPolicy.load(first.policy).model_dump(mode="json"),
            "recipe": asdict(first.recipe),
            "seeds": seeds,
            "accuracy": [float(answers[variant, seed].mean()) for seed in seeds],
            "densities": [densities(trainings[variant, seed]) for seed in seeds],
        }
        paired = [seed for seed in seeds if ("dense", seed) in trainings]
        if variant != "dense" and paired:
            found = paired_difference(
                [answers[variant, seed] for seed in paired],
                [answers["dense", seed] for seed in paired],
            )
            row["difference"] = {**asdict(found), "met": found.low > MARGIN}
        made[variant] = row
    return made


def densities(training: Training) -> dict[str, Any]:
    """Measured densities over all real entries: of inference, and of the last training steps."""
    made = TrainedModel.load(training.folder)
    traces = {"OUTPUT": made.trace, "GRAD_OUTPUT": made.gradients}
    off = {"OUTPUT": made.policy.activations_off, "GRAD_OUTPUT": made.policy.gradients_off}
    return {
        "by_role": made.densities,
        "pruned_places": {role: t.by_role(off[role])[role] for role, t in traces.items()},
        "by_layer": {
            role: {"outside" if k is None else str(k): v for k, v in t.by_layer(role).items()}
            for role, t in traces.items()
        },
        "training_seconds": made.seconds,
    }


def print_result(result: dict[str, Any]) -> None:
    print(
        f"{result['task']}, {' and '.join(result['splits'])} split, n = {result['n']:,};"
        " densities over all real entries, in brackets at the places that are pruned; gradients of"
        f" {' and '.join(result['gradients_off']) or 'no product'} are left alone"
    )
    head = ("", "seeds", "accuracy", "difference to dense", "95 % interval", "target",
            "OUTPUT", "GRAD_OUTPUT")  # fmt: skip
    for model, variants in result["models"].items():
        rows = [(model, *head[1:])] + [row_of(name, row) for name, row in variants.items()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


def row_of(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    accuracies, found = row["accuracy"], row.get("difference")
    spread = f" ± {100 * statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
    difference = ("", "", "")
    if found is not None:
        difference = (
            f"{100 * found['mean']:+.2f} points",
            f"{100 * found['low']:+.2f} to {100 * found['high']:+.2f}",
            "met" if found["met"] else "not met",
        )
    measured = []
    for role in ("OUTPUT", "GRAD_OUTPUT"):
        whole, places = (
            statistics.fmean(d[kind][role] for d in row["densities"])
            for kind in ("by_role", "pruned_places")
        )
        measured.append(f"{whole:.3f} ({places:.3f})")
    mean = 100 * statistics.fmean(accuracies)
    return (name, str(len(accuracies)), f"{mean:.2f} %{spread}", *difference, *measured)


if __name__ == "__main__":
    main()
