"""Recordings of random tensors: what density mode assumes, as integers for mask mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows, Recording
from sim.workload import Task, Workload

Ints = NDArray[np.int64]


def random_recording(
    workload: Workload, bits: int, accumulator_bits: int, rng: np.random.Generator
) -> Recording:
    """Draw every tensor of a workload, each element non-zero with its density, independently.

    Parameters
    ----------
    workload : with a batch_size
    bits, accumulator_bits : widths of values and of partial sums
    rng : where randomness comes from

    Raises
    ------
    ValueError
        If the workload has no batch_size.
    """
    batch, length = workload.batch_size, workload.sequence_length
    if batch is None:
        raise ValueError("batch_size must be given to draw tensors")

    def draw(density: float, *shape: int) -> Ints:
        magnitude = rng.integers(1, 1 << (bits - 1), size=shape)
        signed = np.where(rng.random(shape) < 0.5, -magnitude, magnitude)
        return np.where(rng.random(shape) < density, signed, 0)

    tensors: dict[str, Ints] = {}
    products, rows = [], []
    for task in workload.tasks:
        operation = task.operation
        if operation.kind == "product":
            b, i, j, k = operation.extents(batch, length)
            left = _operand(operation, tensors, 0, (b, i, k))
            right = (
                draw(task.weight_density, k, j)
                if operation.has_weight
                else _operand(operation, tensors, 1, (b, k, j))
            )
            initial = rng.integers(-100, 100, size=j) if operation.has_weight else None
            exponents = {"left": -8, "right": -8, "rounded": -8, "output": -8}
            products.append(
                RecordedProduct(
                    operation.layer,
                    operation.name,
                    left,
                    right,
                    initial,
                    bits // 2,
                    operation.activation,
                    exponents,
                    1,
                )
            )
            tensors[operation.writes] = draw(task.write_density, b, i, j)
        else:
            rows.append(_rows(task, tensors, batch, length, draw))
            stored = 1 if operation.kind == "tanh" else rows[-1].rows.shape[1]
            tensors[operation.writes] = draw(task.write_density, len(rows[-1].rows), stored)
    return Recording(
        workload.model.design_hash,
        "random",
        bits,
        accumulator_bits,
        np.ones((batch, length), dtype=bool),
        tuple(products),
        tuple(rows),
        tensors,
    )


def _operand(
    operation: Operation, tensors: dict[str, Ints], index: int, shape: tuple[int, ...]
) -> Ints:
    """A stored tensor in the shape in which a product reads it."""
    stored = tensors[operation.reads[index]]
    b, i, k = shape
    if operation.rows == "one":
        # The pooler reads the first position of each sequence.
        return stored.reshape(b, -1, k)[:, :1]
    if operation.name == "attention_output":
        heads = stored.shape[0] // b
        return stored.reshape(heads, b, i, -1).transpose(1, 2, 0, 3).reshape(shape)
    if operation.reads[index].endswith(("query", "key", "value")):
        batch = b // operation.heads
        split = stored.reshape(batch, -1, operation.heads, stored.shape[-1] // operation.heads)
        joined = split.transpose(2, 0, 1, 3).reshape(b, split.shape[1], -1)
        return joined.transpose(0, 2, 1) if operation.reads[index].endswith("key") else joined
    return stored.reshape(shape)


def _rows(
    task: Task, tensors: dict[str, Ints], batch: int, length: int, draw: object
) -> RecordedRows:
    operation = task.operation
    count, width = operation.row_shape(batch, length)
    assert callable(draw)
    read = [
        tensors[name].reshape(count, -1) if name in tensors else draw(1.0, count, width)
        for name in operation.reads
    ]
    first = read[0]
    if operation.kind == "tanh":
        first = np.concatenate([first, -first], axis=1)
    exponents = {"rows": -8, "output": -8}
    extra: dict[str, Ints] = {}
    if operation.kind == "add_norm":
        exponents |= {"residual": -8, "sum": -8, "gamma": -8, "beta": -8}
        extra = {"residual": read[1], "gamma": draw(1.0, width), "beta": draw(1.0, width)}
    return RecordedRows(
        operation.layer,
        operation.name,
        operation.kind,
        first,
        np.ones(first.shape, dtype=bool),
        exponents,
        1,
        **extra,
    )
