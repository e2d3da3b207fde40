"""Scaled dot-product attention with DynaProp in one Triton kernel each way."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.dynaprop import DynaProp
from model.operations import GemmRole

INTERPRETED = bool(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter, on a CPU."""
LONGEST = 128
"""Longest sequence: all scores of a head are in registers at once."""
FORWARD_WARPS, BACKWARD_WARPS = 4, 8
"""Of a program, which is a head of a text."""
PLACES = ("query", "key", "value", "attention_softmax", "context")
"""Activations that are pruned; their thresholds are the first of those that the kernels get."""
PRODUCTS = ("query", "key", "value", "score", "context")
"""Products whose entering gradient is pruned; their thresholds follow."""


@triton.jit
def _prune(values, threshold, compared):  # type: ignore[no-untyped-def]
    below = tl.abs(values.to(tl.float32)) < threshold
    return tl.where(below & compared, 0.0, values).to(values.dtype)


@triton.jit
def _probabilities(query, key, real, row, length, SCALE: tl.constexpr):  # type: ignore[no-untyped-def]
    scores = tl.dot(query, tl.trans(key), input_precision="ieee") * SCALE
    scores = tl.where(real[None, :], scores, -1e30)  # all alike where no key is real
    scores = tl.where(row[None, :] < length, scores, -float("inf"))
    exponentials = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    return (exponentials / tl.sum(exponentials, axis=1)[:, None]).to(query.dtype)


@triton.jit
def _places(heads, length, ROWS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows of a head, the texts' positions, where its entries lie, and which there are."""
    program = tl.program_id(0).to(tl.int64)
    row = tl.arange(0, ROWS)
    width = tl.arange(0, WIDTH)
    at = program // heads * length + row
    place = (at[:, None] * heads + program % heads) * SIZE + width[None, :]
    inside = (row[:, None] < length) & (width[None, :] < SIZE)
    return row, at, place, inside


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    query, key, value, valid, thresholds, context, heads, length,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    row, at, place, inside = _places(heads, length, ROWS, WIDTH, SIZE)
    real = tl.load(valid + at, mask=row < length, other=0) != 0
    rows = real[:, None]
    q = tl.load(query + place, mask=inside, other=0.0)
    k = tl.load(key + place, mask=inside, other=0.0)
    v = tl.load(value + place, mask=inside, other=0.0)
    q = _prune(q, tl.load(thresholds).to(tl.float32), rows)
    k = _prune(k, tl.load(thresholds + 1).to(tl.float32), rows)
    v = _prune(v, tl.load(thresholds + 2).to(tl.float32), rows)
    p = _probabilities(q, k, real, row, length, SCALE)
    p = _prune(p, tl.load(thresholds + 3).to(tl.float32), rows & real[None, :])
    c = tl.dot(p, v, input_precision="ieee").to(q.dtype)
    c = _prune(c, tl.load(thresholds + 4).to(tl.float32), rows)
    tl.store(context + place, c, mask=inside)


@triton.jit
def _enter(gradient, values, threshold, gradient_threshold, rows):  # type: ignore[no-untyped-def]
    """Gradient of a stored tensor, through its pruning, as it enters the product before."""
    below = tl.abs(values.to(tl.float32)) < threshold
    passed = tl.where(below & rows, 0.0, gradient).to(values.dtype)
    return _prune(passed, gradient_threshold, rows)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    query, key, value, valid, thresholds, context, gradient,
    query_gradient, key_gradient, value_gradient, heads, length,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, SIZE: tl.constexpr, SCALE: tl.constexpr,
):  # fmt: skip
    row, at, place, inside = _places(heads, length, ROWS, WIDTH, SIZE)
    real = tl.load(valid + at, mask=row < length, other=0) != 0
    rows = real[:, None]
    entries = rows & real[None, :]
    query_threshold = tl.load(thresholds).to(tl.float32)
    key_threshold = tl.load(thresholds + 1).to(tl.float32)
    value_threshold = tl.load(thresholds + 2).to(tl.float32)
    probability_threshold = tl.load(thresholds + 3).to(tl.float32)
    q = _prune(tl.load(query + place, mask=inside, other=0.0), query_threshold, rows)
    k = _prune(tl.load(key + place, mask=inside, other=0.0), key_threshold, rows)
    v = _prune(tl.load(value + place, mask=inside, other=0.0), value_threshold, rows)
    c = tl.load(context + place, mask=inside, other=0.0)
    g = tl.load(gradient + place, mask=inside, other=0.0)
    # Of what is stored pruned, what was pruned is 0, hence below the threshold, too.
    context_threshold = tl.load(thresholds + 4).to(tl.float32)
    g = _enter(g, c, context_threshold, tl.load(thresholds + 9).to(tl.float32), rows)
    p = _probabilities(q, k, real, row, length, SCALE)
    kept = _prune(p, probability_threshold, entries)
    dv = tl.dot(tl.trans(kept), g, input_precision="ieee").to(q.dtype)
    dv = _enter(dv, v, value_threshold, tl.load(thresholds + 7).to(tl.float32), rows)
    tl.store(value_gradient + place, dv, mask=inside)
    dp = tl.dot(g, tl.trans(v), input_precision="ieee")
    p32 = p.to(tl.float32)
    dp = tl.where((p32 < probability_threshold) & entries, 0.0, dp)
    ds = p32 * (dp - tl.sum(dp * p32, axis=1)[:, None])
    ds = tl.where(real[None, :], ds, 0.0).to(q.dtype)  # a masked score passes nothing
    ds = _prune(ds, tl.load(thresholds + 8).to(tl.float32), entries)
    dq = (tl.dot(ds, k, input_precision="ieee") * SCALE).to(q.dtype)
    dq = _enter(dq, q, query_threshold, tl.load(thresholds + 5).to(tl.float32), rows)
    tl.store(query_gradient + place, dq, mask=inside)
    dk = (tl.dot(tl.trans(ds), q, input_precision="ieee") * SCALE).to(q.dtype)
    dk = _enter(dk, k, key_threshold, tl.load(thresholds + 6).to(tl.float32), rows)
    tl.store(key_gradient + place, dk, mask=inside)


