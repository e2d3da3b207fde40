"""Tasks: texts with labels, in three splits of which the third is opened on record only."""

import getpass
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from model.cache import locked, write_json
from model.hub import hub_corpus
from model.packaged import PACKAGED
from model.splits import SHARES, Split, Text, carve, deduplicated, joined, normalised

__all__ = [
    "SHARES",
    "Split",
    "Task",
    "Text",
    "carve",
    "deduplicated",
    "load_task",
    "normalised",
    "open_test",
    "openings",
]


AnyText = TypeVar("AnyText", bound=Text)


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
                f"{split.name}\t{label}\t{joined(text)}\n"
                for text, label in zip(split.texts, split.labels.tolist(), strict=True)
            )
            digest.update("".join(lines).encode())
        return digest.hexdigest()[:16]

    def apart_from_held_out(self, texts: Sequence[AnyText]) -> tuple[AnyText, ...]:
        """Texts of another source, without those that validation or test holds (normalised).

        It reads the texts of the test split to keep them out of training, never a label.
        """
        held_out = {
            normalised(text) for split in (self.validation, self._test) for text in split.texts
        }
        return tuple(text for text in texts if normalised(text) not in held_out)

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


def load_task(name: str, sequence_length: int | None = None) -> Task:
    """Load a task by name.

    Parameters
    ----------
    name
        ``"movie-sentences"``, ``"imdb"``, ``"trec"`` (6 classes), ``"trec-fine"`` (50) or
        ``"sms-spam"``, which ship in packages; a data set of the Hugging Face hub, such as
        ``"glue/sst2"`` (data set, then its configuration), which needs a network; or the path of
        a folder that holds such a data set.
    sequence_length
        In tokens; by default what suits the task.

    Raises
    ------
    MissingPackageError
        The package with the texts is not installed.
    ValueError
        No such task, or one whose columns or labels do not fit.
    """
    if sequence_length is not None and not 8 <= sequence_length <= 512:
        raise ValueError(f"sequence_length must be between 8 and 512 tokens, not {sequence_length}")
    if name in PACKAGED:
        corpus = PACKAGED[name]()
    elif "/" in name or Path(name).is_dir():
        corpus = hub_corpus(name)
    else:
        raise ValueError(
            f"unknown task {name!r}; it is {', '.join(PACKAGED)}, a data set of the hub such as"
            " glue/sst2, or the folder of one"
        )
    return Task(
        name=name,
        label_names=corpus.label_names,
        sequence_length=corpus.sequence_length if sequence_length is None else sequence_length,
        source=corpus.source,
        licence=corpus.licence,
        train=corpus.splits["train"],
        validation=corpus.splits["validation"],
        _test=corpus.splits["test"],
    )
