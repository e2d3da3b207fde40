"""Collects densities and effectual pairs while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from model import pairs
from model.density_total import DensityTotal, weight_records
from model.operations import GemmRole, Operation, encoder_operations
from model.pairs import Counts
from model.policy import PruningPolicy
from model.space import TransformerDesign
from model.trace import DensityRecord, PairRecord, SparsityTrace

Place = tuple[int | None, str, tuple[int, ...]]
"""Layer, operation and, where they are not all of the layer's, numbers of the heads."""


class DensityPass:
    """One forward pass and its backward pass, as seen by a recorder.

    Parameters
    ----------
    recorder : what keeps the sums
    valid_mask : bool [batch, sequence], the real positions
    """

    def __init__(self, recorder: DensityRecorder, valid_mask: Tensor) -> None:
        self.recorder = recorder
        self.valid_mask = valid_mask
        self.counts: dict[str, Counts] = {}

    def note_activation(
        self,
        before: Tensor,
        after: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> None:
        """Count a stored tensor, as it was computed and as it is stored."""
        place = (layer, operation, members)
        self.counts[self.recorder.by_place[place].writes] = self.recorder.add(
            place, GemmRole.OUTPUT, before, after, valid_mask
        )

    def note_operand(
        self, values: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None = None
    ) -> None:
        """Count the input of a product that reads part of a stored tensor, or several."""
        place = (layer, operation, ())
        name = f"{self.recorder.by_place[place].writes}.input"
        self.counts[name] = self.recorder.add(place, GemmRole.INPUT, values, values, valid_mask)

    def note_product(
        self,
        result: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> None:
        """Count the effectual pairs of a product without a weight, or what its weight meets."""
        item = self.recorder.by_place[layer, operation, members]
        if item.has_weight:
            if item.kind == "convolution":
                (source,) = self._operands(item)
                self._meet(item, "forward", pairs.met_by_weight(item, source, self.valid_mask))
            return
        effectual = pairs.forward_pairs(item, self._operands(item), self.valid_mask)
        self._add(item, "forward", effectual)

    def gradient_note(
        self,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> Callable[[Tensor, Tensor], None]:
        """Return what to call with the gradient that enters a product, unpruned and pruned."""
        place = (layer, operation, members)

        def note(before: Tensor, after: Tensor) -> None:
            gradient = self.recorder.add(place, GemmRole.GRAD_OUTPUT, before, after, valid_mask)
            item = self.recorder.by_place[place]
            made = pairs.gradient_pairs(item, self._operands(item), gradient, self.valid_mask)
            for product, effectual in made.items():
                self._add(item, product, effectual)
            if item.kind == "convolution" and item.has_weight:
                met = pairs.gradients_met_by_weight(item, gradient, self.valid_mask)
                self._meet(item, "input_gradient", met)

        return note

    def _operands(self, item: Operation) -> list[Counts]:
        """Counts of what an operation reads, of its own heads alone."""
        own = self.counts.get(f"{item.writes}.input")
        if own is not None:
            return [own]
        return [self.counts[name].of(item.members) for name in item.reads]

    def _add(self, item: Operation, product: str, effectual: Tensor) -> None:
        possible = pairs.possible_pairs(item, self.valid_mask)
        self.recorder.add_pairs(item, product, possible, effectual)

    def _meet(self, item: Operation, product: str, met: Tensor) -> None:
        possible = pairs.possible_pairs(item, self.valid_mask)
        self.recorder.add_met(item.writes, product, possible, met)


class DensityRecorder:
    """Sums densities and effectual pairs over the passes of one model, real positions only.

    Parameters
    ----------
    design : the model's design
    """

    def __init__(self, design: TransformerDesign) -> None:
        self.design = design
        self.operations = encoder_operations(design)
        self.by_place = {(item.layer, item.name, item.members): item for item in self.operations}
        self.writers = {item.writes: item for item in self.operations}
        convolutions = [item for item in self.operations if item.kind == "convolution"]
        self._read_by_convolutions = {name for item in convolutions for name in item.reads}
        self._convolutions = {item.writes for item in convolutions}
        self.totals: dict[tuple[Place, GemmRole], DensityTotal] = {}
        self.met: dict[tuple[str, str], list[Tensor]] = {}
        self.pairs: dict[tuple[Place, str], list[Tensor]] = {}
        self.lengths: dict[int, int] = {}
        self.sequence_length = 0
        self._seen: list[Tensor] = []

    def start(self, valid_mask: Tensor) -> DensityPass:
        """Begin a pass over sequences whose real positions are given, [batch, sequence]."""
        self.sequence_length = max(self.sequence_length, valid_mask.shape[1])
        self._seen.append(valid_mask.sum(1))
        return DensityPass(self, valid_mask)

    def add(
        self,
        place: Place,
        role: GemmRole,
        before: Tensor,
        after: Tensor,
        valid_mask: Tensor | None,
    ) -> Counts:
        """Add a tensor's counts to its sums and return them."""
        before, after = before.detach(), after.detach()
        numbers = (place[2] or tuple(range(after.shape[1]))) if after.dim() == 4 else None
        if valid_mask is None:
            valid_mask = torch.ones((), dtype=torch.bool, device=after.device)
        if numbers is None:
            before, after = before.unsqueeze(1), after.unsqueeze(1)
            valid_mask = valid_mask.unsqueeze(1) if valid_mask.dim() else valid_mask
        key = (place, role)
        if key not in self.totals:
            self.totals[key] = DensityTotal(numbers, after.device)
        item = self.by_place[place]
        kept = self._read_by_convolutions if role is GemmRole.OUTPUT else self._convolutions
        counts = self.totals[key].add(before, after, valid_mask, item.writes in kept)
        if item.outer != "sequence":  # a width that every pass has
            self.totals[key].add_columns(counts)
        return counts

    def add_met(self, tensor: str, product: str, possible: Tensor, met: Tensor) -> None:
        """Add what a convolution's weight met in one pass, until the weight is known."""
        total = self.met.setdefault(
            (tensor, product), [torch.zeros_like(possible), torch.zeros_like(met)]
        )
        total[0] += possible
        total[1] += met

    def counts(self) -> dict[tuple[int | None, str, GemmRole], Tensor]:
        """Return non-zeros, zeros before pruning and entries of each tensor so far, int64 [3]."""
        found: dict[tuple[int | None, str, GemmRole], Tensor] = {}
        for ((layer, operation, _), role), total in self.totals.items():
            own = torch.stack((total.nonzeros, total.zeros_before, total.elements)).sum(1)
            key = layer, operation, role
            found[key] = found[key] + own if key in found else own
        return found

    def add_pairs(self, item: Operation, product: str, possible: Tensor, effectual: Tensor) -> None:
        """Add the pairs of one product of one pass."""
        total = self.pairs.setdefault(
            ((item.layer, item.name, item.members), product),
            [torch.zeros_like(possible), torch.zeros_like(effectual)],
        )
        total[0] += possible
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
        for item in self.operations:
            where = (item.layer, item.name)
            place = (*where, item.members)
            for role, tensor in item.roles.items():
                if role is GemmRole.WEIGHT:
                    made += weight_records(item, weights[item.writes])
                elif (place, role) in self.totals:
                    made += self.totals[place, role].records(*where, role)
                elif tensor in self.writers:
                    made += self._written(tensor).records(*where, role, item.members)
            for role in (GemmRole.OUTPUT, GemmRole.GRAD_OUTPUT):
                if (place, role) in self.totals:
                    made += self.totals[place, role].records(*where, role)
        return made

    def _written(self, tensor: str) -> DensityTotal:
        writer = self.writers[tensor]
        return self.totals[(writer.layer, writer.name, writer.members), GemmRole.OUTPUT]

    def _products(self, weights: Mapping[str, Tensor]) -> list[PairRecord]:
        found = {key: (int(one), int(other)) for key, (one, other) in self.pairs.items()}
        for item in self.operations:
            if item.has_weight:
                place = (item.layer, item.name, item.members)
                for product, counted in self._weight_products(item, weights[item.writes] != 0):
                    found[place, product] = counted
        return [
            PairRecord(
                layer=layer,
                operation=operation,
                product=product,  # type: ignore[arg-type]  # one of its literals
                pairs=possible,
                effectual=effectual,
                members=members,
            )
            for ((layer, operation, members), product), (possible, effectual) in found.items()
        ]

    def _weight_products(
        self, item: Operation, weight: Tensor
    ) -> Iterator[tuple[str, tuple[int, int]]]:
        """Pairs and effectual pairs of the products that a weight takes part in."""
        for product in ("forward", "input_gradient"):
            if (item.writes, product) in self.met:
                possible, met = self.met[item.writes, product]
                yield product, (int(possible), int((met * weight).sum()))
        if item.kind == "convolution":
            return
        place = (item.layer, item.name, item.members)
        source = self.totals.get((place, GemmRole.INPUT)) or self._written(item.reads[0])
        gradient = self.totals.get((place, GemmRole.GRAD_OUTPUT))
        for product, total, axis in (("forward", source, -2), ("input_gradient", gradient, -1)):
            columns = None if total is None else total.columns_of(item.members, weight)
            if total is None or columns is None:
                continue
            rows = int(total.rows.sum()) // len(total.rows)
            effectual = int((columns * weight.sum(axis)).sum())
            yield product, (rows * weight.numel(), effectual)
