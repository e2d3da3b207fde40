"""What moves in the steps of an operation, for the closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.charge import Transfers
from sim.dataflow import StepClasses
from sim.memory import Residency, block_images
from sim.tiling import DIM_B, DIM_I, DIM_J, DIM_K, Ints, Tiling
from sim.workload import Task, compressed_bits

if TYPE_CHECKING:
    from sim.closed_form import Population

Floats = NDArray[np.float64]


def dispatch(
    transfers: Transfers, population: Population, task: Task, home: Residency, steps: StepClasses
) -> None:
    """Operands and partial sums of the following wave."""
    design, wave = steps.design, steps.following
    extents = wave.extents
    rows = extents[DIM_B] * extents[DIM_I] * steps.new_left
    _rows(transfers, population, steps, home.reads[0], task.read_densities[0], rows)
    rows = extents[DIM_J] * steps.new_right
    if not task.operation.has_weight:
        rows = rows * extents[DIM_B]
        _rows(transfers, population, steps, home.reads[1], task.read_densities[1], rows)
        return
    elements = rows * extents[DIM_K]
    transfers.occupy("weight_lines", rows * _lines_of_row(population, steps))
    biases = rows * (wave.segment == 0) * (population.designs.accumulator_bits[design] - 1)
    values = compressed_bits(task.weight_density, elements, population.designs.bits[design])
    transfers.add("weight_read", values + biases)
    transfers.add("mask_read", elements)


def _lines_of_row(population: Population, steps: StepClasses) -> Ints:
    """Lines of a row, or of a column, of what the following wave takes."""
    return np.asarray(
        -(-steps.following.extents[DIM_K] // population.designs.window[steps.design])
    )


def _rows(
    transfers: Transfers,
    population: Population,
    steps: StepClasses,
    resident: NDArray[np.bool_],
    density: float,
    rows: Ints,
) -> None:
    """Rows of an activation that the following wave takes; `resident` is of shape (designs,)."""
    design, elements = steps.design, rows * steps.following.extents[DIM_K]
    bits = compressed_bits(density, elements, population.designs.bits[design])
    transfers.occupy("activation_lines", rows * _lines_of_row(population, steps))
    move(transfers, "read", resident[design], elements, bits)


def copy(
    transfers: Transfers, population: Population, task: Task, home: Residency, steps: StepClasses
) -> dict[str, Floats]:
    """Blocks of weights that come from main memory, each two steps before its wave.

    Returns
    -------
    What is written into the weight and the mask buffer: "bits.<flow>" and "blocks.<flow>", shape
    (designs,).
    """
    if steps.copies is None or not home.streams.any():
        return {}
    copies = steps.copies.of(home.streams[steps.design[steps.copies.at]])
    at, wave = copies.at, copies.wave
    designs, design, count = population.designs, steps.design[at], steps.count[at]
    word = (designs.window * designs.bits)[design]
    made = block_images(task, designs, population.ports, design, wave.extents, wave.segment == 0)
    transfers.add("memory_read", made.size.words * word, at)
    transfers.occupy("waiting", (made.size.all_slots - made.size.words) * word, at)

    written: dict[str, Floats] = {}
    for flow, bits in (("weight_load", made.values), ("mask_load", made.masks)):
        accesses = np.ceil(bits / population.block_bits)
        for name, what in ((f"bits.{flow}", bits), (f"blocks.{flow}", accesses)):
            written[name] = np.bincount(design, what * count, len(designs)).astype(np.float64)
    return written


def move(
    transfers: Transfers, way: str, resident: NDArray[np.bool_], masks: Ints, values: Ints
) -> None:
    """Move values and masks of an activation between the PEs and where it lives."""
    transfers.add(f"activation_{way}", values * resident)
    transfers.add(f"mask_{way}", masks * resident)
    transfers.add(f"memory_{way}", (values + masks) * ~resident)


def write(
    transfers: Transfers,
    population: Population,
    task: Task,
    home: Residency,
    steps: StepClasses,
    tiling: Tiling,
) -> None:
    """Results or partial sums of the previous wave, and partial sums of the following one."""
    design = steps.design
    last = steps.previous.segment == tiling.trips[DIM_K][design] - 1
    b, i, j = steps.previous.extents[:DIM_K]
    elements, piece = b * i * j, population.designs.piece[design]
    results = elements * last
    pieces = b * j * -(-i // piece) if task.transposed else b * i * -(-j // piece)
    transfers.occupy("pieces", pieces * last)
    move(
        transfers,
        "write",
        home.write[design],
        results,
        compressed_bits(task.write_density, results, population.designs.bits[design]),
    )
    spills, wide = tiling.spills[design], population.designs.accumulator_bits[design]
    drains = ~last & spills & steps.previous.exists
    fills = (steps.following.segment > 0) & spills & steps.following.exists
    drained = elements * drains * wide
    filled = np.prod(steps.following.extents[:DIM_K], axis=0) * fills * wide
    cycles = _sum_cycles(population, tiling)[design]
    transfers.occupy("drain", cycles * drains)
    transfers.occupy("fill", cycles * fills)
    resident = home.sums[design]
    transfers.add("activation_write", drained * resident)
    transfers.add("activation_fill", filled * resident)
    transfers.add("memory_write", drained * ~resident)
    transfers.add("memory_read", filled * ~resident)


def _sum_cycles(population: Population, tiling: Tiling) -> Ints:
    """Cycles in which a wave's partial sums leave the lanes or come back, shape (designs,)."""
    designs = population.designs
    pes = -(-tiling.lanes // designs.lanes_per_pe)
    words_of_pe = tiling.sum_words(designs) // pes
    return np.asarray(words_of_pe * -(-pes // population.ports.lines))
