"""Masked-language pre-training: the head, the masks, resuming, and training from what it made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tiny import SMALL, FakeTeacher, same, tiny_task
from torch.nn import functional

from model import initial, loop, pretraining, train
from model.flexibert import FlexiBertConfig, FlexiBertModel
from model.loop import Progress
from model.masked_language import FlexiBertForMaskedLM
from model.pretraining import (
    DenseOptimizer,
    PretrainedEncoder,
    PretrainingRecipe,
    masked_batch,
    masking,
    pieces,
    pretrain,
)
from model.recipe import Recipe
from model.space import TransformerDesign
from model.tokens import tokenizer

TASK = tiny_task()
RECIPE = PretrainingRecipe(
    task="tiny", epochs=4, batch_size=8, sequence_length=16, learning_rate=1e-2
)
STEPS = 4 * 21
TABLES = initial.projected_embeddings(16, np.ones(30522))


def shorten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pretraining, "load_task", lambda name, length: replace(TASK, name=name))
    patch.setattr(initial, "projected_embeddings", lambda *_: TABLES)
    patch.setattr(train, "fine_tuned_teacher", lambda *_, **__: FakeTeacher())


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> PretrainedEncoder:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return pretrain(SMALL, tmp_path_factory.mktemp("reference") / "encoder", RECIPE, seed=1)


def loaded(made: PretrainedEncoder) -> FlexiBertForMaskedLM:
    return transformers.AutoModelForMaskedLM.from_pretrained(made.path)


def test_it_learns_to_tell_masked_words(reference: PretrainedEncoder) -> None:
    assert reference.steps == STEPS and reference.seconds > 0
    assert 10.3 < reference.initial_loss < 10.7  # ln 30,522 = 10.33
    assert reference.loss < 4.0
    held_out = pieces(TASK.validation.texts, 16)
    words = int((held_out.lengths - 2).sum())
    assert 0.08 * words < reference.evaluated < 0.22 * words
    found, _ = pretraining.masked_loss(loaded(reference), held_out, masking(0.15), 1)
    assert found == pytest.approx(reference.loss, rel=1e-5)
    assert {p.name for p in reference.path.iterdir()} == {
        "inputs.json", "config.json", "model.safetensors", "pretraining.json", "README.md",
    }  # fmt: skip


def test_the_same_seed_gives_the_same_encoder_and_another_one_another(
    reference: PretrainedEncoder, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = pretrain(SMALL, tmp_path / "again", RECIPE, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert same(loaded(again), loaded(reference)) and again.loss == reference.loss
    other = pretrain(SMALL, tmp_path / "other", RECIPE, seed=2)
    assert not same(loaded(other), loaded(reference))


@pytest.mark.parametrize("at", [1, 50])
def test_an_interrupted_pretraining_ends_as_if_it_had_not_been(
    at: int, reference: PretrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)

    def stop(now: Progress) -> None:
        if now.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(SMALL, tmp_path / "encoder", RECIPE, 1, stop)
    steps: list[int] = []
    resumed = pretrain(
        SMALL, tmp_path / "encoder", RECIPE, 1, lambda now: steps.append(now.step)
    )
    assert steps == list(range(at + 1, STEPS + 1))
    assert same(loaded(resumed), loaded(reference))
    assert (resumed.initial_loss, resumed.loss) == (reference.initial_loss, reference.loss)


def test_a_finished_one_is_loaded_and_another_refused(
    reference: PretrainedEncoder, tmp_path: Path
) -> None:
    def progress(now: Progress) -> None:
        raise AssertionError("there is nothing to train")

    assert pretrain(SMALL, reference.path, RECIPE, 1, progress) == reference
    of_three = SMALL.model_copy(update={"labels": 3})
    assert pretrain(of_three, reference.path, RECIPE, 1, progress) == reference
    with pytest.raises(ValueError, match="holds a pre-training of another seed: 1, not 2"):
        pretrain(SMALL, reference.path, RECIPE, 2)
    with pytest.raises(ValueError, match="of another recipe"):
        pretrain(SMALL, reference.path, replace(RECIPE, masked=0.2), 1)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no pre-training; name another folder"):
        pretrain(SMALL, tmp_path, RECIPE, 1)


RUNG = Recipe(epochs=1, batch_size=8, learning_rate=5e-3).rung(0.2)


def test_a_training_starts_from_the_encoder(
    reference: PretrainedEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = {}

    def keep(*arguments: object, **keywords: object) -> object:
        started["encoder"] = {k: v.clone() for k, v in arguments[1].encoder.state_dict().items()}  # type: ignore[attr-defined]
        return original(*arguments, **keywords)

    original = train._loop
    monkeypatch.setattr(train, "_loop", keep)
    with_it = train.train(SMALL, TASK, None, RUNG, 1, tmp_path / "with", encoder=reference.path)
    pretrained = loaded(reference).encoder.state_dict()
    assert all(torch.equal(started["encoder"][name], pretrained[name]) for name in pretrained)
    without = train.train(SMALL, TASK, None, RUNG, 1, tmp_path / "without")
    assert not same(with_it.model, without.model)
    donor = FlexiBertModel.from_pretrained(reference.path)
    assert with_it.inputs["encoder"] == donor.weights_hash() and "encoder" not in without.inputs
    with pytest.raises(ValueError, match="holds a training of another encoder: None, not"):
        train.train(SMALL, TASK, None, RUNG, 1, without.path, encoder=reference.path)


def test_an_encoder_that_does_not_fit_is_refused(
    reference: PretrainedEncoder, tmp_path: Path
) -> None:
    wider = TransformerDesign.load(
        {"layers": [{"hidden": 24, "heads": ["sa_sdp"] * 2, "feed_forward": [32]}]}
    )
    with pytest.raises(ValueError, match="layers of the encoder to start from must be the design"):
        train.train(wider, TASK, None, RUNG, 1, tmp_path / "m", encoder=reference.path)
    with pytest.raises(ValueError, match="holds no model to start from: it has no model.safetens"):
        train.train(SMALL, TASK, None, RUNG, 1, tmp_path / "m", encoder=tmp_path)
    assert not (tmp_path / "m").exists()


def test_designs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for change, message in (
        ({"vocabulary": 100}, "vocabulary must be 30522, the tokenizer's, not 100"),
        ({"max_positions": 12}, "at least the recipe's sequence_length, 16, not 12"),
    ):
        with pytest.raises(ValueError, match=message):
            pretrain(SMALL.model_copy(update=change), tmp_path / "m", RECIPE)
    assert not (tmp_path / "m").exists()


def small_head() -> FlexiBertForMaskedLM:
    design = TransformerDesign.load(
        {
            "layers": [
                {"hidden": 8, "heads": ["sa_sdp"] * 2, "feed_forward": [12]},
                {"hidden": 12, "heads": ["sa_sdp"] * 2, "feed_forward": [12]},
            ],
            "vocabulary": 40,
            "max_positions": 10,
        }
    )
    torch.manual_seed(0)
    config = FlexiBertConfig.of(design, hidden_dropout=0.0, attention_dropout=0.0)
    return FlexiBertForMaskedLM(config).eval()


def test_a_words_logit_is_the_product_with_its_own_embedding() -> None:
    model = small_head()
    torch.nn.init.normal_(model.bias)
    ids = torch.tensor([[3, 5, 7, 9], [4, 6, 8, 2]])
    hidden = model.encoder(ids).last_hidden_state
    made = model.norm(functional.gelu(hidden @ model.transform.weight.T + model.transform.bias))
    words = model.encoder.embeddings.word.weight
    expected = torch.einsum("bsw,vw->bsv", made, words) + model.bias
    torch.testing.assert_close(model(ids).logits, expected)
    labels = torch.tensor([[-100, 5, -100, -100], [-100, -100, 11, 2]])
    asked = model(ids, labels=labels)
    chosen = expected[[0, 1, 1], [1, 2, 3]]
    torch.testing.assert_close(asked.logits, chosen)
    torch.testing.assert_close(
        asked.loss, functional.cross_entropy(chosen, torch.tensor([5, 11, 2]))
    )
    assert model(ids, labels=torch.full_like(ids, -100)).loss == 0
    assert len(model(ids, labels=labels, return_dict=False)) == 2


def test_the_head_is_saved_and_loaded(tmp_path: Path) -> None:
    model = small_head()
    model.save_pretrained(tmp_path)
    assert same(transformers.AutoModelForMaskedLM.from_pretrained(tmp_path), model)
    encoder = transformers.AutoModel.from_pretrained(tmp_path)
    assert same(encoder, model.encoder)


def test_pieces_hold_each_word_once_but_short_rests() -> None:
    text = " ".join(["film"] * 30)
    made = pieces([text, "good film", "a " * 14], 16)
    assert made.lengths.tolist() == [16, 16, 4, 16]  # of 30 words 2 are left out
    assert made.ids[0].tolist() == [101, *([2143] * 14), 102]
    assert pieces([text], 12).lengths.tolist() == [12, 12, 12]
    rest = pieces([" ".join(["film"] * 22)], 16)
    assert rest.lengths.tolist() == [16, 10]  # 8 words are enough


def test_words_are_masked_as_berts_are() -> None:
    tokens = pieces([" ".join(["film"] * 126)] * 80, 128)
    torch.manual_seed(0)
    batch = masked_batch(tokens, np.arange(80), masking(0.15))
    asked = batch["labels"] != -100
    total = 80 * 126
    assert asked.sum() == pytest.approx(0.15 * total, rel=0.1)
    assert (batch["labels"][asked] == 2143).all() and not asked[:, [0, 127]].any()
    given = batch["input_ids"]
    mask = tokenizer().token_to_id("[MASK]")
    assert (given[asked] == mask).float().mean() == pytest.approx(0.8, abs=0.05)
    assert (given[asked] == 2143).float().mean() == pytest.approx(0.1, abs=0.04)
    assert (given[~asked][:-1].unique()).tolist() == [101, 102, 2143]
    torch.manual_seed(0)
    assert torch.equal(masked_batch(tokens, np.arange(80), masking(0.15))["input_ids"], given)


def test_the_optimizer_is_adamw_with_clipping() -> None:
    ours, theirs = small_head(), small_head()
    mine = DenseOptimizer(ours, 0.01, 0.1, clip=0.5)
    decayed = [p for n, p in theirs.named_parameters() if p.ndim == 2 and "embedding" not in n]
    plain = [p for n, p in theirs.named_parameters() if p.ndim == 1 or "embedding" in n]
    reference = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], lr=0.01
    )
    ids = torch.tensor([[3, 5, 7, 9]])
    for factor in (1.0, 0.5):
        (ours(ids, labels=ids).loss * 3).backward()
        mine.step(factor)
        (theirs(ids, labels=ids).loss * 3).backward()
        gradients = [p.grad for p in theirs.parameters() if p.grad is not None]
        norm = torch.stack([g.norm() for g in gradients]).norm()
        assert norm > 0.5
        for gradient in gradients:
            gradient *= 0.5 / norm
        for group in reference.param_groups:
            group["lr"] = 0.01 * factor
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-6)
    (ours(ids, labels=ids).loss * float("nan")).backward()
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        mine.step(1.0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "epochs must be above 0, not 0"),
        ("batch_size", 0, "batch_size must be at least 1, not 0"),
        ("sequence_length", 9, "sequence_length must be at least 10, not 9"),
        ("weight_decay", -1, "weight_decay must be at least 0, not -1"),
        ("warmup", 1.5, "warmup must be between 0 and 1, not 1.5"),
        ("masked", 0, "masked must be between 0 and 1, not 0"),
    ],
)
def test_recipes_that_no_training_can_follow_are_refused(
    field: str, value: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainingRecipe(**{field: value})
