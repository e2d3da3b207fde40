"""Where tensors live, decided before the program runs, for whole populations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from sim.tiling import Tiling
from sim.workload import Task, Workload, compressed_bits, stored_elements

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Residency:
    """What one task finds where; arrays of shape (designs,).

    Parameters
    ----------
    reads : for each tensor read, whether it lies in the buffers
    write : whether the result goes to the buffers
    sums : whether spilled partial sums go to the activation buffer
    weight_values, weight_masks : bits of the weight, biases included, or of γ and β
    prefetched : whether the weight is loaded before the task starts
    """

    reads: tuple[Bools, ...]
    write: Bools
    sums: Bools
    weight_values: Ints
    weight_masks: Ints
    prefetched: Bools


def weight_bits(task: Task, designs: DesignBatch) -> tuple[Ints, Ints]:
    """Bits of a task's weights: values with biases, and masks; shapes (designs,)."""
    operation = task.operation
    none = np.zeros(len(designs), dtype=np.int64)
    if operation.kind == "add_norm":
        assert isinstance(operation.inner, int)
        return 2 * operation.inner * designs.bits, none + 2 * operation.inner
    if not operation.has_weight:
        return none, none
    assert isinstance(operation.inner, int) and isinstance(operation.outer, int)
    elements = operation.inner * operation.outer
    values = compressed_bits(task.weight_density, elements, designs.bits)
    return values + operation.outer * (designs.accumulator_bits - 1), none + elements


def _fit(task: Task, designs: DesignBatch, biases: Ints) -> Bools:
    """Whether a weight's lines fit half the weight buffer and a quarter of the mask buffer."""
    operation = task.operation
    stored = np.asarray(stored_elements(operation.outer, operation.inner, designs.window))
    values = compressed_bits(task.weight_density, stored, designs.bits) + biases
    return np.asarray(
        (2 * values <= designs.weight_buffer_kib * 8192)
        & (4 * stored <= designs.mask_buffer_kib * 8192)
    )


def place(
    workload: Workload, designs: DesignBatch, tilings: list[Tiling | None]
) -> list[Residency]:
    """Decide for each task where its tensors live.

    Parameters
    ----------
    workload, designs : what runs on what
    tilings : of the tasks that are products
    """
    batch = workload.batch(designs)
    free_values = designs.activation_buffer_kib * 8192
    free_masks = designs.mask_buffer_kib * 4096
    nothing = np.zeros(len(designs), dtype=bool)
    home: dict[str, Bools] = {}
    sizes: dict[str, tuple[Ints, Ints]] = {}
    placed = []
    for index, (task, tiling) in enumerate(zip(workload.tasks, tilings, strict=True)):
        operation = task.operation
        reads = tuple(home.get(name, nothing) for name in operation.reads)
        values, masks = weight_bits(task, designs)
        prefetched = ~nothing
        if operation.has_weight:
            assert isinstance(operation.outer, int)
            prefetched = _fit(task, designs, operation.outer * (designs.accumulator_bits - 1))
        write = nothing
        if operation.writes in workload.last_read:
            elements = np.asarray(operation.elements(batch, workload.sequence_length))  # type: ignore[arg-type]
            row = workload.stored_row[operation.writes]
            stored = stored_elements(elements // row, row, designs.window)
            size = compressed_bits(task.write_density, stored, designs.bits)
            write = (size <= free_values) & (stored <= free_masks)
            sizes[operation.writes] = (size * write, stored * write)
            free_values = free_values - size * write
            free_masks = free_masks - stored * write
        home[operation.writes] = write
        sums = nothing
        if tiling is not None:
            sums = tiling.sum_bits(designs) <= free_values
        placed.append(Residency(reads, write, sums, values, masks, prefetched))
        for name in dict.fromkeys(operation.reads):
            if workload.last_read.get(name) == index:
                free_values = free_values + sizes[name][0]
                free_masks = free_masks + sizes[name][1]
    return placed
