"""Data sets in the hub's format: GLUE's columns, labels and splits."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from model import data
from model.data import Task, load_task, open_test
from model.splits import normalised


def opened(task: Task, tmp_path: Path) -> data.Split:
    return open_test(task, tmp_path / "openings.json", "a test of the splits")


@pytest.fixture(autouse=True)
def _own_data_set_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_hidden_test_labels_make_the_validation_split_the_test_split(tmp_path: Path) -> None:
    folder = write_parquet(
        tmp_path / "sst2",
        train=sst2(200, hidden=False),
        validation=sst2(20, hidden=False, offset=190),
        test=sst2(30, hidden=True, offset=2000),
    )
    task = load_task(str(folder), sequence_length=32)
    assert task.sizes == {"train": 162, "validation": 28, "test": 20}
    assert task.sequence_length == 32 and task.label_names == ("0", "1")
    assert task.licence == "unstated"
    assert set(opened(task, tmp_path).texts) == set(sst2(20, hidden=False, offset=190)["sentence"])
    others = {*task.train.texts, *task.validation.texts}
    assert others == set(sst2(190, hidden=False)["sentence"])


def test_a_train_split_alone_is_cut_in_three(tmp_path: Path) -> None:
    folder = write_parquet(
        tmp_path / "alone", train=sst2(200, hidden=False), test=sst2(30, hidden=True, offset=2000)
    )
    assert load_task(str(folder)).sizes == {"train": 140, "validation": 30, "test": 30}


GLUE = {
    "cola": (("sentence",), ("unacceptable", "acceptable"), "validation"),
    "sst2": (("sentence",), ("negative", "positive"), "validation"),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent"), "test"),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate"), "validation"),
    "mnli": (
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        "validation_matched",
    ),
    "qnli": (("question", "sentence"), ("entailment", "not_entailment"), "validation"),
    "rte": (("sentence1", "sentence2"), ("entailment", "not_entailment"), "validation"),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment"), "validation"),
}
"""Columns, classes and labelled held-out split of each GLUE task of classes, as on the hub."""

SIZES = {"train": 120, "validation": 12, "test": 18}


@pytest.fixture(scope="module")
def glue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny copy of the repository: a README with configurations, one parquet file a split."""
    folder = tmp_path_factory.mktemp("hub") / "glue"
    listed = []
    for name, (columns, labels, _) in GLUE.items():
        listed.append(write_configuration(folder, name, columns, datasets.ClassLabel(names=labels)))
    score = datasets.Value("float32")
    listed.append(write_configuration(folder, "stsb", ("sentence1", "sentence2"), score))
    ax = write_configuration(folder, "ax", ("premise", "hypothesis"), datasets.Value("int64"))
    listed.append({**ax, "data_files": ax["data_files"][-1:]})
    header = yaml.safe_dump({"configs": listed})
    (folder / "README.md").write_text(f"---\n{header}---\n# GLUE\n")
    return folder


def write_configuration(
    folder: Path, name: str, columns: tuple[str, ...], label: object
) -> dict[str, Any]:
    """Parquet files with the columns and the features that the hub's have; the README's entry."""
    features = {column: datasets.Value("string") for column in columns}
    features |= {"label": label, "idx": datasets.Value("int32")}
    splits = ["train", "validation", "test"]
    if name == "mnli":
        held_out = ("validation_matched", "validation_mismatched")
        splits = ["train", *held_out, "test_matched", "test_mismatched"]
    labels = len(getattr(label, "names", [0, 1]))
    (folder / name).mkdir(parents=True, exist_ok=True)
    for split in splits:
        kind, _, rest = split.partition("_")
        hidden = kind == "test" and name != "mrpc"
        rows = {
            column: [f"{column} {n} of {kind} {rest}" for n in range(SIZES[kind])]
            for column in columns
        }
        rows["label"] = [-1 if hidden else n % labels for n in range(SIZES[kind])]
        rows["idx"] = list(range(SIZES[kind]))
        made = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
        made.to_parquet(folder / name / f"{split}-00000-of-00001.parquet")
    files = [{"split": split, "path": f"{name}/{split}-*"} for split in splits]
    return {"config_name": name, "data_files": files}


@pytest.mark.parametrize("name", GLUE)
def test_every_glue_task_of_classes_loads_from_a_copy(
    name: str, glue: Path, tmp_path: Path
) -> None:
    columns, labels, held_out = GLUE[name]
    task = load_task(str(glue / name))
    test = opened(task, tmp_path)
    kind, _, rest = held_out.partition("_")
    rows = range(SIZES[kind])
    wanted = [tuple(f"{column} {n} of {kind} {rest}" for column in columns) for n in rows]
    assert list(test.texts) == [text if len(text) == 2 else text[0] for text in wanted]
    assert test.labels.tolist() == [n % len(labels) for n in rows]
    assert task.label_names == labels
    assert task.sequence_length == (64 if len(columns) == 1 else 128)
    given = held_out == "test"  # MRPC's labels are all public
    assert task.sizes["validation"] == (12 if given else 18)
    assert task.sizes["train"] == (120 if given else 102)
    keys = [normalised(t) for s in (task.train, task.validation, test) for t in s.texts]
    assert len(set(keys)) == len(keys)


def test_glue_tasks_without_classes_or_training_texts_are_refused(glue: Path) -> None:
    with pytest.raises(ValueError, match="stsb has labels of type float32; a task needs classes"):
        load_task(str(glue / "stsb"))
    with pytest.raises(ValueError, match="ax has no train split with labels, but test"):
        load_task(str(glue / "ax"))


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
    words = write_parquet(tmp_path / "words", train={"text": ["a"], "label": ["good"]})
    with pytest.raises(ValueError, match="has labels of type string; a task needs classes"):
        load_task(str(words))
    empty = write_parquet(tmp_path / "tiny", train=sst2(4, hidden=False))
    with pytest.raises(ValueError, match="is too small: its test split would be empty"):
        load_task(str(empty))


def test_a_name_with_a_slash_is_a_data_set_and_its_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
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
