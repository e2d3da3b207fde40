"""What is run: a model, its sequences, and how dense their tensors are."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from hwgen.design import DesignBatch
from model.space import GemmRole, Operation, TransformerDesign, operations
from model.trace import SparsityTrace

ROLES = (GemmRole.INPUT, GemmRole.WEIGHT, GemmRole.LEFT, GemmRole.RIGHT, GemmRole.OUTPUT)
"""Roles that an inference has densities for."""

Densities = float | Mapping[str, float] | SparsityTrace
"""One density for all, one a role, or those that were measured."""


@dataclass(frozen=True)
class Task:
    """An operation with the densities of its operands.

    Parameters
    ----------
    operation : what is done
    read_densities : shares of non-zeros of `operation.reads` as this operation reads them
    weight_density : share of non-zeros of the weight, NaN without one
    write_density : share of non-zeros of the result as it is stored
    """

    operation: Operation
    read_densities: tuple[float, ...]
    weight_density: float
    write_density: float

    @property
    def label(self) -> str:
        """Name of the operation, with its layer in front."""
        return self.operation.writes

    @property
    def transposed(self) -> bool:
        """Whether a product's result is stored by its j, in rows of its i: V, for its reader."""
        return self.operation.name == "value"

    @property
    def right_density(self) -> float:
        """Share of non-zeros of a product's right operand."""
        return self.weight_density if self.operation.has_weight else self.read_densities[1]


