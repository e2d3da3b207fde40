"""Accuracy of BERT-Tiny trained with DynaProp against TF-IDF with logistic regression.

Trains the named design with several seeds on a task and opens the test split for each, on record.
Prints accuracies with their n, mean and deviation over seeds, the paired difference to the
baseline with a 95 % bootstrap interval over seeds and examples, and measured densities.

    python benchmarks/accuracy.py [--design bert-tiny] [--seeds 3] [--threads 1] [--out FOLDER]
"""

import argparse
import platform
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import sklearn
import torch
import transformers

from model.baseline import fit_baseline
from model.data import load_task
from model.loop import Progress
from model.statistics import paired_difference
from model.teacher import fine_tuned_teacher
from model.train import train
from model.trained import FinalTest, TrainedModel, final_test


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--design", default="bert-tiny")
    parser.add_argument("--task", default="movie-sentences")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None, help="keep the models here")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        benchmark(given, given.out or Path(temporary))


def benchmark(given: argparse.Namespace, out: Path) -> None:
    task = load_task(given.task)
    say(f"machine: {machine()}, {given.threads} thread(s)")
    say(
        f"versions: Python {platform.python_version()}, torch {torch.__version__}, transformers"
        f" {transformers.__version__}, scikit-learn {sklearn.__version__}"
    )
    say(f"task: {task.name}, splits {task.split_hash}, {task.sizes}; {task.source}")
    teacher = fine_tuned_teacher(task, progress=report)
    say(
        f"teacher: validation {teacher.validation_accuracy:.2%} (n = {teacher.validation_n}),"
        f" {teacher.seconds:.0f} s"
    )
    baseline = fit_baseline(task)
    say(
        f"baseline: C = {baseline.strength:g}, validation {baseline.validation_accuracy:.2%}"
        f" (n = {baseline.validation_n})"
    )
    models: list[TrainedModel] = []
    for seed in range(given.seeds):
        made = train(
            given.design, task, seed=seed, out=out / f"{given.design}-{seed}", progress=report,
            threads=given.threads,
        )  # fmt: skip
        models.append(made)
        say(
            f"seed {seed}: validation {made.validation_accuracy:.2%} (n = {made.validation_n}),"
            f" {made.seconds:.0f} s, {made.seconds / made.epochs:.1f} s an epoch"
        )
    summarize(models, [final_test(model, task) for model in models])


def summarize(models: list[TrainedModel], results: list[FinalTest]) -> None:
    n = results[0].test_n
    ours = np.array([result.test_accuracy for result in results])
    theirs = results[0].baseline_test_accuracy
    policy, densities = models[0].policy, models[0].densities
    say(f"thresholds: τ_I = {policy.activation_threshold:g}, τ_T = {policy.gradient_threshold:g}")
    say("densities (seed 0): " + ", ".join(f"{k} {v:.3f}" for k, v in densities.items()))
    say("test: " + ", ".join(f"{a:.2%}" for a in ours) + f" (n = {n})")
    say(f"test, mean of {len(ours)} seeds: {ours.mean():.2%}, deviation {ours.std(ddof=1):.2%}")
    say(f"test, TF-IDF with logistic regression: {theirs:.2%} (n = {n})")
    found = paired_difference(
        [result.test_correct for result in results], [result.baseline_correct for result in results]
    )
    say(f"difference: {found.mean:+.2%}, 95 % interval {found.low:+.2%} to {found.high:+.2%}")


def machine() -> str:
    import os

    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    return f"{platform.system()} {platform.machine()} {name}, {os.cpu_count()} cores"


def report(now: Progress) -> None:
    if sys.stderr.isatty():
        left = 0.0 if now.seconds_left is None else now.seconds_left
        sys.stderr.write(f"\r{now.phase}: {now.fraction:4.0%}, {left:4.0f} s left ")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
