"""Collects densities and effectual pairs while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.operations import GemmRole, Operation
from model.policy import PruningPolicy
from model.space import TransformerDesign, operations
from model.trace import QUANTILES, DensityRecord, PairRecord, SparsityTrace

BINS = 1025
"""Resolution of the histogram of row densities that quantiles are read from."""

Key = tuple[int | None, str, GemmRole]
"""Layer, operation and role of a tensor."""


@dataclass
class _Counts:
    """Non-zeros of one tensor in one pass; no axis is summed that a product needs."""

    rows: Tensor  # [batch, heads, positions]
    columns: Tensor  # [batch, heads, width]


class _Total:
    """Sums of one tensor over passes, one entry a head; on the tensor's device."""

    def __init__(self, heads: int | None, device: torch.device) -> None:
        self.heads = heads
        size = heads or 1
        self.elements = torch.zeros(size, dtype=torch.int64, device=device)
        self.nonzeros = torch.zeros_like(self.elements)
        self.zeros_before = torch.zeros_like(self.elements)
        self.rows = torch.zeros_like(self.elements)
        self.densities = torch.zeros(size, dtype=torch.float64, device=device)
        self.histogram = torch.zeros((size, BINS), dtype=torch.int64, device=device)
        self.columns: Tensor | None = None

    def add(self, before: Tensor, after: Tensor, valid_mask: Tensor) -> _Counts:
        """Count [batch, heads, positions, width] tensors at the valid entries."""
        valid_mask = valid_mask.expand(after.shape)
        nonzero = (after != 0) & valid_mask
        counts = _Counts(nonzero.sum(-1), nonzero.sum(-2))
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

    def add_columns(self, counts: _Counts) -> None:
        columns = counts.columns.sum(0).reshape(-1)
        self.columns = columns if self.columns is None else self.columns + columns

    def records(self, layer: int | None, operation: str, role: GemmRole) -> list[DensityRecord]:
        made = []
        for index in range(len(self.elements)):
            cumulative = self.histogram[index].cumsum(0).cpu()
            rows = int(self.rows[index])
            if rows == 0:
                continue
            ranks = torch.tensor([1 + round(quantile * (rows - 1)) for quantile in QUANTILES])
            bins = torch.searchsorted(cumulative, ranks)
            made.append(
                DensityRecord(
                    layer=layer,
                    head=None if self.heads is None else index,
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


class DensityPass:
    """One forward pass and its backward pass, as seen by a recorder.

    Parameters
    ----------
    recorder : what keeps the sums
    valid_mask : bool [batch, sequence], the real positions
    """

    def __init__(self, recorder: DensityRecorder, valid_mask: Tensor) -> None:
        self.recorder = recorder
        self.lengths = valid_mask.sum(1)
        self.counts: dict[str, _Counts] = {}

    def note_activation(
        self,
        before: Tensor,
        after: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
    ) -> None:
        """Count a stored tensor, as it was computed and as it is stored."""
        key = (layer, operation, GemmRole.OUTPUT)
        self.counts[self.recorder.by_place[layer, operation].writes] = self.recorder.add(
            key, before, after, valid_mask
        )

    def note_operand(self, values: Tensor, layer: int | None, operation: str) -> None:
        """Count the input of a product that reads part of a stored tensor."""
        key = (layer, operation, GemmRole.INPUT)
        self.counts[f"{operation}.input"] = self.recorder.add(key, values, values, None)

    def note_product(
        self, result: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None
    ) -> None:
        """Count the effectual pairs of score and context."""
        item = self.recorder.by_place[layer, operation]
        if item.has_weight:
            return
        left, right = (self.counts[name] for name in item.reads)
        if operation == "score":  # the right operand is the keys transposed
            effectual = (left.columns * right.columns).sum()
        else:
            effectual = (left.columns * right.rows).sum()
        self.recorder.add_pairs(layer, operation, "forward", self._pairs(item), effectual)

    def gradient_note(
        self, layer: int | None, operation: str, valid_mask: Tensor | None
    ) -> Callable[[Tensor, Tensor], None]:
        """Return what to call with the gradient that enters a product, unpruned and pruned."""

        def note(before: Tensor, after: Tensor) -> None:
            key = (layer, operation, GemmRole.GRAD_OUTPUT)
            gradient = self.recorder.add(key, before, after, valid_mask)
            item = self.recorder.by_place[layer, operation]
            if item.has_weight:
                source = self.counts.get(f"{operation}.input") or self.counts[item.reads[0]]
                effectual = (source.rows.sum(1) * gradient.rows.sum(1)).sum()
                self.recorder.add_pairs(
                    layer, operation, "weight_gradient", self._pairs(item), effectual
                )
                return
            left, right = (self.counts[name] for name in item.reads)
            if operation == "score":
                into_left = (gradient.columns * right.rows).sum()
            else:
                into_left = (gradient.columns * right.columns).sum()
            into_right = (left.rows * gradient.rows).sum()
            pairs = self._pairs(item)
            self.recorder.add_pairs(layer, operation, "left_gradient", pairs, into_left)
            self.recorder.add_pairs(layer, operation, "right_gradient", pairs, into_right)

        return note

    def _pairs(self, item: Operation) -> Tensor:
        """Pairs of factors of a product, real positions only."""
        lengths = self.lengths
        rows = lengths if item.rows == "sequence" else torch.ones_like(lengths)
        inner = lengths if item.inner == "sequence" else item.inner
        outer = lengths if item.outer == "sequence" else item.outer
        return (rows * inner * outer).sum() * item.heads


class DensityRecorder:
    """Sums densities and effectual pairs over the passes of one model, real positions only.

    Parameters
    ----------
    design : the model's design
    """

    def __init__(self, design: TransformerDesign) -> None:
        self.design = design
        self.operations = operations(design)
        self.by_place = {(item.layer, item.name): item for item in self.operations}
        self.totals: dict[Key, _Total] = {}
        self.pairs: dict[tuple[int | None, str, str], list[Tensor]] = {}
        self.lengths: dict[int, int] = {}
        self.sequence_length = 0
        self._seen: list[Tensor] = []

    def start(self, valid_mask: Tensor) -> DensityPass:
        """Begin a pass over sequences whose real positions are given, [batch, sequence]."""
        self.sequence_length = max(self.sequence_length, valid_mask.shape[1])
        self._seen.append(valid_mask.sum(1))
        return DensityPass(self, valid_mask)

    def add(self, key: Key, before: Tensor, after: Tensor, valid_mask: Tensor | None) -> _Counts:
        """Add a tensor's counts to its sums and return them."""
        before, after = before.detach(), after.detach()
        heads = after.shape[1] if after.dim() == 4 else None
        if valid_mask is None:
            valid_mask = torch.ones((), dtype=torch.bool, device=after.device)
        if heads is None:
            before, after = before.unsqueeze(1), after.unsqueeze(1)
            valid_mask = valid_mask.unsqueeze(1) if valid_mask.dim() else valid_mask
        if key not in self.totals:
            self.totals[key] = _Total(heads, after.device)
        counts = self.totals[key].add(before, after, valid_mask)
        if self.by_place[key[:2]].outer != "sequence":  # a width that every pass has
            self.totals[key].add_columns(counts)
        return counts

    def counts(self) -> dict[Key, Tensor]:
        """Return non-zeros, zeros before pruning and entries of each tensor so far, int64 [3]."""
        return {
            key: torch.stack((total.nonzeros, total.zeros_before, total.elements)).sum(1)
            for key, total in self.totals.items()
        }

    def add_pairs(
        self, layer: int | None, operation: str, product: str, pairs: Tensor, effectual: Tensor
    ) -> None:
        """Add the pairs of one product of one pass."""
        total = self.pairs.setdefault(
            (layer, operation, product), [torch.zeros_like(pairs), torch.zeros_like(effectual)]
        )
        total[0] += pairs
        total[1] += effectual

    def trace(
        self,
        weights: Mapping[str, Tensor],
        policy: PruningPolicy,
        *,
        weights_hash: str,
        task: str,
        split: str,
        stage: Literal["training", "inference"],
        training_share: float | None = None,
        thresholds: Mapping[str, float] | None = None,
    ) -> SparsityTrace:
        """Put what was seen into a trace.

        Parameters
        ----------
        weights : weight of each product by the name of the tensor that it writes, [outer, inner]
        policy : what pruned
        weights_hash, task, split, stage, training_share : provenance
        thresholds : those in force, where a table gave them

        Raises
        ------
        ValueError
            If nothing was recorded.
        """
        if not self._seen:
            raise ValueError("nothing was recorded: run the model with the recorder set")
        seen = torch.cat([lengths.cpu() for lengths in self._seen])
        lengths, sequences = seen.unique(return_counts=True)
        return SparsityTrace(
            design_hash=self.design.design_hash,
            weights_hash=weights_hash,
            activation_threshold=policy.activation_threshold,
            gradient_threshold=policy.gradient_threshold,
            policy=policy.model_dump(mode="json"),
            task=task,
            split=split,
            stage=stage,
            training_share=training_share,
            thresholds=dict(thresholds or {}),
            sequence_length=self.sequence_length,
            lengths=dict(zip(lengths.tolist(), sequences.tolist(), strict=True)),
            batch=len(seen),
            records=tuple(self._records(weights)),
            products=tuple(self._products(weights)),
        )

    def _records(self, weights: Mapping[str, Tensor]) -> list[DensityRecord]:
        made = []
        writers = {item.writes: item for item in self.operations}
        for item in self.operations:
            for role, tensor in item.roles.items():
                if role is GemmRole.WEIGHT:
                    made += _weight_record(item, weights[item.writes])
                elif (item.layer, item.name, role) in self.totals:
                    own = self.totals[item.layer, item.name, role]
                    made += own.records(item.layer, item.name, role)
                elif tensor in writers:
                    writer = writers[tensor]
                    total = self.totals[writer.layer, writer.name, GemmRole.OUTPUT]
                    made += total.records(item.layer, item.name, role)
            for role in (GemmRole.OUTPUT, GemmRole.GRAD_OUTPUT):
                if (item.layer, item.name, role) in self.totals:
                    written = self.totals[item.layer, item.name, role]
                    made += written.records(item.layer, item.name, role)
        return made

    def _products(self, weights: Mapping[str, Tensor]) -> list[PairRecord]:
        made = [
            PairRecord(
                layer=layer,
                operation=operation,
                product=product,  # type: ignore[arg-type]
                pairs=int(pairs),
                effectual=int(effectual),
            )
            for (layer, operation, product), (pairs, effectual) in self.pairs.items()
        ]
        writers = {item.writes: item for item in self.operations}
        for item in self.operations:
            if not item.has_weight:
                continue
            weight = weights[item.writes] != 0
            source = self.totals.get((item.layer, item.name, GemmRole.INPUT))
            if source is None:
                writer = writers[item.reads[0]]
                source = self.totals[writer.layer, writer.name, GemmRole.OUTPUT]
            gradient = self.totals.get((item.layer, item.name, GemmRole.GRAD_OUTPUT))
            for product, total, axis in (("forward", source, 0), ("input_gradient", gradient, 1)):
                if total is None or total.columns is None:
                    continue
                rows = int(total.rows.sum()) // len(total.rows)
                made.append(
                    PairRecord(
                        layer=item.layer,
                        operation=item.name,
                        product=product,  # type: ignore[arg-type]  # one of its literals
                        pairs=rows * weight.numel(),
                        effectual=int((total.columns * weight.sum(axis)).sum()),
                    )
                )
        return made


def _weight_record(item: Operation, weight: Tensor) -> list[DensityRecord]:
    """Zeros of a weight; its rows are the columns of the product's right operand."""
    total = _Total(None, weight.device)
    values = weight.detach()[None, None]
    total.add(values, values, torch.ones((), dtype=torch.bool, device=weight.device))
    return total.records(item.layer, item.name, GemmRole.WEIGHT)
