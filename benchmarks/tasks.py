"""The tasks: sizes of their splits, texts that nearly repeat another split's, the baseline.

Prints a row a task: examples of each split, classes, share of the most frequent one, how many of
the validation and of the test split nearly repeat a training text (`model.splits`), and TF-IDF
with logistic regression, tuned on validation. The test splits are opened on record.

    python benchmarks/tasks.py [--task NAME …] [--record FILE]
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from model.baseline import fit_baseline
from model.data import Task, load_task, open_test
from model.packaged import PACKAGED
from model.splits import near_duplicates

COLUMNS = (
    "task", "train", "validation", "test", "tokens", "classes", "most frequent",
    "near, validation", "near, test", "TF-IDF, validation", "TF-IDF, test", "split hash",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--task", nargs="+", default=[*PACKAGED])
    parser.add_argument("--record", type=Path, default=Path("runs/tasks/test_openings.json"))
    given = parser.parse_args()
    say("| " + " | ".join(COLUMNS) + " |")
    say("|---" * len(COLUMNS) + "|")
    for name in given.task:
        found = measured(load_task(name), given.record)
        say("| " + " | ".join(str(found[column]) for column in COLUMNS) + " |")


def measured(task: Task, record: Path) -> dict[str, Any]:
    """What a row says of a task."""
    test = open_test(task, record, "sizes, near duplicates and baseline of the task")
    baseline = fit_baseline(task)
    near = [
        int(near_duplicates(split.texts, task.train.texts).sum())
        for split in (task.validation, test)
    ]
    return {
        "task": task.name,
        **{name: f"{size:,}" for name, size in task.sizes.items()},
        "tokens": task.sequence_length,
        "classes": task.labels,
        "most frequent": f"{np.bincount(test.labels).max() / len(test):.1%}",
        "near, validation": near[0],
        "near, test": near[1],
        "TF-IDF, validation": f"{baseline.validation_accuracy:.2%}",
        "TF-IDF, test": f"{baseline.accuracy(test):.2%}",
        "split hash": task.split_hash,
    }


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
