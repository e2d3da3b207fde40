"""Which operations an accelerator's RTL does as they are cut here, for whole populations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.program import MOST_BIAS_WORDS, MOST_BIASES
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.loader import cost as loader
from sim.memory import Residency, block_images
from sim.tiling import DIM_J, Tiling
from sim.workload import Task

if TYPE_CHECKING:
    from sim.closed_form import Population

Bools = NDArray[np.bool_]

KINDS = ("product", "softmax", "add_norm")
"""Kinds of operations that an accelerator's RTL does, step by step as the reference says."""


def have_rtl(designs: DesignBatch) -> Bools:
    """Whether RTL can be made of each design as a whole: of one PE, and what its blocks need."""
    return np.asarray([pes == 1 and _has_rtl(designs, index)
                       for index, pes in enumerate(designs.pes.tolist())])


def _has_rtl(designs: DesignBatch, index: int) -> bool:
    try:
        AcceleratorSpec.of(designs.design(index))
    except ValueError:
        return False
    return True


def done_in_rtl(population: Population) -> dict[str, Bools]:
    """Whether RTL does each task, if a design has any, by the task's label; shape (designs,).

    It does where the buffers hold the activations, the result and the partial sums, heads are whole
    lines, and images fit the weight buffer: the task's own, and the next one's, which come
    meanwhile.
    """
    designs, tasks = population.designs, population.workload.tasks
    fits = [_weights_fit(population, task, home)
            for task, home in zip(tasks, population.homes, strict=True)]
    after = [*fits[1:], np.ones(len(designs), dtype=bool)]
    return {
        task.label: home.in_buffers & own & other & _heads_are_lines(task, designs)
        & (task.operation.kind in KINDS)
        for task, home, own, other in zip(tasks, population.homes, fits, after, strict=True)
    }


def _heads_are_lines(task: Task, designs: DesignBatch) -> Bools:
    operation = task.operation
    widths = {"score": operation.inner, "context": operation.outer}
    width = widths.get(operation.name) if operation.heads > 1 else None
    return np.asarray((width or 0) % designs.window == 0)


def _weights_fit(population: Population, task: Task, home: Residency) -> Bools:
    """Whether a task's images fit the weight buffer.

    One that comes as a whole has half of it, each block of a weight that streams a quarter.
    """
    designs, tiling = population.designs, population.tiling(task)
    lines = accelerator.buffer_lines(designs.mask_buffer_kib, designs.window)
    together = loader.biases_together(designs.window, designs.bits, designs.accumulator_bits)
    half = [most // 2 for most in (
        lines,
        accelerator.buffer_words(designs.weight_buffer_kib, designs.window, designs.bits),
        np.minimum(accelerator.bias_words(lines, together), MOST_BIASES // together))]
    quarter = [most // 2 for most in half]

    def within(size: loader.ImageSize, room: list[NDArray[np.int64]]) -> Bools:
        taken = size.lines, size.groups * size.values, size.biases
        found = [one <= most for one, most in zip(taken, room, strict=True)]
        found.append(size.biases <= MOST_BIAS_WORDS)
        return np.asarray(np.logical_and.reduce(found))

    whole = within(home.image.size, half)
    if not home.streams.any():
        return whole
    assert tiling is not None
    return np.where(home.streams, within(home.image.size, quarter)
                    & within(_last_block(population, task, tiling), quarter), whole)


def _last_block(population: Population, task: Task, tiling: Tiling) -> loader.ImageSize:
    """Image of the first segment's last block.

    No image takes more than it or the first block: those of other segments have less in as many
    lines. Fewer lines can take more words, since these are shared out to fewer groups.
    """
    extents = np.where(tiling.trips > 1, tiling.block, tiling.last)
    extents[DIM_J] = tiling.last[DIM_J]
    every = np.arange(len(population.designs))
    first = np.ones(len(every), dtype=bool)
    return block_images(task, population.designs, population.ports, every, extents, first).size
