"""The teacher: fine-tuned once, cached, taken up after a kill."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny import same, tiny_pairs, tiny_task

from model import loop, teacher
from model.data import Split
from model.loop import Progress
from model.teacher import TeacherRecipe, fine_tuned_teacher, predict

TASK = tiny_task()
RECIPE = TeacherRecipe(epochs=3, batch_size=8, learning_rate=5e-3)


def small_bert(labels: int, seed: int) -> transformers.BertForSequenceClassification:
    config = transformers.BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, num_labels=labels, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.BertForSequenceClassification(config)


@pytest.fixture(autouse=True)
def _small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "pretrained_classifier", small_bert)


def loaded(path: Path) -> transformers.BertForSequenceClassification:
    return transformers.BertForSequenceClassification.from_pretrained(path)


def test_a_teacher_is_trained_once_and_its_logits_are_kept(cache: Path) -> None:
    seen: list[Progress] = []
    first = fine_tuned_teacher(TASK, RECIPE, seen.append)
    assert first.validation_accuracy > 0.9 and first.validation_n == 36
    assert first.path.parent == cache and seen[-1].fraction == 1.0
    trained = len(seen)
    assert fine_tuned_teacher(TASK, RECIPE, seen.append) == first and len(seen) == trained
    logits = first.logits(TASK, seen.append)
    assert logits.shape == (168, 2) and logits.dtype == np.float32
    assert (logits.argmax(1) == TASK.train.labels).mean() > 0.9
    asked = len(seen)
    np.testing.assert_array_equal(first.logits(TASK, seen.append), logits)
    assert len(seen) == asked > trained
    np.testing.assert_array_equal(predict(loaded(first.path), TASK.train, 32), logits)


def test_another_recipe_or_task_is_another_teacher() -> None:
    short = TeacherRecipe(epochs=0.2, batch_size=8)
    keys = {
        fine_tuned_teacher(TASK, short).key,
        fine_tuned_teacher(TASK, TeacherRecipe(epochs=0.2, batch_size=8, seed=1)).key,
        fine_tuned_teacher(tiny_task(200), short).key,
    }
    assert len(keys) == 3


def test_a_teacher_knows_what_its_intermediate_task_taught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, few = tiny_task(2400), tiny_task(30)
    held_out = (*few.validation.texts, few._test.texts[0].upper())
    texts = (*first.train.texts[len(held_out) :], *held_out)
    leaking = replace(first, train=Split("train", texts, first.train.labels))
    named = {"larger": first, "leaking": leaking, "pairs": tiny_pairs()}
    monkeypatch.setattr(teacher, "load_task", named.get)
    short = TeacherRecipe(epochs=1, batch_size=8, learning_rate=5e-3)
    alone = fine_tuned_teacher(few, short)
    seen: list[Progress] = []
    taught = fine_tuned_teacher(few, replace(short, intermediate_task="larger"), seen.append)
    share = [
        (predict(made.load(), first.validation, 32).argmax(1) == first.validation.labels).mean()
        for made in (alone, taught)
    ]
    assert share[0] < 0.8 and share[1] > 0.95
    assert len(seen) == 210 + 3 and taught.key != alone.key  # steps of the one and of the other
    assert fine_tuned_teacher(first, short, seen.append) and len(seen) == 210 + 3  # is kept
    about = json.loads((taught.path / "teacher.json").read_text())
    assert about["task"]["split_hash"] == few.split_hash
    assert about["intermediate"] == first.describe()
    with pytest.raises(ValueError, match="must have the labels of tiny, bad, good; pairs has same"):
        fine_tuned_teacher(few, replace(short, intermediate_task="pairs"))
    with pytest.raises(ValueError, match=f"tested on; {len(held_out)} training texts of tiny do"):
        fine_tuned_teacher(few, replace(short, intermediate_task="leaking"))


def test_an_interrupted_fine_tuning_ends_as_if_it_had_not_been(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = fine_tuned_teacher(TASK, RECIPE)
    monkeypatch.setenv("TRANSCODE_CACHE", str(tmp_path / "other"))
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    def stop(now: Progress) -> None:
        if now.step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fine_tuned_teacher(TASK, RECIPE, stop)
    steps: list[int] = []
    resumed = fine_tuned_teacher(TASK, RECIPE, lambda now: steps.append(now.step))
    assert steps[0] == 31
    assert same(loaded(resumed.path), loaded(whole.path))
    assert not (resumed.path / "checkpoint.safetensors").exists()
    about = json.loads((resumed.path / "teacher.json").read_text())
    assert about["task"]["split_hash"] == TASK.split_hash


def test_predictions_come_in_the_order_of_the_texts() -> None:
    model = small_bert(2, 0)
    whole = predict(model, TASK.validation, 32)
    order = np.arange(len(TASK.validation))[::-1]
    split = type(TASK.validation)(
        "validation", tuple(TASK.validation.texts[i] for i in order), TASK.validation.labels[order]
    )
    np.testing.assert_allclose(predict(model, split, 32)[::-1], whole, atol=1e-5)
    assert model.training  # as it was


@pytest.mark.slow
def test_the_pretrained_model_loads_in_single_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = teacher.pretrained_classifier(2, 0)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.hidden_size == 384 and model.config.num_hidden_layers == 6
