"""Where tensors live, decided before the program runs, for whole populations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.units.loader import cost as loader
from hwgen.units.loader.cost import ImageSize
from sim.ports import Ports
from sim.tiling import DIM_J, DIM_K, Tiling
from sim.workload import Task, Workload, compressed_bits, stored_elements

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """Images in main memory; arrays of shape (images,).

    Parameters
    ----------
    size : words and slots
    values, masks : bits that an image holds, biases among the values
    """

    size: ImageSize
    values: Floats
    masks: Ints


@dataclass(frozen=True)
class Residency:
    """What one task finds where; arrays of shape (designs,).

    Parameters
    ----------
    reads : for each tensor read, whether it lies in the buffers
    write : whether the result goes to the buffers
    sums : whether the activation buffer has room for the partial sums that spill, if any do
    image : what must be in the weight buffer before the task starts
    streams : whether that is a weight's first block alone, and the others are copied one by one
    """

    reads: tuple[Bools, ...]
    write: Bools
    sums: Bools
    image: Images
    streams: Bools

    @property
    def in_buffers(self) -> Bools:
        """Whether the buffers hold all that the task reads and writes but its weight."""
        return np.asarray(np.logical_and.reduce([*self.reads, self.write, self.sums]))


def images(
    designs: DesignBatch,
    ports: Ports,
    design: Ints,
    density: float,
    columns: Ints,
    length: Ints,
    lines_of_column: Ints,
    biases: Ints,
) -> Images:
    """Images of columns of weights.

    Parameters
    ----------
    designs, ports, design : the population, and which design each image is of
    density : share of non-zeros
    columns, length : how many, and elements of each
    lines_of_column : lines in which a column comes, perhaps more than it fills
    biases : how many come with them
    """
    window, bits = designs.window[design], designs.bits[design]
    accumulator_bits = designs.accumulator_bits[design]
    words = np.ceil(density * (columns * -(-length // window))).astype(np.int64)
    size = loader.image_size(
        columns * lines_of_column,
        words,
        biases,
        window=window,
        bits=bits,
        accumulator_bits=accumulator_bits,
        lines_per_cycle=ports.lines[design],
        rate_numerator=ports.memory_numerator[design],
        rate_denominator=ports.memory_denominator[design],
    )
    elements = columns * length
    values = compressed_bits(density, elements, bits) + biases * (accumulator_bits - 1)
    return Images(size, values, elements)


def block_images(
    task: Task, designs: DesignBatch, ports: Ports, design: Ints, extents: Ints, first: Bools
) -> Images:
    """Images of blocks of weights.

    Parameters
    ----------
    task : whose weight
    designs, ports, design : the population, and which design each block is of
    extents : of the waves, shape (4, blocks)
    first : whether it is the first segment, with which biases come
    """
    assert isinstance(task.operation.inner, int)
    columns, length = extents[DIM_J], extents[DIM_K]
    longest = np.minimum(designs.k_segment[design], task.operation.inner)
    lines = -(-longest // designs.window[design])
    return images(
        designs, ports, design, task.weight_density, columns, length, lines, columns * first
    )


def _first_images(
    task: Task, designs: DesignBatch, ports: Ports, tiling: Tiling | None, streams: Bools
) -> Images:
    """What must be in the weight buffer before a task starts."""
    operation, every = task.operation, np.arange(len(designs))
    none = np.zeros_like(every)
    if operation.kind == "add_norm":
        assert isinstance(operation.inner, int)
        lines = -(-operation.inner // designs.window)
        return images(designs, ports, every, 1.0, none + 2, none + operation.inner, lines, none)
    if tiling is None or not operation.has_weight:
        return images(designs, ports, every, 0.0, none, none, none, none)
    first = np.where(tiling.trips > 1, tiling.block, tiling.last)
    columns, length = np.where(streams, first, tiling.extents)[[DIM_J, DIM_K]]
    lines = -(-length // designs.window)
    return images(designs, ports, every, task.weight_density, columns, length, lines, columns)


def _image_key(task: Task, streams: Bools) -> Any:
    """What decides the images of a task: equal ones are worked out once."""
    operation = task.operation
    if operation.has_weight:
        # The first block of a weight depends on how the whole product is cut.
        shape = operation.rows, operation.inner, operation.outer
        return *shape, task.weight_density, streams.tobytes()
    return operation.inner if operation.kind == "add_norm" else None


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
    workload: Workload, designs: DesignBatch, ports: Ports, tilings: list[Tiling | None]
) -> list[Residency]:
    """Decide for each task where its tensors live.

    Parameters
    ----------
    workload, designs, ports : what runs on what
    tilings : of the tasks that are products
    """
    batch = workload.batch(designs)
    free_values = designs.activation_buffer_kib * 8192
    free_masks = designs.mask_buffer_kib * 4096
    nothing = np.zeros(len(designs), dtype=bool)
    home: dict[str, Bools] = {}
    sizes: dict[str, tuple[Ints, Ints]] = {}
    found: dict[Any, Images] = {}
    placed = []
    for index, (task, tiling) in enumerate(zip(workload.tasks, tilings, strict=True)):
        operation = task.operation
        reads = tuple(home.get(name, nothing) for name in operation.reads)
        streams = nothing
        if operation.has_weight:
            assert isinstance(operation.outer, int)
            streams = ~_fit(task, designs, operation.outer * (designs.accumulator_bits - 1))
        key = _image_key(task, streams)
        if key not in found:
            found[key] = _first_images(task, designs, ports, tiling, streams)
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
        sums = ~nothing
        if tiling is not None:
            sums = tiling.sum_bits(designs) <= free_values
        placed.append(Residency(reads, write, sums, found[key], streams))
        for name in dict.fromkeys(operation.reads):
            if workload.last_read.get(name) == index:
                free_values = free_values + sizes[name][0]
                free_masks = free_masks + sizes[name][1]
    return placed