class _Attention(torch.autograd.Function):
    """Context of heads, which alone is saved beside the operands; probabilities are made again."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, valid_mask: Tensor, thresholds: Tensor
    ) -> Tensor:
        context = torch.empty_like(query)
        batch, length, heads, size = query.shape
        _forward[(batch * heads,)](
            query, key, value, valid_mask, thresholds, context, heads, length,
            **_shape(length, size), num_warps=FORWARD_WARPS,
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, valid_mask, thresholds, context)
        return context

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, valid_mask, thresholds, context = ctx.saved_tensors
        batch, length, heads, size = query.shape
        made = tuple(torch.empty_like(query) for _ in range(3))
        _backward[(batch * heads,)](
            query, key, value, valid_mask, thresholds, context, gradient.contiguous(), *made,
            heads, length, **_shape(length, size), num_warps=BACKWARD_WARPS,
        )  # fmt: skip
        return *made, None, None


def _shape(length: int, size: int) -> dict[str, float]:
    # Powers of two, at least what tl.dot takes.
    rows, width = (max(16, 1 << (number - 1).bit_length()) for number in (length, size))
    # A compiled graph passes numbers as float64, in which all that they meet is then computed.
    return {"ROWS": rows, "WIDTH": width, "SIZE": size, "SCALE": size**-0.5}


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    valid_mask: Tensor,
    pruner: DynaProp,
    layer: int | None,
) -> Tensor:
    """Context of every head, without dropout, pruned as FlexiBERT's attention prunes it.

    Scores and softmax are in float32; probabilities and the scores' gradient are rounded to the
    operands' type before they are compared.

    Parameters
    ----------
    query, key, value : [batch, sequence, heads, head_size], as the products give them, of one type
    valid_mask : bool [batch, sequence], the real positions
    pruner, layer : whose thresholds; no recorder sees these tensors

    Returns
    -------
    tensor of the operands' shape

    Raises
    ------
    ValueError
        If the tensors are not on a GPU, the sequence is longer than LONGEST, the policy prunes
        scores, or prunes by top-k.
    """
    if not (query.is_cuda or INTERPRETED):
        raise ValueError(
            f"attention in Triton needs a GPU, not {query.device}: move the model there, or use "
            "attn_implementation eager"
        )
    if query.shape[1] > LONGEST:
        raise ValueError(
            f"sequences must be at most {LONGEST} long in fused attention, not {query.shape[1]}"
        )
    if pruner.rule(layer, "score", GemmRole.OUTPUT) != 0:
        raise ValueError(
            "scores must not be pruned in fused attention: put score into activations_off"
        )
    numbers = [pruner.threshold(layer, place, GemmRole.OUTPUT) for place in PLACES]
    numbers += [
        pruner.threshold(layer, product, GemmRole.GRAD_OUTPUT) * pruner.gradient_scale
        for product in PRODUCTS
    ]
    one = torch.ones((), dtype=query.dtype, device=query.device)
    # Inputs of a compiled graph, rounded to the type that they are compared in.
    thresholds = torch.stack([one * number for number in numbers]).to(query.dtype)
    operands = (item.contiguous() for item in (query, key, value))
    return _Attention.apply(*operands, valid_mask.contiguous(), thresholds)
