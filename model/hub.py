"""Data sets in the format of the Hugging Face hub: from there with a network, or a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.splits import SHARES, Corpus, Example, Split, SplitName, beside, carve

PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
)
"""Columns of two texts that are classified together."""

TEXT_COLUMNS = ("text", "sentence", "content", "review", "question")
HELD_OUT = ("test", "validation", "validation_matched")
"""Splits that may be the test split; the first that has labels is."""


def hub_corpus(name: str) -> Corpus:
    """A data set with a text or a pair and a label, in splits of its own where they have labels.

    Where the labels of the test split are hidden, as GLUE's are, the validation split is the test
    split, and another one is carved from the training split. Without either all three are.

    Raises
    ------
    ValueError
        It cannot be loaded, or its columns or labels do not fit.
    """
    parts = _load_parts(name)
    first = next(iter(parts.values()))
    columns = _columns(name, first.column_names)
    label_names = _declared_names(name, first.features["label"])
    examples = {key: _examples(part, columns) for key, part in parts.items()}
    labelled = {key: part for key, part in examples.items() if all(y >= 0 for _, y in part)}
    if "train" not in labelled:
        raise ValueError(f"{name} has no train split with labels, but {', '.join(parts)}")
    splits = _splits(labelled)
    if empty := [key for key, split in splits.items() if not len(split)]:
        raise ValueError(f"{name} is too small: its {' and '.join(empty)} split would be empty")
    if not label_names:
        largest = max(y for part in labelled.values() for _, y in part)
        label_names = tuple(str(y) for y in range(1 + largest))
    return Corpus(
        splits=splits,
        label_names=label_names,
        sequence_length=64 if len(columns) == 1 else 128,
        source=first.info.homepage or f"{name} (datasets)",
        licence=first.info.license or "unstated",
    )


def _columns(name: str, present: list[str]) -> tuple[str, ...]:
    """The columns of the text or of the pair."""
    pair = next((pair for pair in PAIRS if {*pair} <= {*present}), None)
    single = next(((column,) for column in TEXT_COLUMNS if column in present), None)
    if "label" not in present or (pair is None and single is None):
        raise ValueError(
            f"{name} has columns {', '.join(present)}; a task needs label and one of"
            f" {', '.join(TEXT_COLUMNS)}, or a pair: {', '.join(' and '.join(p) for p in PAIRS)}"
        )
    return pair or single or ()


def _declared_names(name: str, feature: Any) -> tuple[str, ...]:
    """Names of the classes, none where the labels are bare numbers."""
    if names := getattr(feature, "names", None):
        return tuple(names)
    kind = str(getattr(feature, "dtype", feature))
    if kind != "bool" and "int" not in kind:
        raise ValueError(
            f"{name} has labels of type {kind}; a task needs classes: names or whole numbers from 0"
        )
    return ()


def _examples(part: Any, columns: tuple[str, ...]) -> list[Example]:
    """All examples of a split; a label that is hidden is −1."""
    texts = part[columns[0]] if len(columns) == 1 else zip(*(part[c] for c in columns), strict=True)
    labels = (-1 if label is None else int(label) for label in part["label"])
    return list(zip(texts, labels, strict=True))


def _splits(labelled: Mapping[str, list[Example]]) -> dict[SplitName, Split]:
    held_out = next((key for key in HELD_OUT if labelled.get(key)), None)
    if held_out is None:
        return carve(labelled["train"], SHARES)
    validation = labelled.get("validation", []) if held_out == "test" else []
    return beside(labelled[held_out], labelled["train"], validation)


def _load_parts(name: str) -> Mapping[str, Any]:
    import datasets

    folder = Path(name)
    if folder.is_dir():
        # A copy of a whole repository names the files of its configurations in its README.
        if (folder.parent / "README.md").is_file():
            known = datasets.get_dataset_config_names(str(folder.parent))
            if folder.name in known:
                return datasets.load_dataset(str(folder.parent), folder.name)
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
