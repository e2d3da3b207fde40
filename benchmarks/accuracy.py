"""Accuracy of models trained with DynaProp beside MiniLM and TF-IDF with logistic regression.

Each model is trained with several seeds by each of its recipes (--recipes names some). The recipe
with the best mean accuracy on the validation split is chosen, and the test split is opened for its
models alone, on record. Prints accuracies with their n, mean and deviation over seeds, the paired
difference to the baseline with a 95 % bootstrap interval over seeds and examples, and densities;
then one JSON object, which also lies in --out beside the models. A run that was stopped goes on.

    python benchmarks/accuracy.py [--models minilm bert-tiny bert-mini heterogeneous] [--seeds 3]
        [--recipes default transfer] [--workers 1] [--devices cpu] [--out FOLDER]
"""

import argparse
import json
import os
import platform
import statistics
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import sklearn
import torch
import transformers
from training.trainings import MINILM, Training, prepare_teacher, run, say, task_of

from model.baseline import fit_baseline
from model.data import Task, load_task, open_test
from model.recipe import Recipe
from model.statistics import paired_difference
from model.trained import FinalTest, TrainedModel, final_test

HETEROGENEOUS = {
    "layers": [
        {"hidden": 256, "heads": ["c_5", "c_9", "sa_sdp", "sa_sdp"], "feed_forward": [512]},
        {"hidden": 128, "heads": ["sa_wma", "l_dct", "sa_sdp", "sa_sdp"],
         "feed_forward": [256, 256]},
    ]
}  # fmt: skip
"""Convolutions below, attention above, two widths, one and two feed-forward stacks."""

MODELS: dict[str, Any] = {
    "minilm": MINILM,
    "bert-tiny": "bert-tiny",
    "bert-mini": "bert-mini",
    "heterogeneous": HETEROGENEOUS,
}

TRANSFER = Recipe(epochs=3.0, batch_size=128, transfer_texts=60_000)
FINE_TUNING = Recipe(epochs=2.0, learning_rate=1e-4, decay=0.9, distillation=0.0, dropout=0.1)
DROPOUT = Recipe(epochs=8.0, dropout=0.3)
CORPUS = Recipe(
    epochs=3.0, batch_size=256, learning_rate=1.5e-3, dropout=0.1, hidden_distillation=1.0,
    transfer_texts=186_000,
)  # fmt: skip
RECIPES: dict[str, tuple[Recipe, str | None]] = {
    "fine-tuning": (FINE_TUNING, "minilm"),
    "default": (Recipe(), None),
    "dropout": (DROPOUT, None),
    "dropout-slower": (replace(DROPOUT, learning_rate=5e-4, warmup_epochs=0.5), None),
    "from-minilm": (Recipe(learning_rate=3e-4), "minilm"),
    "hidden": (Recipe(hidden_distillation=1.0), None),
    "transfer": (TRANSFER, None),
    "transfer-hidden": (replace(TRANSFER, hidden_distillation=1.0), None),
    "transfer-from-minilm": (TRANSFER, "minilm"),
    "corpus": (CORPUS, None),
    "corpus-from-minilm": (replace(CORPUS, learning_rate=5e-4), "minilm"),
    "intermediate": (replace(CORPUS, intermediate_task="imdb"), None),
    "intermediate-from-minilm": (
        replace(CORPUS, learning_rate=5e-4, intermediate_task="imdb"), "minilm",
    ),
}  # fmt: skip
"""How a model is trained, and what its layers start from. CORPUS takes a GPU: the teacher's hidden
states are learned for all of IMDB's sentences; "intermediate" ones have a teacher who knows the
labels of IMDB's reviews, and stand beside a baseline that learns them, too."""


