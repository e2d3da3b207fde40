"""The optimiser, against PyTorch's own on the rows that it touches; the loop's checkpoints."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model import loop
from model.loop import Loop, Optimizer
from model.recipe import Schedule


class Words(nn.Module):
    """An embedding of ten tokens and a layer over it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.word = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 3)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.word

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.word(ids).mean(1))


IDS = torch.tensor([[1, 2, 2], [5, 1, 7]])
ROWS = np.array([1, 2, 5, 7])


def step(model: nn.Module, scale: float = 1.0) -> None:
    (model(IDS).square().sum() * scale).backward()


def optimizer(model: nn.Module, clip: float = 1e9) -> Optimizer:
    return Optimizer(model, ROWS, learning_rate=0.01, weight_decay=0.1, clip=clip)


def test_where_every_step_uses_the_same_rows_it_is_adamw() -> None:
    ours, theirs = Words(), Words()
    mine = optimizer(ours)
    plain = [theirs.out.bias, theirs.word.weight]
    reference = torch.optim.AdamW(
        [{"params": plain, "weight_decay": 0.0}, {"params": [theirs.out.weight]}],
        lr=0.01, weight_decay=0.1,
    )  # fmt: skip
    for factor in (0.5, 1.0, 1.0, 0.3):
        step(ours)
        mine.step(factor)
        for group in reference.param_groups:
            group["lr"] = 0.01 * factor
        step(theirs)
        reference.step()
        reference.zero_grad()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_rows_that_a_batch_lacks_stay() -> None:
    model = Words()
    before = model.word.weight.detach().clone()
    mine = optimizer(model)
    step(model)
    mine.step(1.0)
    moved = (model.word.weight != before).any(1)
    assert moved.nonzero()[:, 0].tolist() == ROWS.tolist()


def test_the_norm_of_all_gradients_together_is_clipped() -> None:
    """Adam does not see a common factor, so its second moment is looked at."""
    model, clipped = Words(), Words()
    free, bound = optimizer(model), optimizer(clipped, clip=0.5)
    step(model)
    norm = torch.sqrt(
        model.word.weight.grad.coalesce().values().square().sum()
        + sum(p.grad.square().sum() for p in model.out.parameters())
    )
    free.step(1.0)
    step(clipped)
    bound.step(1.0)
    assert norm > 0.5
    scale = (0.5 / norm) ** 2
    torch.testing.assert_close(bound.moments[1], free.moments[1] * scale, rtol=1e-4, atol=0)
    for one, two in zip(free.adamw.state.values(), bound.adamw.state.values(), strict=True):
        torch.testing.assert_close(two["exp_avg_sq"], one["exp_avg_sq"] * scale, rtol=1e-4, atol=0)


def test_the_state_goes_into_tensors_and_back() -> None:
    one, two = Words(), Words()
    first = optimizer(one)
    for _ in range(3):
        step(one)
        first.step(1.0)
    second = optimizer(two)
    second.load({name: value.clone() for name, value in first.tensors().items()})
    for model, mine in ((one, first), (two, second)):
        step(model)
        mine.step(0.7)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])


def test_gradients_that_are_not_finite_are_an_error_and_change_nothing() -> None:
    model = Words()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mine = optimizer(model)
    step(model, float("inf"))
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        mine.step(1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def words_loop(folder: Path, device: str = "cpu") -> Loop:
    """Eight steps on the same two texts."""
    model = Words().to(device)
    return Loop(
        optimizer(model), Schedule(8, 0, 4), lambda _: [np.arange(2)] * 8,
        lambda rows: model(IDS[rows].to(device)).square().sum(), 0,
        folder / "checkpoint.safetensors", {"name": "whole"}, "training",
    )  # fmt: skip


@pytest.mark.parametrize("left", [0, 7, 0.02, 0.5, -1])
def test_a_checkpoint_that_was_cut_off_is_skipped(tmp_path: Path, left: float) -> None:
    """The training goes on at its trunk, or begins anew, and ends the same."""
    whole, trunk = words_loop(tmp_path), {"name": "trunk"}
    whole.run(3, checkpoints=False)
    whole.save(tmp_path / "trunk.safetensors", trunk)
    whole.run(6, checkpoints=False)
    whole.save(whole.checkpoint, whole.identity)
    whole.run(8, checkpoints=False)

    taken_up = words_loop(tmp_path)
    assert taken_up.restore(taken_up.checkpoint, taken_up.identity, at_most=8)
    assert taken_up.step == 6
    size = whole.checkpoint.stat().st_size
    bytes_left = int(size * left) if 0 < left < 1 else int(left) % size
    os.truncate(whole.checkpoint, bytes_left)
    for path, identity, first in (
        (tmp_path / "trunk.safetensors", trunk, 3),
        (tmp_path / "none.safetensors", trunk, 0),
    ):
        again = words_loop(tmp_path)
        assert not again.restore(again.checkpoint, again.identity, at_most=8)
        assert again.step == 0
        assert again.restore(path, identity, at_most=8) == (first > 0)
        assert again.step == first
        again.run(8, checkpoints=False)
        for name, value in whole.optimizer.tensors().items():
            assert torch.equal(value, again.optimizer.tensors()[name])


@pytest.mark.parametrize(("cost", "gap"), [(0.25, 15), (0.75, 15), (3.0, 60)])
def test_checkpoints_that_take_long_come_later(
    cost: float, gap: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second here, a checkpoint `cost`: at most a twentieth of the time."""
    clock, saves = [0.0], []

    def loss(rows: np.ndarray) -> Tensor:
        clock[0] += 1.0
        return made.optimizer.model(IDS[rows]).square().sum()

    def save(path: Path, identity: object) -> None:
        saves.append(made.step)
        clock[0] += cost

    made = words_loop(tmp_path)
    made.schedule, made.loss, made.save = Schedule(150, 0, 100), loss, save  # type: ignore[method-assign]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    made.run(150)
    assert saves[0] == 15 and {*np.diff(saves)} == {gap}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_training_on_a_gpu_is_taken_up(tmp_path: Path) -> None:
    first, second = words_loop(tmp_path, "cuda"), words_loop(tmp_path, "cuda")
    first.run(5, checkpoints=False)
    first.save(first.checkpoint, first.identity)
    assert second.restore(second.checkpoint, second.identity, at_most=8) and second.step == 5
    for made in (first, second):
        made.run(8, checkpoints=False)
    for name, value in first.optimizer.tensors().items():
        assert second.optimizer.tensors()[name].device == value.device, name
        assert torch.equal(second.optimizer.tensors()[name], value), name
