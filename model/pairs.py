"""Pairs of factors of every kind of product, and how many of them are effectual.

A pair is effectual where both of its factors are not zero. Each product's pairs follow from the
counts of its operands' non-zeros alone, but for convolutions, whose masks are multiplied.
Fixed matrices count as dense.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.heads import windows
from model.operations import HEAD_WEIGHTS, Extent, Operation


@dataclass
class Counts:
    """Non-zeros of one tensor in one pass; no axis is summed that a product needs.

    Parameters
    ----------
    rows : [batch, heads, positions]
    columns : [batch, heads, width]
    numbers : numbers of the layer's heads that these are, or None for a tensor without heads
    nonzero : bool [batch, heads, positions, width] of real entries, where a convolution needs it
    """

    rows: Tensor
    columns: Tensor
    numbers: tuple[int, ...] | None = None
    nonzero: Tensor | None = None

    def of(self, members: tuple[int, ...]) -> Counts:
        """Choose some of the heads; all where none are named."""
        if self.numbers is None or members in ((), self.numbers):
            return self
        chosen = [self.numbers.index(number) for number in members]
        return Counts(
            self.rows[:, chosen],
            self.columns[:, chosen],
            members,
            None if self.nonzero is None else self.nonzero[:, chosen],
        )

    @property
    def mask(self) -> Tensor:
        """Where it is not zero, as numbers that sums of are exact."""
        assert self.nonzero is not None
        return self.nonzero.to(torch.float64)


def possible_pairs(item: Operation, valid_mask: Tensor) -> Tensor:
    """Pairs of factors of a product, real positions only.

    Parameters
    ----------
    item : a product, transform or convolution
    valid_mask : bool [batch, sequence], the real positions
    """
    lengths = valid_mask.sum(1)
    outer = _number(item.outer, lengths)
    if item.kind == "convolution":
        return _integer(_neighbours(valid_mask, item)) * outer * item.heads
    rows = lengths if item.rows == "sequence" else torch.ones_like(lengths)
    return (rows * _number(item.inner, lengths) * outer).sum() * item.heads * item.sums


def forward_pairs(item: Operation, operands: list[Counts], valid_mask: Tensor) -> Tensor:
    """Effectual pairs of a product without a weight.

    Parameters
    ----------
    item, valid_mask : as of `possible_pairs`
    operands : counts of what it reads
    """
    left, right = operands[0], operands[-1]
    if item.kind == "transform":
        # Along the sequence the fixed matrix is the left operand: one result a position.
        results = item.outer if item.name == "transform" else "sequence"
        return (left.rows.sum((1, 2)) * _number(results, valid_mask.sum(1))).sum()
    if item.kind == "convolution":
        near = _windows(right.rows.unsqueeze(3).to(torch.float64), item)[..., 0, :]
        return _integer(left.mask * near)
    if item.name == "score":  # the right operand is the keys transposed
        return (left.columns * right.columns).sum()
    return (left.columns * right.rows).sum()


def gradient_pairs(
    item: Operation, operands: list[Counts], gradient: Counts, valid_mask: Tensor
) -> dict[str, Tensor]:
    """Effectual pairs of the products of a backward pass that no weight takes part in.

    Parameters
    ----------
    item, operands, valid_mask : as of `forward_pairs`; a product with a weight is allowed, too
    gradient : counts of the gradient that enters it
    """
    left, right = operands[0], operands[-1]
    if item.kind == "convolution":
        if item.has_weight:
            near = _windows(left.mask, item)
            return {"weight_gradient": _integer(near * gradient.mask.unsqueeze(4))}
        reached = _windows(right.mask, item)
        own = left.mask * _neighbours(valid_mask, item)[:, None]
        return {
            "left_gradient": _integer(reached * gradient.mask.unsqueeze(4)),
            "right_gradient": _integer(own * gradient.rows.unsqueeze(3)),
        }
    if item.kind == "transform":
        inner = _number(item.inner, valid_mask.sum(1))
        return {"input_gradient": (gradient.rows.sum((1, 2)) * inner).sum() * item.sums}
    if item.has_weight:
        if item.name in HEAD_WEIGHTS:
            return {"weight_gradient": (left.rows * gradient.rows).sum()}
        return {"weight_gradient": (left.rows.sum(1) * gradient.rows.sum(1)).sum()}
    into_left = gradient.columns * (right.rows if item.name == "score" else right.columns)
    return {
        "left_gradient": into_left.sum(),
        "right_gradient": (left.rows * gradient.rows).sum(),
    }


def met_by_weight(item: Operation, source: Counts, valid_mask: Tensor) -> Tensor:
    """Non-zeros that each entry of a convolution's weight meets, [heads, width, span]."""
    real = valid_mask[:, None, :, None, None]
    return (_windows(source.mask, item) * real).sum((0, 2)).to(torch.int64)


def gradients_met_by_weight(item: Operation, gradient: Counts, valid_mask: Tensor) -> Tensor:
    """Of the gradient that enters a convolution, the non-zeros that each entry meets, as above."""
    near = _neighbours(valid_mask, item)
    return torch.einsum("bhnc,bnj->hcj", gradient.mask, near).to(torch.int64)


def _number(extent: Extent, lengths: Tensor) -> Tensor | int:
    """An extent, in each sequence its own where the sequence length gives it."""
    return lengths if extent == "sequence" else extent


def _neighbours(valid_mask: Tensor, item: Operation) -> Tensor:
    """Whether a real position has a real one at each place of its window, [batch, n, span]."""
    real = valid_mask.to(torch.float64)
    return _windows(real[:, None, :, None], item)[:, 0, :, 0] * real.unsqueeze(2)


def _windows(values: Tensor, item: Operation) -> Tensor:
    assert isinstance(item.inner, int)
    return windows(values, item.inner)


def _integer(values: Tensor) -> Tensor:
    return values.sum().to(torch.int64)
