"""What was measured of a model's tensors, as plain data: densities, and integers for replay."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hwgen.configuration import Frozen, Stored
from model.operations import GemmRole
from model.recording import RecordedProduct, RecordedRows, Recording
from model.space import TransformerDesign

__all__ = [
    "QUANTILES",
    "DensityRecord",
    "PairRecord",
    "RecordedProduct",
    "RecordedRows",
    "Recording",
    "SparsityTrace",
]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""The quantiles that a record holds of the density of rows, to 1/1024."""


class DensityRecord(Frozen):
    """Zeros of one tensor in one role, over all entries of real positions.

    Parameters
    ----------
    layer : index of the layer, None for embedding, pooler and classifier
    head : index of the head, None for a tensor of all heads
    operation : name of the operation that reads it, or writes it (OUTPUT, GRAD_OUTPUT)
    role : what it is to the operation
    elements : entries of real positions
    nonzeros : those that are not zero after pruning
    zeros_before : those that were zero before pruning
    mean : mean over the rows of their density
    quantiles : quantiles of the density of rows, at QUANTILES
    """

    layer: int | None
    head: int | None = None
    operation: str
    role: GemmRole = Field(strict=False)
    elements: int = Field(ge=1)
    nonzeros: int = Field(ge=0)
    zeros_before: int = Field(ge=0)
    mean: float = Field(ge=0, le=1)
    quantiles: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.nonzeros + self.zeros_before > self.elements:
            raise ValueError(
                f"nonzeros + zeros_before must be at most elements = {self.elements}, "
                f"not {self.nonzeros} + {self.zeros_before}"
            )
        if len(self.quantiles) != len(QUANTILES):
            raise ValueError(f"quantiles must have {len(QUANTILES)} entries, not {self.quantiles}")
        return self

    @property
    def density(self) -> float:
        """Non-zeros after pruning over entries."""
        return self.nonzeros / self.elements

    @property
    def pruned(self) -> float:
        """Share of the entries that the threshold made zero."""
        return 1 - self.density - self.zeros_before / self.elements


class PairRecord(Frozen):
    """Effectual pairs of one product: those whose both factors are not zero.

    Parameters
    ----------
    layer, operation : the operation
    product : "forward", or in training the product that gives the gradient of an operand
    pairs : pairs of factors, real positions only
    effectual : Σ_k nnz(A[:, k]) · nnz(B[k, :]), which is exact
    members : numbers of the layer's heads that do it; empty, and not saved, where it is all
    """

    layer: int | None
    operation: str
    product: Literal[
        "forward", "input_gradient", "weight_gradient", "left_gradient", "right_gradient"
    ] = "forward"
    pairs: int = Field(ge=1)
    effectual: int = Field(ge=0)
    members: tuple[int, ...] = ()

    @model_serializer(mode="wrap")
    def _leave_out_all(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = serialize(self)
        if not self.members:
            made.pop("members", None)
        return made


class SparsityTrace(Stored):
    """Densities of a model as measured, with where they come from.

    Parameters
    ----------
    schema_version : version of these fields
    design_hash : architecture that was measured; readers refuse another one
    weights_hash : which weights
    activation_threshold, gradient_threshold : τ_I and τ_T of the policy
    policy : the whole pruning policy, as JSON
    task, split : the data
    stage : "training" or "inference"
    training_share : share of the training's steps that were done when recording began; None for its
        last steps, and for inference
    thresholds : τ in force by tensor and role, as "0.query.OUTPUT", where a table gave them
    sequence_length : positions a sequence, padding included
    lengths : number of sequences by their real length
    batch : sequences that were measured
    records : densities
    products : effectual pairs
    """

    kind: ClassVar[str] = "sparsity trace"

    schema_version: Literal[1] = 1
    design_hash: str
    weights_hash: str
    activation_threshold: float = Field(ge=0)
    gradient_threshold: float = Field(ge=0)
    policy: dict[str, Any] = Field(default_factory=dict)
    task: str
    split: str
    stage: Literal["training", "inference"]
    training_share: float | None = Field(default=None, ge=0, lt=1)
    thresholds: dict[str, float] = Field(default_factory=dict)
    sequence_length: int = Field(ge=1)
    lengths: dict[int, int] = Field(default_factory=dict, strict=False)
    batch: int = Field(ge=1)
    records: tuple[DensityRecord, ...]
    products: tuple[PairRecord, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _read_json_types(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and isinstance(data.get("lengths"), Mapping):
            data = {**data, "lengths": {int(n): count for n, count in data["lengths"].items()}}
        return data

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        unset = {k for k in ("training_share", "thresholds") if made[k] in (None, {})}
        return {k: v for k, v in made.items() if k not in unset}

    def save(self, path: str | Path) -> None:
        """Write the trace as JSON."""
        Path(path).write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    def check(self, design: TransformerDesign) -> None:
        """Check that the trace is of a model of this design.

        Raises
        ------
        ValueError
            If it is of another one.
        """
        if design.design_hash != self.design_hash:
            raise ValueError(
                f"the trace is of design {self.design_hash}, not of {design.design_hash}; "
                "record one of this model"
            )

    @cached_property
    def _totals(self) -> dict[tuple[int | None, str, GemmRole, int | None], tuple[int, int]]:
        totals: dict[tuple[int | None, str, GemmRole, int | None], tuple[int, int]] = {}
        for record in self.records:
            for head in {None, record.head}:
                key = (record.layer, record.operation, record.role, head)
                nonzeros, elements = totals.get(key, (0, 0))
                totals[key] = (nonzeros + record.nonzeros, elements + record.elements)
        return totals

    def density(
        self, layer: int | None, operation: str, role: GemmRole | str, head: int | None = None
    ) -> float:
        """Density of a tensor, over all heads unless one is named.

        Raises
        ------
        ValueError
            If the trace holds no such record.
        """
        try:
            nonzeros, elements = self._totals[layer, operation, GemmRole(role), head]
        except KeyError:
            where = "" if layer is None else f" of layer {layer}"
            raise ValueError(
                f"the trace has no record of {operation}{where} in the role {GemmRole(role)}"
            ) from None
        return nonzeros / elements

    def by_role(self, without: Collection[str] = ()) -> dict[str, float]:
        """Density of each role, over all records that have it but those of some operations."""
        found: dict[str, list[DensityRecord]] = {}
        for record in self.records:
            if record.operation not in without:
                found.setdefault(record.role.value, []).append(record)
        return {role: _density(records) for role, records in found.items()}

    def by_layer(self, role: GemmRole | str) -> dict[int | None, float]:
        """Density of a role by layer, None for what is outside; empty where nothing has the role.

        The layers come in their order, what is outside first.
        """
        found: dict[int | None, list[DensityRecord]] = {}
        for record in self.records:
            if record.role == GemmRole(role):
                found.setdefault(record.layer, []).append(record)
        order = sorted(found, key=lambda layer: -1 if layer is None else layer)
        return {layer: _density(found[layer]) for layer in order}


def _density(records: list[DensityRecord]) -> float:
    return sum(record.nonzeros for record in records) / sum(record.elements for record in records)
