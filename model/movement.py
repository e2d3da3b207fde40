"""Movement pruning of weights (Sanh, Wolf & Rush 2020), and pruning of parameters' gradients.

A weight's score gathers −w · ∂L/∂w: it rises where training moves the weight away from zero. The
share of each matrix that has the highest scores is kept, by a cubic schedule; the others are zero
in every product. They are not lost: under the mask they keep their value and gather a score, which
may bring them back, as in the paper's straight-through estimator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from model.policy import MovementSchedule
from model.top_k import largest

DENSE, SCORES = "movement_dense", "movement_scores"
"""Entries of the optimiser's state: it saves them with its own, so that a training resumes."""


class MovementPruning:
    """Prunes weights between the backward pass and the next forward pass.

    Between steps a parameter holds its masked values, which is what is computed with and saved.
    Around the optimiser's step it holds the dense ones, and its gradient is that of what is kept.

    Parameters
    ----------
    weights : parameters, each pruned for itself; all in the optimiser
    schedule : density by step
    optimizer : whose `state` holds scores and dense values; it must fill its own in its first step
    """

    def __init__(
        self, weights: Iterable[Tensor], schedule: MovementSchedule, optimizer: Any
    ) -> None:
        self.weights = list(weights)
        self.schedule = schedule
        self.optimizer = optimizer
        self._first: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def before_optimizer(self) -> None:
        """Gather scores, and give the optimiser dense weights with the kept ones' gradients.

        Gradients that are not finite, which a loss scaler lets the optimiser skip, are not counted.
        """
        for weight in self.weights:
            if weight.grad is None:
                continue
            state = self.optimizer.state.get(weight, {})
            dense = state.get(DENSE, weight)
            change = (weight.grad * dense).nan_to_num(0.0, 0.0, 0.0)
            if SCORES in state:
                state[SCORES] -= change
                weight.grad *= weight == dense  # what is zero under the mask and without may move
                weight.copy_(dense)
            else:  # the optimiser's state of this weight is still empty, and has to stay so
                self._first[weight] = -change

    @torch.no_grad()
    def after_optimizer(self, steps: int, skipped: bool = False) -> None:
        """Keep the dense weights and mask what stands in their place.

        Parameters
        ----------
        steps : optimiser steps that have been done
        skipped : whether a loss scaler has skipped the last one
        """
        density = self.schedule.at(steps)
        for weight in self.weights:
            started = SCORES in self.optimizer.state.get(weight, {})
            if weight.grad is None or (skipped and not started):
                continue
            state = self.optimizer.state[weight]
            if not started:
                state[SCORES] = self._first.pop(weight)
            if density == 1:
                continue
            state[DENSE] = weight.detach().clone()
            count = torch.tensor([round(density * weight.numel())], device=weight.device)
            weight *= largest(state[SCORES].reshape(1, -1), count).reshape(weight.shape)


@torch.no_grad()
def prune_gradients(parameters: Iterable[Tensor], threshold: float) -> None:
    """Make zero the entries of parameters' gradients below a threshold, in place.

    The variant of the published code: after clipping, before the optimiser. Entries that equal the
    threshold stay; of sparse gradients the values are compared.
    """
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if gradient.is_sparse:
            parameter.grad = gradient = gradient.coalesce()
            gradient = gradient.values()
        gradient *= gradient.abs() >= threshold
