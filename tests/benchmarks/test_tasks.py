"""The benchmark of the tasks says what a task is, and opens its test split on record."""

import sys
from hashlib import sha256
from pathlib import Path

from model.baseline import fit_baseline
from model.data import Task, openings
from model.splits import SHARES, carve

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import tasks  # noqa: E402


def test_a_row_holds_what_was_measured(tmp_path: Path) -> None:
    examples = [
        (f"{('dull', 'great', 'fine')[n % 3]} {sha256(bytes([n])).hexdigest()}", n % 3)
        for n in range(200)
    ]
    splits = carve(examples, SHARES)
    train, test = splits["train"], splits["test"]
    text = train.texts[0]
    assert isinstance(text, str)
    repeated = type(test)("test", (f"{text} indeed", *test.texts[1:]), test.labels)
    task = Task("made-up", ("a", "b", "c"), 24, "", "", train, splits["validation"], repeated)
    row = tasks.measured(task, tmp_path / "openings.json")
    assert tuple(row) == tasks.COLUMNS
    assert [row[name] for name in ("train", "validation", "test")] == ["140", "30", "30"]
    assert (row["tokens"], row["classes"], row["most frequent"]) == (24, 3, "33.3%")
    assert (row["near, validation"], row["near, test"]) == (0, 1)
    found = fit_baseline(task)
    assert row["TF-IDF, validation"] == f"{found.validation_accuracy:.2%}"
    assert row["TF-IDF, test"] == f"{found.accuracy(repeated):.2%}"
    (opening,) = openings(tmp_path / "openings.json")
    assert opening["n"] == 30
