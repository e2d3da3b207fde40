"""What is learned from a teacher: answers, hidden states, texts without labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import tiny_pairs, tiny_task
from torch.nn import functional

from model import distillation
from model.data import load_task
from model.distillation import (
    UNLABELLED,
    alignment,
    distillation_loss,
    further_data,
    hidden_loss,
    transfer_texts,
)


def test_the_loss_of_answers_is_the_weighted_sum() -> None:
    logits = torch.tensor([[1.0, -1.0], [0.5, 2.0], [0.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, -3.0], [1.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, UNLABELLED])
    own = np.log(np.exp(logits.numpy() / 2) / np.exp(logits.numpy() / 2).sum(1, keepdims=True))
    his = np.log(np.exp(teacher.numpy() / 2) / np.exp(teacher.numpy() / 2).sum(1, keepdims=True))
    soft = (np.exp(his) * (his - own)).sum() / 3  # a mean over all texts
    plain = np.log(np.exp(logits.numpy()).sum(1)) - logits.numpy()[[0, 1, 2], [0, 1, 0]]
    expected = 0.9 * 4 * soft + 0.1 * plain[:2].mean()  # over those with a label
    found = distillation_loss(logits, labels, teacher, 0.9, 2.0)
    assert float(found) == pytest.approx(expected, rel=1e-12)
    alone = distillation_loss(logits[:2], labels[:2], None, 0.9, 2.0)
    assert float(alone) == pytest.approx(plain[:2].mean(), rel=1e-12)


def test_a_batch_without_labels_learns_from_the_answers_alone() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    teacher = torch.randn(4, 3)
    found = distillation_loss(logits, torch.full((4,), UNLABELLED), teacher, 0.5, 1.0)
    found.backward()
    soft = functional.kl_div(
        logits.log_softmax(-1), teacher.log_softmax(-1), log_target=True, reduction="batchmean"
    )
    assert float(found.detach()) == pytest.approx(0.5 * float(soft.detach()))
    assert torch.isfinite(logits.grad).all()


def test_alignment_is_kornbliths() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(50, 6, generator=generator, dtype=torch.float64) + 3
    two = torch.randn(50, 9, generator=generator, dtype=torch.float64)
    centring = torch.eye(50, dtype=torch.float64) - 1 / 50
    kernels = [centring @ x @ x.T @ centring for x in (one, two)]
    expected = (kernels[0] * kernels[1]).sum() / (kernels[0].norm() * kernels[1].norm())
    assert float(alignment(one, two)) == pytest.approx(float(expected), rel=1e-12)
    turned, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))
    assert float(alignment(one, 7 * one @ turned + 1)) == pytest.approx(1, rel=1e-12)
    assert float(alignment(one, torch.zeros(50, 2, dtype=torch.float64))) == 0


def test_hidden_states_are_compared_by_depth_and_only_where_texts_are() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = tuple(torch.randn(2, 5, 8, generator=generator) for _ in range(7))
    valid = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    own = [teacher[place].clone() for place in (0, 3, 6)]  # two layers of six
    for state in own:
        state[1, 3:] = 1e6  # padding
    assert float(hidden_loss(tuple(own), teacher, valid)) == pytest.approx(0, abs=1e-5)
    own[1] = teacher[2].clone()
    assert float(hidden_loss(tuple(own), teacher, valid)) > 0.1


def test_transfer_texts_are_sentences_of_another_source() -> None:
    task = load_task("movie-sentences")
    found = transfer_texts(task, 2000)
    assert len(set(found)) == 2000
    assert all(5 <= len(text.split()) <= 40 for text in found)
    assert transfer_texts(task, 500) == found[:500]
    reviews = load_task("imdb").train.texts[:200]
    known = {s for s in distillation._sentences() if any(s in str(text) for text in reviews[:5])}
    assert known  # they stand in the reviews as they are


def test_sentences_have_five_to_forty_words(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = (4, 5, 40, 41)
    sentences = [" ".join(["word"] * (count - 1)) + f" {count}." for count in lengths]
    split = SimpleNamespace(texts=[" ".join(sentences), "Is this one?  It is, and it is long!"])
    monkeypatch.setattr(distillation, "load_task", lambda name: SimpleNamespace(train=split))
    found = distillation._sentences.__wrapped__()
    assert set(found) == {sentences[1], sentences[2], "It is, and it is long!"}


def test_held_out_texts_are_no_transfer_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    task = tiny_task()
    held_out = (*task.validation.texts, *task._test.texts)
    shouted = tuple(str(text).upper() for text in held_out)
    monkeypatch.setattr(distillation, "_sentences", lambda: (*shouted, "a film of its own"))
    assert transfer_texts(task, 1) == ("a film of its own",)
    with pytest.raises(ValueError, match="transfer_texts must be at most 1, not 2"):
        transfer_texts(task, 2)
    with pytest.raises(ValueError, match="transfer_texts must be 0 for pairs, a task of pairs"):
        transfer_texts(tiny_pairs(), 1)
    assert transfer_texts(tiny_pairs(), 0) == ()


def test_further_data_is_named_with_its_licence() -> None:
    assert further_data(0, "") == []
    imdb = load_task("imdb")
    (both,) = further_data(2000, "imdb")
    assert both["use"] == "2,000 sentences, without labels; with labels, by the teacher"
    about = {"name": "imdb", "source": imdb.source, "licence": imdb.licence}
    assert both == {**about, "use": both["use"], "split_hash": imdb.split_hash}
    sentences, labelled = further_data(2000, "sms-spam")
    assert (sentences["name"], sentences["use"]) == ("imdb", "2,000 sentences, without labels")
    assert (labelled["name"], labelled["use"]) == ("sms-spam", "with labels, by the teacher")
