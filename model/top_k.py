"""Top-k pruning, what DynaProp is compared with: the largest of each row or tensor are kept.

It needs a selection at run time where a threshold needs one comparison. SpAtten (Wang et al. 2021)
and the published comparison keep a number k; here k is the target density's share of the real
entries, so that both methods aim at the same sparsity.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor


class TopK(NamedTuple):
    """How much to keep of what.

    Attributes
    ----------
    density : share of the real entries to keep, above 0, at most 1; k is rounded to the nearest
        integer, halves to the even one
    per : "row", the last axis, or "tensor", everything in the pass
    """

    density: float
    per: Literal["row", "tensor"]


def largest(keys: Tensor, counts: Tensor) -> Tensor:
    """Mark the largest entries of each row; of equal ones the first are kept.

    Parameters
    ----------
    keys : [..., n], without NaN
    counts : int64 [...], how many to mark, 0 to n

    Returns
    -------
    bool of the shape of `keys`, exactly counts[...] True in each row
    """
    most = max(int(counts.max()), 1)
    top = keys.topk(most, dim=-1).values
    least = top.gather(-1, (counts - 1).clamp(min=0).unsqueeze(-1))
    above = keys > least
    equal = keys == least
    missing = counts.unsqueeze(-1) - above.sum(-1, keepdim=True)
    return (above & (counts > 0).unsqueeze(-1)) | (equal & (equal.cumsum(-1) <= missing))


def top_k_mask(values: Tensor, rule: TopK, valid_mask: Tensor | None = None) -> Tensor:
    """Where a tensor's entries are kept.

    Parameters
    ----------
    values : floating-point tensor of any shape
    rule : how much of what
    valid_mask : bool, broadcasts with `values`; entries that are False are neither compared nor
        counted, and kept

    Returns
    -------
    bool of the shape of `values`
    """
    keys = values.detach().abs()
    valid = None if valid_mask is None else valid_mask.expand(values.shape)
    if rule.per == "tensor":
        keys = keys.reshape(-1)
        valid = None if valid is None else valid.reshape(-1)
    if valid is None:
        real = torch.full(keys.shape[:-1], keys.shape[-1], device=keys.device)
    else:
        keys = keys.masked_fill(~valid, -1.0)
        real = valid.sum(-1)
    counts = (real * rule.density).round().to(torch.int64)
    kept = largest(keys, counts)
    if valid is not None:
        kept = kept | ~valid
    return kept.reshape(values.shape)


class _KeepTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rule: TopK, valid_mask: Tensor | None) -> Tensor:
        kept = top_k_mask(values, rule, valid_mask)
        ctx.save_for_backward(kept)
        return values * kept

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return gradient * kept, None, None


def keep_top_k(values: Tensor, rule: TopK, valid_mask: Tensor | None = None) -> Tensor:
    """Make zero what `top_k_mask` does not keep; no gradient passes there.

    Parameters
    ----------
    values, rule, valid_mask : as of `top_k_mask`
    """
    if rule.density == 1:
        return values
    pruned: Tensor = _KeepTopK.apply(values, rule, valid_mask)
    return pruned
