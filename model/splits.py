"""Texts with labels, cut into splits that share no text."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Text = str | tuple[str, str]
"""A text, or a pair of texts that are classified together."""

Example = tuple[Text, int]
SplitName = Literal["train", "validation", "test"]
SHARES: Mapping[SplitName, float] = {"train": 0.70, "validation": 0.15, "test": 0.15}
SHARES_BESIDE_A_TEST: Mapping[SplitName, float] = {"train": 0.85, "validation": 0.15}
SPLIT_SEED = "transcode-1"
"""Part of what orders the examples of a carved split; another value would be other splits."""

SHINGLE = 5
"""Characters of the pieces in which two texts are compared."""

HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""Odd, of 64 random bits: pieces are compared by a polynomial hash of their characters."""

NEAR = 0.8
"""Share of pieces (Jaccard) that two texts have in common if one nearly repeats the other."""


@dataclass(frozen=True, eq=False)
class Split:
    """Texts and their labels (int64, one a text)."""

    name: SplitName
    texts: tuple[Text, ...]
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.texts)


@dataclass(frozen=True, eq=False)
class Corpus:
    """Splits with what is known of them.

    Attributes
    ----------
    splits
        By name, all three.
    label_names
        One a class, in the order of the labels.
    sequence_length
        What suits the texts, in tokens.
    source, licence
        Where the texts come from and the licence as given there, or ``"unstated"``.
    """

    splits: Mapping[SplitName, Split]
    label_names: tuple[str, ...]
    sequence_length: int
    source: str
    licence: str


def joined(text: Text) -> str:
    """A text as one string, the two of a pair with a tab between."""
    return text if isinstance(text, str) else "\t".join(text)


def normalised(text: Text) -> str:
    """What two texts must differ in to count as two: letters and digits, without case."""
    if not isinstance(text, str):
        return "\t".join(normalised(part) for part in text)
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def deduplicated(examples: Iterable[Example]) -> list[Example]:
    """The first of each group of equal texts; groups that disagree on the label go altogether."""
    first: dict[str, Example] = {}
    conflicting: set[str] = set()
    for text, label in examples:
        key = normalised(text)
        if key.strip() and first.setdefault(key, (text, label))[1] != label:
            conflicting.add(key)
    return [example for key, example in first.items() if key not in conflicting]


def carve(
    examples: Iterable[Example], shares: Mapping[SplitName, float]
) -> dict[SplitName, Split]:
    """Cut distinct examples into splits, each label alike.

    The order is that of a seeded hash of the text, so it depends neither on the order of the file
    nor on a library's random numbers.
    """
    by_label: dict[int, list[tuple[str, Text]]] = {}
    for text, label in deduplicated(examples):
        digest = hashlib.sha256(f"{SPLIT_SEED}\n{normalised(text)}".encode()).hexdigest()
        by_label.setdefault(label, []).append((digest, text))
    parts: dict[SplitName, list[tuple[str, Text, int]]] = {name: [] for name in shares}
    for label, entries in by_label.items():
        entries.sort()
        bounds = np.round(np.cumsum([0.0, *shares.values()]) * len(entries)).astype(int)
        for name, low, high in zip(shares, bounds, bounds[1:], strict=False):
            parts[name] += [(digest, text, label) for digest, text in entries[low:high]]
    return {
        name: _split(name, [(text, label) for _, text, label in sorted(part)])
        for name, part in parts.items()
    }


def beside(
    test: Sequence[Example], train: Sequence[Example], validation: Sequence[Example] = ()
) -> dict[SplitName, Split]:
    """Splits around a test split that is given; what also stands there leaves the others.

    Parameters
    ----------
    test, train
        Examples, duplicates among them.
    validation
        Examples of a given validation split; without them it is carved from ``train``.
    """
    test = deduplicated(test)
    seen = {normalised(text) for text, _ in test}
    train = [example for example in train if normalised(example[0]) not in seen]
    made = _split("test", test)
    if not validation:
        return {**carve(train, SHARES_BESIDE_A_TEST), "test": made}
    validation = [e for e in deduplicated(validation) if normalised(e[0]) not in seen]
    seen |= {normalised(text) for text, _ in validation}
    train = [example for example in deduplicated(train) if normalised(example[0]) not in seen]
    return {
        "train": _split("train", train),
        "validation": _split("validation", validation),
        "test": made,
    }


def _split(name: SplitName, examples: Sequence[Example]) -> Split:
    labels = np.asarray([label for _, label in examples], dtype=np.int64)
    labels.setflags(write=False)
    return Split(name, tuple(text for text, _ in examples), labels)


def near_duplicates(texts: Sequence[Text], others: Sequence[Text]) -> np.ndarray:
    """Which texts nearly repeat one of some others, bool, one a text.

    Two texts do where the sets of their pieces of SHINGLE characters (normalised; a shorter text
    is one piece) have a Jaccard index of at least NEAR. Every pair that does is found: it shares a
    piece among the rarest 1 − NEAR of either (Bayardo, Ma and Srikant, "Scaling up all pairs
    similarity search", 2007), so only pairs that share such a piece are compared.
    """
    sets = [_shingles(normalised(text)) for text in (*texts, *others)]
    known, counts = np.unique(np.concatenate(sets), return_counts=True)
    sizes = np.array([len(pieces) for pieces in sets])
    rarest = [_rarest(pieces, counts[np.searchsorted(known, pieces)]) for pieces in sets]
    places: dict[int, list[int]] = {}
    for number in range(len(texts), len(sets)):
        for piece in rarest[number]:
            places.setdefault(piece, []).append(number)
    found = np.zeros(len(texts), dtype=bool)
    for number, pieces in enumerate(sets[: len(texts)]):
        sharing = {other for piece in rarest[number] for other in places.get(piece, ())}
        candidates = np.array(sorted(sharing), dtype=np.int64)
        ratio = sizes[candidates] / len(pieces)  # no Jaccard index is above it or its inverse
        candidates = candidates[np.minimum(ratio, 1 / ratio) >= NEAR]
        found[number] = any(_jaccard(pieces, sets[other]) >= NEAR for other in candidates)
    return found


def _shingles(text: str) -> np.ndarray:
    """Sorted hashes of a text's pieces, uint64."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    hashes = np.zeros(max(len(codes) - SHINGLE, 0) + 1, dtype=np.uint64)
    for start in range(min(SHINGLE, len(codes))):
        hashes = hashes * HASH_FACTOR + codes[start : start + len(hashes)]
    return np.unique(hashes)


def _rarest(pieces: np.ndarray, frequency: np.ndarray) -> list[int]:
    """The pieces of which a text that nearly repeats this one has at least one."""
    shared = int(np.ceil(NEAR * len(pieces) - 1e-9))  # 0.8 · 15 is a little above 12
    count = len(pieces) - shared + 1
    found: list[int] = pieces[np.lexsort((pieces, frequency))[:count]].tolist()
    return found


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)
