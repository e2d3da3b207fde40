"""Scaled dot-product attention with DynaProp in one Triton kernel each way."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.dynaprop import DynaProp, below

LONGEST = 128
"""Longest sequence: all scores of a head are in registers at once."""


class Limits(NamedTuple):
    """Largest magnitudes that are pruned; negative where nothing is."""

    probability: float
    context: float
    score_gradient: float
    context_gradient: float


@triton.jit
def _probabilities(  # type: ignore[no-untyped-def]
    query, key, valid, row, length, scale, TYPE: tl.constexpr
):
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
    scores = tl.where(valid[None, :], scores, -1e30)  # all alike where no key is real
    scores = tl.where(row[None, :] < length, scores, -float("inf"))
    exponentials = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    return (exponentials / tl.sum(exponentials, axis=1)[:, None]).to(TYPE)


@triton.jit
def _prune(values, largest_pruned, compared):  # type: ignore[no-untyped-def]
    return tl.where((tl.abs(values.to(tl.float32)) <= largest_pruned) & compared, 0.0, values).to(
        values.dtype
    )


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    query, key, value, valid, context, heads, length, scale, probability_limit, context_limit,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)
    width = tl.arange(0, WIDTH)
    inside = (row[:, None] < length) & (width[None, :] < SIZE)
    at = program // heads * length + row
    place = (at[:, None] * heads + program % heads) * SIZE + width[None, :]
    real = tl.load(valid + at, mask=row < length, other=0) != 0
    q = tl.load(query + place, mask=inside, other=0.0)
    k = tl.load(key + place, mask=inside, other=0.0)
    v = tl.load(value + place, mask=inside, other=0.0)
    p = _probabilities(q, k, real, row, length, scale, q.dtype)
    p = _prune(p, probability_limit, real[:, None] & real[None, :])
    c = tl.dot(p, v, input_precision="ieee").to(q.dtype)
    tl.store(context + place, _prune(c, context_limit, real[:, None]), mask=inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    query, key, value, valid, context, gradient, query_gradient, key_gradient, value_gradient,
    heads, length, scale, probability_limit, context_limit, score_gradient_limit,
    context_gradient_limit,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)
    width = tl.arange(0, WIDTH)
    inside = (row[:, None] < length) & (width[None, :] < SIZE)
    at = program // heads * length + row
    place = (at[:, None] * heads + program % heads) * SIZE + width[None, :]
    real = tl.load(valid + at, mask=row < length, other=0) != 0
    entries = real[:, None] & real[None, :]
    q = tl.load(query + place, mask=inside, other=0.0)
    k = tl.load(key + place, mask=inside, other=0.0)
    v = tl.load(value + place, mask=inside, other=0.0)
    c = tl.load(context + place, mask=inside, other=0.0)
    g = tl.load(gradient + place, mask=inside, other=0.0)
    # What was pruned is 0 in the context, hence below its limit; what was kept is above.
    pruned = (tl.abs(c.to(tl.float32)) <= context_limit) & real[:, None]
    g = _prune(tl.where(pruned, 0.0, g).to(q.dtype), context_gradient_limit, real[:, None])
    p = _probabilities(q, k, real, row, length, scale, q.dtype)
    kept = _prune(p, probability_limit, entries)
    tl.store(
        value_gradient + place,
        tl.dot(tl.trans(kept), g, input_precision="ieee").to(q.dtype),
        mask=inside,
    )
    dp = tl.dot(g, tl.trans(v), input_precision="ieee")
    dp = tl.where((p.to(tl.float32) <= probability_limit) & entries, 0.0, dp)
    p = p.to(tl.float32)
    ds = (p * (dp - tl.sum(dp * p, axis=1)[:, None])).to(q.dtype)
    ds = tl.where(real[None, :], ds, 0.0).to(q.dtype)  # a masked score passes nothing
    ds = _prune(ds, score_gradient_limit, entries)
    dq = tl.dot(ds, k, input_precision="ieee") * scale
    dk = tl.dot(tl.trans(ds), q, input_precision="ieee") * scale
    tl.store(query_gradient + place, dq.to(q.dtype), mask=inside)
    tl.store(key_gradient + place, dk.to(q.dtype), mask=inside)


class _Attention(torch.autograd.Function):
    """Context of heads, which alone is saved beside the operands; probabilities are made again."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, valid_mask: Tensor, limits: Limits
    ) -> Tensor:
        context = torch.empty_like(query)
        batch, length, heads, size = query.shape
        _forward[(batch * heads,)](
            query, key, value, valid_mask, context, heads, length, size**-0.5,
            limits.probability, limits.context, **_shape(length, size),
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, valid_mask, context)
        ctx.limits = limits
        return context

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, valid_mask, context = ctx.saved_tensors
        batch, length, heads, size = query.shape
        made = tuple(torch.empty_like(query) for _ in range(3))
        limits = ctx.limits
        _backward[(batch * heads,)](
            query, key, value, valid_mask, context, gradient.contiguous(), *made, heads, length,
            size**-0.5, limits.probability, limits.context, limits.score_gradient,
            limits.context_gradient, **_shape(length, size),
        )  # fmt: skip
        return *made, None, None


def _shape(length: int, size: int) -> dict[str, int]:
    rows = max(16, 1 << (length - 1).bit_length())  # what tl.dot takes
    return {
        "ROWS": rows,
        "WIDTH": max(16, 1 << (size - 1).bit_length()),
        "SIZE": size,
        "num_warps": 8 if rows > 64 else 4,
    }


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid_mask: Tensor,
    pruner: DynaProp,
    layer: int | None,
) -> Tensor:
    """Context of every head, pruned as FlexiBERT's attention prunes it, without dropout.

    Scores and softmax are in float32; probabilities and the scores' gradient are rounded to the
    operands' type before they are compared.

    Parameters
    ----------
    query, key, value : [batch, heads, sequence, head_size], pruned, of one type
    valid_mask : bool [batch, sequence], the real positions
    pruner, layer : whose thresholds; no recorder sees the tensors in between

    Returns
    -------
    tensor of the operands' shape

    Raises
    ------
    ValueError
        If the sequence is longer than LONGEST, or the policy prunes scores.
    """
    if query.shape[2] > LONGEST:
        raise ValueError(f"sequences must be at most {LONGEST} long, not {query.shape[2]}")
    policy = pruner.policy
    if policy.activation(layer, "score") != 0:
        raise ValueError(
            "scores must not be pruned in fused attention: put score into activations_off"
        )
    thresholds = (
        policy.activation(layer, "attention_softmax"),
        policy.activation(layer, "context"),
        policy.gradient(layer, "score") * pruner.gradient_scale,
        policy.gradient(layer, "context") * pruner.gradient_scale,
    )
    limits = Limits(*(below(t, query.dtype) if t > 0 else -1.0 for t in thresholds))
    # [batch, sequence, heads, head_size] is what products write and read: no copy.
    operands = (item.transpose(1, 2).contiguous() for item in (query, key, value))
    return _Attention.apply(*operands, valid_mask.contiguous(), limits).transpose(1, 2)
