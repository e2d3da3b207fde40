"""Sums of one tensor's zeros over passes, and the records that a trace gets of them."""

from __future__ import annotations

import torch
from torch import Tensor

from model.operations import GemmRole, Operation
from model.pairs import Counts
from model.trace import QUANTILES, DensityRecord

BINS = 1025
"""Resolution of the histogram of row densities that quantiles are read from."""


class DensityTotal:
    """Sums of one tensor over passes, one entry a head; on the tensor's device.

    Parameters
    ----------
    numbers : numbers of the layer's heads that it has, or None for a tensor without heads
    """

    def __init__(self, numbers: tuple[int, ...] | None, device: torch.device) -> None:
        self.numbers = numbers
        size = 1 if numbers is None else len(numbers)
        self.elements = torch.zeros(size, dtype=torch.int64, device=device)
        self.nonzeros = torch.zeros_like(self.elements)
        self.zeros_before = torch.zeros_like(self.elements)
        self.rows = torch.zeros_like(self.elements)
        self.densities = torch.zeros(size, dtype=torch.float64, device=device)
        self.histogram = torch.zeros((size, BINS), dtype=torch.int64, device=device)
        self.columns: Tensor | None = None

    def add(
        self, before: Tensor, after: Tensor, valid_mask: Tensor, keep_mask: bool = False
    ) -> Counts:
        """Count [batch, heads, positions, width] tensors at the valid entries."""
        valid_mask = valid_mask.expand(after.shape)
        nonzero = (after != 0) & valid_mask
        kept = nonzero if keep_mask else None
        counts = Counts(nonzero.sum(-1), nonzero.sum(-2), self.numbers, kept)
        widths = valid_mask.sum(-1)
        self.elements += widths.sum((0, 2))
        self.nonzeros += counts.rows.sum((0, 2))
        self.zeros_before += ((before == 0) & valid_mask).sum((0, 2, 3))
        real = widths > 0
        density = counts.rows.to(torch.float64) / widths.clamp(min=1)
        self.rows += real.sum((0, 2))
        self.densities += (density * real).sum((0, 2))
        head = torch.arange(len(self.rows), device=after.device)[None, :, None] * BINS
        bins = (density * (BINS - 1)).round().to(torch.int64) + head
        self.histogram += torch.bincount(bins[real], minlength=self.histogram.numel()).reshape(
            self.histogram.shape
        )
        return counts

    def add_columns(self, counts: Counts) -> None:
        """Add the non-zeros of each column, which weights meet."""
        columns = counts.columns.sum(0)
        self.columns = columns if self.columns is None else self.columns + columns

    def columns_of(self, members: tuple[int, ...], weight: Tensor) -> Tensor | None:
        """Non-zeros of each column that a weight meets: [width], or [heads, width] as it is."""
        if self.columns is None or weight.dim() == 2:
            return None if self.columns is None else self.columns.reshape(-1)
        return self.columns[self.indices(members)]

    def indices(self, members: tuple[int, ...]) -> list[int]:
        """Where some heads stand in the sums; all where none are named."""
        if self.numbers is None or not members:
            return list(range(len(self.elements)))
        return [index for index, number in enumerate(self.numbers) if number in members]

    def records(
        self, layer: int | None, operation: str, role: GemmRole, members: tuple[int, ...] = ()
    ) -> list[DensityRecord]:
        """Records of some heads, all where none are named; none of a head without rows."""
        made = []
        for index in self.indices(members):
            cumulative = self.histogram[index].cumsum(0).cpu()
            rows = int(self.rows[index])
            if rows == 0:
                continue
            ranks = torch.tensor([1 + round(quantile * (rows - 1)) for quantile in QUANTILES])
            bins = torch.searchsorted(cumulative, ranks)
            made.append(
                DensityRecord(
                    layer=layer,
                    head=None if self.numbers is None else self.numbers[index],
                    operation=operation,
                    role=role,
                    elements=int(self.elements[index]),
                    nonzeros=int(self.nonzeros[index]),
                    zeros_before=int(self.zeros_before[index]),
                    mean=min(1.0, float(self.densities[index]) / rows),
                    quantiles=tuple(float(value) / (BINS - 1) for value in bins),
                )
            )
        return made


def weight_records(item: Operation, weight: Tensor) -> list[DensityRecord]:
    """Zeros of a weight; its rows are the columns of the product's right operand."""
    values = weight.detach()
    numbers = None
    if weight.dim() == 3:
        numbers = item.members or tuple(range(len(weight)))
    total = DensityTotal(numbers, weight.device)
    values = values[None] if numbers else values[None, None]
    total.add(values, values, torch.ones((), dtype=torch.bool, device=weight.device))
    return total.records(item.layer, item.name, GemmRole.WEIGHT)