def main() -> None:
    given = parser().parse_args()
    task = task_of(given.task, None)
    say(f"machine: {machine(given.devices)}")
    say(
        f"versions: Python {platform.python_version()}, torch {torch.__version__}, transformers"
        f" {transformers.__version__}, scikit-learn {sklearn.__version__}"
    )
    say(f"task: {task.name}, splits {task.split_hash}, {task.sizes}; {task.source}")
    trainings = [
        training_of(given, model, recipe, seed)
        for seed in range(given.seeds)
        for model in given.models
        for recipe in recipes_of(given, model)
    ]
    prepare_teacher(task, trainings, given.devices[0])
    done = run(trainings, given.workers, given.devices)
    baseline = fit_baseline(task)
    result: dict[str, Any] = {
        "task": task.describe(),
        "baseline": {
            "validation_accuracy": baseline.validation_accuracy,
            "strength": baseline.strength,
        },
        "models": {},
    }
    for model in given.models:
        result["models"][model] = of_model([made for made in done if made.model == model])
    add_wider_baselines(task, result["models"], given.out)
    print_result(result)
    (given.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    for row in result["models"].values():
        del row["correct"]  # too long to print, and it lies in --out
    print(json.dumps(result))


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    made.add_argument("--recipes", nargs="+", choices=RECIPES, default=["default", "transfer"])
    made.add_argument("--task", default="movie-sentences")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--workers", type=int, default=1, help="trainings at once")
    made.add_argument("--devices", nargs="+", default=["cpu"], help="cpu, or cuda:0 cuda:1 …")
    made.add_argument("--out", type=Path, default=Path("runs/accuracy"))
    return made


def recipes_of(given: argparse.Namespace, model: str) -> list[str]:
    """MiniLM is fine-tuned, whatever the others are trained by."""
    return ["fine-tuning"] if model == "minilm" else given.recipes


def training_of(given: argparse.Namespace, model: str, recipe: str, seed: int) -> Training:
    chosen, encoder = RECIPES[recipe]
    return Training(
        model, MODELS[model], encoder, recipe, seed, given.task, None, chosen, None,
        given.out / model / f"{recipe}-{seed}",
    )  # fmt: skip


def of_model(trainings: list[Training]) -> dict[str, Any]:
    """Validation accuracies by recipe; the test's of the best recipe."""
    by_recipe: dict[str, list[TrainedModel]] = {}
    for training in trainings:
        made = TrainedModel.load(training.folder)
        by_recipe.setdefault(training.variant, []).append(made)
    found = {
        name: [made.validation_accuracy for made in models] for name, models in by_recipe.items()
    }
    best = max(found, key=lambda name: statistics.fmean(found[name]))
    models = by_recipe[best]
    tests = [final_test(made) for made in models]
    return {
        "validation": found,
        "validation_n": models[0].validation_n,
        "seconds": {name: [made.seconds for made in m] for name, m in by_recipe.items()},
        "recipe": best,
        "recipe_fields": asdict(models[0].recipe),
        "policy": models[0].policy.model_dump(mode="json", exclude_defaults=True),
        "densities": [made.densities for made in models],
        **of_tests(tests),
    }


def of_tests(tests: list[FinalTest]) -> dict[str, Any]:
    """Accuracies of the test split, and the paired difference to the baseline."""
    found = paired_difference([t.test_correct for t in tests], [t.baseline_correct for t in tests])
    return {
        "test": [test.test_accuracy for test in tests],
        "test_n": tests[0].test_n,
        "baseline_test": tests[0].baseline_test_accuracy,
        "difference": asdict(found),
        "correct": [list(t.test_correct) for t in tests],
    }


def add_wider_baselines(task: Task, models: dict[str, Any], out: Path) -> None:
    """Where a model's teacher knows another task: the difference to a baseline that does, too."""
    rows = [row for row in models.values() if row["recipe_fields"]["intermediate_task"]]
    for name in {row["recipe_fields"]["intermediate_task"] for row in rows}:
        baseline = fit_baseline(task, load_task(name).train)
        test = open_test(task, out / "test_openings.json", f"TF-IDF that learns {name}, too")
        answers = baseline.correct(test)
        for row in rows:
            if row["recipe_fields"]["intermediate_task"] == name:
                found = paired_difference(row["correct"], [answers] * len(row["correct"]))
                row["wider_baseline"] = {
                    "task": name,
                    "validation_accuracy": baseline.validation_accuracy,
                    "test": float(answers.mean()),
                    "difference": asdict(found),
                }


def print_result(result: dict[str, Any]) -> None:
    print(f"TF-IDF: validation {result['baseline']['validation_accuracy']:.2%}")
    for model, row in result["models"].items():
        for name, accuracies in row["validation"].items():
            chosen = ", chosen" if name == row["recipe"] else ""
            print(f"{model}, {name}: validation {spread(accuracies)} (n = {row['validation_n']})"
                  f"{chosen}")  # fmt: skip
        print(f"{model}: test {spread(row['test'])} (n = {row['test_n']}), TF-IDF"
              f" {row['baseline_test']:.2%}, {difference(row['difference'])}")  # fmt: skip
        if wider := row.get("wider_baseline"):
            print(f"{model}: TF-IDF that learns {wider['task']}, too, validation"
                  f" {wider['validation_accuracy']:.2%}, test {wider['test']:.2%},"
                  f" {difference(wider['difference'])}")  # fmt: skip


def difference(found: dict[str, Any]) -> str:
    """A paired difference with its interval."""
    return (
        f"difference {100 * found['mean']:+.2f} points, 95 % interval {100 * found['low']:+.2f} to"
        f" {100 * found['high']:+.2f}"
    )


def spread(accuracies: list[float]) -> str:
    """Mean, deviation and each of some accuracies."""
    deviation = f" ± {statistics.stdev(accuracies):.2%}" if len(accuracies) > 1 else ""
    each = ", ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies)
    return f"{statistics.fmean(accuracies):.2%}{deviation} ({each})"


def machine(devices: list[str]) -> str:
    if devices[0] != "cpu":
        return f"{len(devices)} × {torch.cuda.get_device_name()}"
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return f"{platform.system()} {platform.machine()} {name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
