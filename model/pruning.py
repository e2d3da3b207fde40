"""Pruning of one tensor, forward and backward."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from model.top_k import TopK, keep_top_k

Rule: TypeAlias = "float | TopK | Tensor"
"""How a tensor is pruned: by a threshold (in a compiled graph a scalar tensor), or by top-k."""

Measure = Callable[[Tensor, "Tensor | None"], Rule]
"""Finds a tensor's rule when its values (and valid_mask) are there."""


@cache
def below(threshold: float, dtype: torch.dtype) -> float:
    """Largest number that a threshold prunes, so that |x| ≥ threshold is |x| > it.

    The threshold is first rounded to the type of the values, as in any comparison of a tensor with
    a number.
    """
    rounded = torch.tensor(threshold, dtype=dtype)
    return float(torch.nextafter(rounded, torch.tensor(-math.inf, dtype=dtype)))


def prune(values: Tensor, threshold: float | Tensor, valid_mask: Tensor | None = None) -> Tensor:
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
    if not isinstance(threshold, Tensor) and threshold == 0:
        return values
    return _Prune.apply(values, limit(threshold, values), valid_mask)


def limit(threshold: float | Tensor, values: Tensor) -> float | Tensor:
    """What values are compared with: the largest number that is pruned.

    While a graph is compiled it is the threshold itself, as a tensor: a threshold that changes is
    an input of the graph then, where a number would be part of it and compile it anew. It is
    rounded where it is compared, which costs no kernel of its own; a kernel that computes in
    float32 what is stored in bf16 may leave that out, and prunes what equals a threshold that was
    rounded down.
    """
    if isinstance(threshold, Tensor):
        return threshold
    if torch.compiler.is_compiling():
        return torch.ones((), dtype=values.dtype, device=values.device) * threshold
    return below(threshold, values.dtype)


def apply_rule(
    values: Tensor, rule: Rule | Measure, valid_mask: Tensor | None, scale: float = 1.0
) -> Tensor:
    """Prune by a threshold, which is multiplied by `scale`, or by top-k."""
    if callable(rule):
        rule = rule(values, valid_mask)
    if isinstance(rule, TopK):
        return keep_top_k(values, rule, valid_mask)
    # A product with 1 would be a kernel of its own in a compiled graph.
    return prune(values, rule if scale == 1 else rule * scale, valid_mask)


def prune_gradient(
    values: Tensor,
    rule: Rule | Measure,
    scale: float,
    valid_mask: Tensor | None,
    note: Callable[[Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Return the values as they are, and prune the gradient that comes back through them.

    Parameters
    ----------
    values : floating-point tensor of any shape
    rule, scale, valid_mask : as of `apply_rule`, for the gradient
    note : called with the gradient, unpruned and pruned
    """
    return _PruneGradient.apply(values, rule, scale, valid_mask, note)


def _choose(valid_mask: Tensor, values: Tensor, otherwise: Tensor) -> Tensor:
    """torch.where for finite numbers, ten times faster on a CPU where the mask broadcasts.

    It writes into `values`, which must be new, unless a gradient is to flow through.
    """
    weight = valid_mask.to(values.dtype)  # lerp is exact at weights 0 and 1
    if torch.is_grad_enabled():
        return torch.lerp(otherwise, values, weight)
    return torch.lerp(otherwise, values, weight, out=values)


class _Prune(torch.autograd.Function):
    """hardshrink whose backward pass reads its result, which the next product keeps anyway."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, limit: float | Tensor, valid_mask: Tensor | None
    ) -> Tensor:
        if isinstance(limit, Tensor):
            dropped = values.abs() < limit.to(values.dtype)
            if valid_mask is not None:
                dropped = dropped & valid_mask
            # Kept, and not found again from the result: the compiler would do that for all layers
            # in one kernel at the end of the forward pass, 7 % of a BERT-Base's step on an H100.
            ctx.save_for_backward(dropped)
            ctx.limit = limit
            return torch.where(dropped, 0, values)
        pruned = functional.hardshrink(values, limit)
        if valid_mask is not None:
            pruned = _choose(valid_mask, pruned, values)
        ctx.save_for_backward(pruned, valid_mask)
        ctx.limit = limit
        return pruned

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # What was pruned is 0 in the result, hence below the threshold; what was kept is above.
        if isinstance(ctx.limit, Tensor):
            (dropped,) = ctx.saved_tensors
            return torch.where(dropped, 0, gradient), None, None
        pruned, valid_mask = ctx.saved_tensors
        kept = torch.ops.aten.hardshrink_backward(gradient, pruned, ctx.limit)
        if valid_mask is not None:
            kept = _choose(valid_mask, kept, gradient)
        return kept, None, None


class _PruneGradient(torch.autograd.Function):
    """Identity whose backward pass prunes the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        rule: Rule | Measure,
        scale: float,
        valid_mask: Tensor | None,
        note: Any,
    ) -> Tensor:
        ctx.rule, ctx.scale, ctx.valid_mask, ctx.note = rule, scale, valid_mask, note
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        pruned = apply_rule(gradient, ctx.rule, ctx.valid_mask, ctx.scale)
        if ctx.note is not None:
            ctx.note(gradient, pruned)
        return pruned, None, None, None, None
