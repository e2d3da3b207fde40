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
    bits = population.designs.bits[design]
    extents = wave.extents
    lines_of_row = -(-extents[DIM_K] // population.designs.window[design])
    rows = extents[DIM_B] * extents[DIM_I] * steps.new_left
    elements = rows * extents[DIM_K]
    transfers.occupy("activation_lines", rows * lines_of_row)
    move(
        transfers,
        "read",
        home.reads[0][design],
        elements,
        compressed_bits(task.read_densities[0], elements, bits),
    )
    rows = extents[DIM_J] * steps.new_right
    if task.operation.has_weight:
        elements = rows * extents[DIM_K]
        transfers.occupy("weight_lines", rows * lines_of_row)
        biases = (
            rows * (wave.segment == 0) * (population.designs.accumulator_bits[design] - 1)
        )
        values = compressed_bits(task.weight_density, elements, bits) + biases
        transfers.add("weight_read", values)
        transfers.add("mask_read", elements)
    else:
        rows = rows * extents[DIM_B]
        elements = rows * extents[DIM_K]
        transfers.occupy("activation_lines", rows * lines_of_row)
        move(
            transfers,
            "read",
            home.reads[1][design],
            elements,
            compressed_bits(task.read_densities[1], elements, bits),
        )


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
