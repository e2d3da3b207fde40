"""Movement pruning against its definition with a mask and straight-through scores."""

import numpy as np
import pytest
import torch
from torch import nn

from model.movement import DENSE, SCORES, MovementPruning, prune_gradients
from model.policy import MovementSchedule

torch.set_num_threads(1)


def kept_by_sorting(scores: torch.Tensor, density: float) -> torch.Tensor:
    count = round(density * scores.numel())
    order = np.argsort(-scores.detach().numpy().reshape(-1), kind="stable")
    mask = np.zeros(scores.numel())
    mask[order[:count]] = 1
    return torch.from_numpy(mask).to(scores.dtype).reshape(scores.shape)


def test_the_schedule_is_cubic():
    schedule = MovementSchedule(density=0.2, start=10, steps=20)
    assert schedule.at(0) == schedule.at(10) == 1
    assert schedule.at(20) == pytest.approx(0.2 + 0.8 * 0.5**3)
    assert schedule.at(15) == pytest.approx(0.2 + 0.8 * 0.75**3)
    assert schedule.at(30) == schedule.at(500) == 0.2


def optimizers():
    return [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.02, weight_decay=0.1, fused=True),
    ]


@pytest.mark.parametrize("make", optimizers())
def test_it_is_a_mask_with_straight_through_scores(make):
    """Explicitly: W' = W ⊙ M, ∂L/∂W = ∂L/∂W' ⊙ M, S ← S − W ⊙ ∂L/∂W', M by the best S."""
    generator = torch.Generator().manual_seed(0)
    data = [torch.randn((8, 6), generator=generator, dtype=torch.float64) for _ in range(30)]
    goal = torch.randn((6, 4), generator=generator, dtype=torch.float64)
    start = torch.randn((4, 6), generator=generator, dtype=torch.float64)
    schedule = MovementSchedule(density=0.25, start=3, steps=15)

    weight = nn.Parameter(start.clone())
    optimizer = make([weight])
    pruning = MovementPruning([weight], schedule, optimizer)

    dense = nn.Parameter(start.clone())
    reference = make([dense])
    scores, mask = torch.zeros_like(start), torch.ones_like(start)
    came_back = 0
    for step, x in enumerate(data):
        optimizer.zero_grad()
        (x @ weight.T - x @ goal).square().mean().backward()
        pruning.before_optimizer()
        optimizer.step()
        pruning.after_optimizer(step + 1)

        masked = (dense.detach() * mask).requires_grad_()
        (x @ masked.T - x @ goal).square().mean().backward()
        scores -= dense.detach() * masked.grad
        dense.grad = masked.grad * mask
        reference.step()
        before, mask = mask, kept_by_sorting(scores, schedule.at(step + 1))
        came_back += int(((mask == 1) & (before == 0)).sum())
        torch.testing.assert_close(weight.detach(), dense.detach() * mask, rtol=0, atol=1e-14)
    assert came_back > 0  # what was pruned kept its value and its score
    assert (weight != 0).double().mean() == 0.25
    torch.testing.assert_close(optimizer.state[weight][DENSE], dense.detach())


def test_the_optimisers_state_takes_a_training_up_again():
    schedule = MovementSchedule(density=0.5, steps=4)
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn((5, 3), generator=generator) for _ in range(8)]

    def steps(weight, optimizer, begin, end):
        pruning = MovementPruning([weight], schedule, optimizer)
        for step in range(begin, end):
            optimizer.zero_grad()
            (data[step] @ weight).square().sum().backward()
            pruning.before_optimizer()
            optimizer.step()
            pruning.after_optimizer(step + 1)

    whole = nn.Parameter(torch.ones((3, 2)))
    optimizer = torch.optim.AdamW([whole], lr=0.1)
    steps(whole, optimizer, 0, 8)
    half = nn.Parameter(torch.ones((3, 2)))
    first = torch.optim.AdamW([half], lr=0.1)
    steps(half, first, 0, 4)
    resumed = nn.Parameter(half.detach().clone())
    second = torch.optim.AdamW([resumed], lr=0.1)
    second.load_state_dict(first.state_dict())
    steps(resumed, second, 4, 8)
    assert torch.equal(resumed, whole)
    assert torch.equal(second.state[resumed][SCORES], optimizer.state[whole][SCORES])


def test_a_step_that_a_loss_scaler_skips_counts_for_nothing():
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    pruning = MovementPruning([weight], MovementSchedule(density=0.5, steps=1), optimizer)
    weight.grad = torch.full((4,), float("inf"))
    pruning.before_optimizer()
    pruning.after_optimizer(1, skipped=True)
    assert weight.tolist() == [1, 2, 3, 4] and not optimizer.state
    weight.grad = torch.tensor([-1.0, -1.0, 1.0, -1.0])
    pruning.before_optimizer()
    optimizer.step()
    pruning.after_optimizer(1)
    scores = optimizer.state[weight][SCORES].clone()
    assert scores.tolist() == [1, 2, -3, 4] and (weight == 0).tolist() == [True, False, True, False]
    masked = weight.detach().clone()
    weight.grad = torch.full((4,), float("nan"))
    pruning.before_optimizer()
    pruning.after_optimizer(2, skipped=True)
    assert torch.equal(weight, masked) and torch.equal(optimizer.state[weight][SCORES], scores)


def test_parameters_gradients_are_pruned_where_they_are():
    dense, sparse, unused = (nn.Parameter(torch.zeros(4, 1)) for _ in range(3))
    values = torch.tensor([[0.5], [-0.2], [0.19], [0.0]])
    dense.grad = values.clone()
    places = torch.tensor([[2, 0, 2]])
    sparse.grad = torch.sparse_coo_tensor(places, torch.tensor([[0.15], [0.1], [0.1]]), (4, 1))
    prune_gradients([dense, sparse, unused], 0.2)
    assert dense.grad.flatten().tolist() == pytest.approx([0.5, -0.2, 0, 0])
    assert sparse.grad.to_dense().flatten().tolist() == [0, 0, 0.25, 0]
    assert unused.grad is None
