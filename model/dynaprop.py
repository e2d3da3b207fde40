"""DynaProp: pruning of activations and gradients by thresholds, in training and inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from model.policy import PruningPolicy


@cache
def below(threshold: float, dtype: torch.dtype) -> float:
    """Largest number that a threshold prunes, so that |x| ≥ threshold is |x| > it.

    The threshold is first rounded to the type of the values, as in any comparison of a tensor with
    a number.
    """
    rounded = torch.tensor(threshold, dtype=dtype)
    return float(torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype)))


def prune(values: Tensor, threshold: float, valid_mask: Tensor | None = None) -> Tensor:
    """Make zero what is smaller in magnitude than the threshold; what equals it stays.

    Parameters
    ----------
    values : floating-point tensor of any shape
    threshold : at least 0; 0 changes nothing
    valid_mask : bool, broadcasts with `values`; entries that are False are not compared

    Returns
    -------
    tensor of the same shape. Its gradient is 0 where a value was pruned and passes elsewhere.
    """
    if threshold == 0:
        return values
    return _Prune.apply(values, below(threshold, values.dtype), valid_mask)


def _choose(valid_mask: Tensor, values: Tensor, otherwise: Tensor) -> Tensor:
    """torch.where for finite numbers, ten times faster on a CPU where the mask broadcasts."""
    return torch.lerp(otherwise, values, valid_mask.to(values.dtype))  # exact at weights 0 and 1


class _Prune(torch.autograd.Function):
    """hardshrink whose backward pass reads its result, which the next product keeps anyway."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, largest_pruned: float, valid_mask: Tensor | None
    ) -> Tensor:
        pruned = functional.hardshrink(values, largest_pruned)
        if valid_mask is not None:
            pruned = _choose(valid_mask, pruned, values)
        ctx.save_for_backward(pruned, valid_mask)
        ctx.largest_pruned = largest_pruned
        return pruned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        pruned, valid_mask = ctx.saved_tensors
        # What was pruned is 0 in the result, hence below the threshold; what was kept is above.
        kept = torch.ops.aten.hardshrink_backward(gradient, pruned, ctx.largest_pruned)
        if valid_mask is not None:
            kept = _choose(valid_mask, kept, gradient)
        return kept, None, None


class _PruneGradient(torch.autograd.Function):
    """Identity whose backward pass prunes the gradient."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, threshold: float, valid_mask: Tensor | None, note: Any
    ) -> Tensor:
        ctx.threshold, ctx.valid_mask, ctx.note = threshold, valid_mask, note
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        pruned = prune(gradient, ctx.threshold, ctx.valid_mask)
        if ctx.note is not None:
            ctx.note(gradient, pruned)
        return pruned, None, None, None


def tensor_name(layer: int | None, operation: str) -> str:
    """Name of what an operation writes, as in model.space.operations."""
    return operation if layer is None else f"{layer}.{operation}"


class Pass(Protocol):
    """What a recorder keeps of one forward pass and its backward pass."""

    def note_activation(
        self,
        before: Tensor,
        after: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
    ) -> None:
        """Look at a tensor that is stored, unpruned and pruned."""

    def note_operand(self, values: Tensor, layer: int | None, operation: str) -> None:
        """Look at the input of a product that reads part of a stored tensor."""

    def note_product(
        self, result: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None
    ) -> None:
        """Look at the result of a product, before its non-linearity."""

    def gradient_note(
        self, layer: int | None, operation: str, valid_mask: Tensor | None
    ) -> Callable[[Tensor, Tensor], None] | None:
        """Return what to call with the gradient that enters a product, unpruned and pruned."""


class Recorder(Protocol):
    """Looks on while a model runs."""

    def start(self, valid_mask: Tensor) -> Pass:
        """Begin a pass over sequences whose real positions are given, [batch, sequence]."""


class DynaProp:
    """Applies a policy at the places of a model, and lets a recorder look on.

    Parameters
    ----------
    policy : thresholds

    Attributes
    ----------
    gradient_scale : what the gradient is larger by than that of the mean loss over the global
        batch; τ_T is multiplied by it. The product of the loss scale and, under data parallelism
        that averages gradients, the number of processes; accumulation that divides the loss by its
        steps needs none, one that does not multiplies by them.
    recorder : looks on while it is set
    rounding : where it is set, called with what is about to be stored and its name, and with a
        product's result and that name + ".rounded"; what it returns takes their place
    """

    def __init__(self, policy: PruningPolicy) -> None:
        self.policy = policy
        self.gradient_scale = 1.0
        self.recorder: Recorder | None = None
        self.rounding: Callable[[Tensor, str], Tensor] | None = None
        self._pass: Pass | None = None

    def start(self, valid_mask: Tensor) -> None:
        """Begin a forward pass over sequences whose real positions are given, [batch, sequence]."""
        self._pass = None if self.recorder is None else self.recorder.start(valid_mask)

    def store(
        self, values: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None
    ) -> Tensor:
        """Prune an operation's result as it is written.

        Parameters
        ----------
        values : [batch, positions, width] or, in attention, [batch, heads, positions, width]
        layer, operation : the place
        valid_mask : bool, broadcasts with `values`
        """
        values = self._rounded(values, layer, operation)
        pruned = prune(values, self.policy.activation(layer, operation), valid_mask)
        if self._pass is not None:
            self._pass.note_activation(values, pruned, layer, operation, valid_mask)
        return pruned

    def product(
        self, result: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None
    ) -> Tensor:
        """Prune the gradient that enters a product, once, before all that reads it.

        Parameters
        ----------
        result : what the product gave, bias included, in the shape of `store`
        layer, operation : the place
        valid_mask : bool, broadcasts with `result`
        """
        threshold = self.policy.gradient(layer, operation) * self.gradient_scale
        note = None
        if self._pass is not None:
            self._pass.note_product(result, layer, operation, valid_mask)
            note = self._pass.gradient_note(layer, operation, valid_mask)
        if (threshold != 0 or note is not None) and result.requires_grad:
            result = _PruneGradient.apply(result, threshold, valid_mask, note)
        return self._rounded(result, layer, f"{operation}.rounded")

    def _rounded(self, values: Tensor, layer: int | None, operation: str) -> Tensor:
        if self.rounding is None:
            return values
        return self.rounding(values, tensor_name(layer, operation))

    def read(self, values: Tensor, layer: int | None, operation: str) -> Tensor:
        """Tell the recorder of a product whose input is part of a stored tensor; all of it real."""
        if self._pass is not None:
            self._pass.note_operand(values, layer, operation)
        return values
