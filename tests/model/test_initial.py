"""What a training starts from: projected embeddings, a BERT, an encoder that was pre-trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from test_train import POLICY, RECIPE, TASK, shorten, stopping
from tiny import SMALL, FakeTeacher, same

from model import initial, loop, teacher, train
from model.from_bert import from_bert
from model.initial import initial_encoder
from model.job import Job
from model.recipe import Recipe
from model.teacher import TeacherRecipe, fine_tuned_teacher


def save_bert(folder: Path, width: int = 16) -> Path:
    """A random BERT of SMALL's depth and heads."""
    config = transformers.BertConfig(
        hidden_size=width, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def test_a_bert_of_the_same_shape_is_taken_over_as_it_is(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    bert = transformers.BertModel.from_pretrained(folder).eval()
    encoder = initial_encoder(folder, SMALL).eval()
    ids = torch.randint(1000, 2000, (2, 9))
    with torch.no_grad():
        expected = bert(ids).last_hidden_state
        torch.testing.assert_close(encoder(ids).last_hidden_state, expected, rtol=0, atol=1e-5)


def test_a_bert_of_another_shape_is_projected(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert", width=32)
    encoder = initial_encoder(folder, SMALL, seed=4)
    assert same(encoder, from_bert(folder, SMALL, seed=4).encoder)
    assert encoder.embeddings.word.weight.shape == (30522, 16)


def test_minilm_is_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    monkeypatch.setattr(initial, "minilm_folder", lambda: folder)
    assert same(initial_encoder("minilm", SMALL), initial_encoder(folder, SMALL))


def test_what_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='holds no model to start from: .*name \'minilm\''):
        initial_encoder(tmp_path, SMALL)


def test_a_training_from_a_bert_has_its_weights_and_no_projected_embeddings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_bert(tmp_path / "bert")
    monkeypatch.setattr(initial, "projected_embeddings", None)  # asked for, it would fail
    steps = Recipe(epochs=0.05, batch_size=8, learning_rate=1e-12, distillation=0.0)
    made = train.train(SMALL, TASK, POLICY, steps, 1, tmp_path / "model", encoder=folder)
    started = initial_encoder(folder, SMALL, seed=1)
    assert made.inputs["encoder"] == started.weights_hash()
    for name, value in started.state_dict().items():
        torch.testing.assert_close(made.model.encoder.state_dict()[name], value, msg=name)


def small_bert(labels: int, seed: int) -> transformers.BertForSequenceClassification:
    config = transformers.BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=labels, initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.BertForSequenceClassification(config)


TAUGHT = Recipe(
    epochs=2, batch_size=8, learning_rate=5e-3, hidden_distillation=0.5, transfer_texts=24
)
SENTENCES = tuple(f"the ending number {number} is dull" for number in range(400, 424))


def taught(out: Path, **other: object) -> train.TrainedModel:
    return train.train(SMALL, TASK, POLICY, TAUGHT, 1, out, **other)  # type: ignore[arg-type]


def test_hidden_states_and_texts_without_labels_are_learned_and_resumed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "pretrained_classifier", small_bert)
    monkeypatch.setattr(train, "transfer_texts", lambda task, count: SENTENCES[:count])
    recipe = TeacherRecipe(epochs=2, batch_size=8, learning_rate=5e-3)
    monkeypatch.setattr(
        train, "fine_tuned_teacher", lambda task, *other: fine_tuned_teacher(task, recipe)
    )
    reference = taught(tmp_path / "reference")
    assert reference.steps == 2 * (168 + 24) // 8
    assert reference.validation_accuracy > 0.9
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        taught(tmp_path / "model", progress=stopping(25))
    assert same(taught(tmp_path / "model").model, reference.model)
    before = initial.initial_model(SMALL, POLICY, TASK, 0.0, seed=1)
    unlabelled = train.tokenize(SENTENCES, 32).ids
    only = sorted(set(unlabelled.ravel()) - set(train.tokenize(TASK.train.texts, 32).ids.ravel()))
    moved = reference.model.get_input_embeddings().weight - before.get_input_embeddings().weight
    assert only and bool((moved[only] != 0).any(1).all())  # tokens of those texts alone
    logits = fine_tuned_teacher(TASK, recipe).logits(TASK, further=SENTENCES)
    assert logits.shape == (168 + 24, 2)
    alone = fine_tuned_teacher(TASK, recipe).logits(TASK)
    np.testing.assert_allclose(logits[:168], alone, rtol=1e-4)  # sums of other batches round


def test_the_teacher_learns_the_intermediate_task_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[TeacherRecipe] = []

    def note(task: object, recipe: TeacherRecipe, *_: object) -> FakeTeacher:
        asked.append(recipe)
        return FakeTeacher()

    monkeypatch.setattr(train, "fine_tuned_teacher", note)
    recipe = Recipe(epochs=0.05, batch_size=8, intermediate_task="imdb")
    made = train.train(SMALL, TASK, POLICY, recipe, 1, tmp_path / "model")
    assert asked == [TeacherRecipe(intermediate_task="imdb")]
    assert made.recipe.intermediate_task == "imdb"
    card = (tmp_path / "model" / "README.md").read_text()
    assert "intermediate_task imdb" in card
    assert "| further texts | imdb (with labels, by the teacher): IMDB reviews" in card


def test_hidden_states_change_what_is_learned(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "pretrained_classifier", small_bert)
    short = TeacherRecipe(epochs=0.5, batch_size=8)
    monkeypatch.setattr(
        train, "fine_tuned_teacher", lambda task, *other: fine_tuned_teacher(task, short)
    )
    hidden = Recipe(epochs=0.2, batch_size=8, hidden_distillation=0.5)
    plain = Recipe(epochs=0.2, batch_size=8)
    made = [
        train.train(SMALL, TASK, POLICY, recipe, 1, tmp_path / name)
        for name, recipe in (("hidden", hidden), ("plain", plain))
    ]
    assert not same(made[0].model, made[1].model)


def test_the_device_is_part_of_what_a_training_is_known_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert "device" not in Job(SMALL, TASK, POLICY, RECIPE, 1, None).inputs
    assert Job(SMALL, TASK, POLICY, RECIPE, 1, None, device="cuda:1").inputs["device"] == "cuda:1"
    for device in ("cuda:2", "gpu"):
        with pytest.raises(ValueError, match=f"one of cpu, cuda:0, cuda:1, not '{device}'"):
            Job(SMALL, TASK, POLICY, RECIPE, 1, None, device=device)


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="device must be one of cpu, not 'cuda'"):
        Job(SMALL, TASK, POLICY, RECIPE, 1, None, device="cuda")