@dataclass(frozen=True)
class Workload:
    """A model at work on batches of sequences of one length.

    Parameters
    ----------
    model : a TransformerDesign, or what its `load` takes
    sequence_length : positions of each sequence, padding included
    densities : shares of non-zeros. One number holds for every operand of every product and every
        stored tensor. A mapping by role has INPUT, WEIGHT, LEFT and RIGHT, and may have OUTPUT for
        what no product reads (scores, addends, logits; by default INPUT's). A SparsityTrace gives
        each operation its own. Biases, embeddings and partial sums are dense.
    batch_size : sequences that run at once, by default each design's
    mode : "inference"

    Raises
    ------
    ValueError
        For a density that is not in 0 to 1, a trace of another model, an operation that is not
        modelled, or a length that the model has no positions for.
    """

    model: TransformerDesign
    sequence_length: int
    densities: Densities
    batch_size: int | None = None
    mode: str = "inference"
    tasks: tuple[Task, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Load the model and give every operation its densities."""
        if self.mode != "inference":
            raise ValueError(
                f'mode must be "inference", not {self.mode!r}; other modes are not modelled yet'
            )
        object.__setattr__(self, "model", TransformerDesign.load(self.model))
        _check_count("sequence_length", self.sequence_length)
        if self.sequence_length > self.model.max_positions:
            raise ValueError(
                f"sequence_length must be at most the model's max_positions = "
                f"{self.model.max_positions}, not {self.sequence_length}"
            )
        if self.batch_size is not None:
            _check_count("batch_size", self.batch_size)
        listed = operations(self.model)
        find = _finder(self.densities, listed, self.model, self.sequence_length)
        object.__setattr__(self, "tasks", tuple(_task(operation, find) for operation in listed))

    @cached_property
    def last_read(self) -> dict[str, int]:
        """Index of the last task that reads each tensor that a task writes."""
        written = {task.operation.writes for task in self.tasks}
        return {
            name: index
            for index, task in enumerate(self.tasks)
            for name in task.operation.reads
            if name in written
        }

    @cached_property
    def stored_row(self) -> dict[str, int]:
        """Elements of a row of each tensor that is written and read, along the axis of its reader.

        What tanh reads are rows of the width of the layer.
        """
        written = {task.operation.writes for task in self.tasks}
        rows = {}
        for operation in (task.operation for task in self.tasks):
            width = operation.outer if operation.kind == "tanh" else operation.inner
            for name in written.intersection(operation.reads):
                rows[name] = self.sequence_length if width == "sequence" else width
        return rows

    def batch(self, designs: DesignBatch) -> np.ndarray:
        """Sequences that each design runs at once."""
        if self.batch_size is None:
            return np.asarray(designs.batch_size)
        return np.full(len(designs), self.batch_size)

    def check(self, designs: DesignBatch) -> None:
        """Refuse designs that cannot run this workload.

        Raises
        ------
        ValueError
            For another non-linearity than the model's, rows longer than max_sequence_length or dot
            products longer than k_max; the message names the first design concerned.
        """
        other = np.flatnonzero(designs.nonlinearity != self.model.activation)
        if other.size:
            raise ValueError(
                f"nonlinearity of a design must be the model's activation, "
                f"{self.model.activation!r}, not {str(designs.nonlinearity[other[0]])!r} "
                f"(design {other[0]} of {len(designs)})"
            )
        longest = {
            "max_sequence_length": (self.sequence_length, "softmax rows of"),
            "k_max": (self.longest_dot_product, "dot products or rows of"),
        }
        for name, (length, what) in longest.items():
            short = np.flatnonzero(getattr(designs, name) < length)
            if short.size:
                raise ValueError(
                    f"{name} must be at least {length} for {what} {length} elements, not "
                    f"{getattr(designs, name)[short[0]]} (design {short[0]} of {len(designs)})"
                )

    @property
    def longest_dot_product(self) -> int:
        """Longest dot product or normalised row of the model."""
        return max(
            self.sequence_length if task.operation.inner == "sequence" else task.operation.inner
            for task in self.tasks
            if task.operation.kind != "softmax"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the workload as JSON types, each operation's densities included."""
        return {
            "model": self.model.model_dump(mode="json"),
            "model_hash": self.model.design_hash,
            "sequence_length": self.sequence_length,
            "batch_size": self.batch_size,
            "mode": self.mode,
            "densities": {
                task.label: {
                    "reads": list(task.read_densities),
                    "weight": task.weight_density if task.operation.has_weight else None,
                    "write": task.write_density,
                }
                for task in self.tasks
            },
        }


def compressed_bits(density: float, elements: Any, bits: Any) -> Any:
    """Bits of the non-zeros of elements, ⌈density · elements · bits⌉.

    An integer for integers, whole numbers in float64 for arrays.
    """
    product = density * (elements * bits)
    return np.ceil(product) if isinstance(product, np.ndarray) else math.ceil(product)


def stored_elements(rows: Any, row: Any, window: Any) -> Any:
    """Positions that rows of `row` elements take where they are stored, in whole lines."""
    return rows * -(-row // window) * window


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")


def _density(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ValueError(f"density {name} must be a number from 0 to 1, not {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"density {name} must be from 0 to 1, not {value}")
    return float(value)


def _task(operation: Operation, find: Any) -> Task:
    return Task(
        operation,
        tuple(find(operation, index) for index in range(len(operation.reads))),
        find(operation, "WEIGHT") if operation.has_weight else math.nan,
        find(operation, "OUTPUT"),
    )


def _finder(densities: Any, listed: list[Operation], model: TransformerDesign, length: int) -> Any:
    """Make the function of an operation and the index of a read, "WEIGHT" or "OUTPUT"."""
    if isinstance(densities, SparsityTrace):
        return _from_trace(densities, listed, model, length)
    if not isinstance(densities, Mapping):
        value = _density("densities", densities)
        return lambda operation, what: value
    return _by_role(densities, listed)


def _stored_roles(listed: list[Operation]) -> dict[str, GemmRole]:
    """Role of each stored tensor: that of the first product that reads it, else OUTPUT."""
    roles = {operation.writes: GemmRole.OUTPUT for operation in listed}
    for operation in reversed(listed):
        if operation.kind == "product":
            for role, tensor in operation.roles.items():
                if tensor in roles:
                    roles[tensor] = role
    return roles


def _by_role(densities: Mapping[str, float], listed: list[Operation]) -> Any:
    known = [role.value for role in ROLES]
    for key in densities:
        if key not in known:
            raise ValueError(f"unknown role {key!r} in densities; known: {', '.join(known)}")
    for role in known[:-1]:
        if role not in densities:
            raise ValueError(
                f"densities must give role {role}; got {', '.join(densities) or 'none'}"
            )
    values = {role: _density(role, value) for role, value in densities.items()}
    values.setdefault("OUTPUT", values["INPUT"])
    stored = _stored_roles(listed)

    def find(operation: Operation, what: Any) -> float:
        if what == "WEIGHT":
            return values["WEIGHT"]
        tensor = operation.writes if what == "OUTPUT" else operation.reads[what]
        return values[stored[tensor]] if tensor in stored else 1.0

    return find


def _from_trace(
    trace: SparsityTrace, listed: list[Operation], model: TransformerDesign, length: int
) -> Any:
    if trace.design_hash != model.design_hash:
        raise ValueError(
            f"the trace is of another model: its design_hash is {trace.design_hash}, "
            f"the workload's {model.design_hash}"
        )
    if trace.sequence_length != length:
        warnings.warn(
            f"the trace was recorded at sequence length {trace.sequence_length}, "
            f"the workload has {length}; densities may differ",
            stacklevel=4,
        )
    producers = {operation.writes: operation for operation in listed}

    def look(operation: Operation, role: GemmRole) -> float:
        value = trace.density(operation.layer, operation.name, role)
        return _density(f"{operation.writes}.{role}", value)

    def find(operation: Operation, what: Any) -> float:
        if what in ("WEIGHT", "OUTPUT"):
            return look(operation, GemmRole(what))
        tensor = operation.reads[what]
        if operation.kind == "product":
            role = next(role for role, name in operation.roles.items() if name == tensor)
            return look(operation, role)
        # Operations on rows read a tensor as its maker stored it; embedding rows are dense.
        return look(producers[tensor], GemmRole.OUTPUT) if tensor in producers else 1.0

    return find
