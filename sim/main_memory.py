"""What main memory holds before a program starts: the images of its weights."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.program import MainMemory
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.loader.golden import image, value_words
from model.recording import RecordedProduct, RecordedRows
from sim.schedule import Block, Plan
from sim.weights import FIRST, Images, weight_blocks

Recorded = RecordedProduct | RecordedRows
ImageWords = dict[int, list[int]]
"""Words of images, by the address of the first."""


def weight_rows(recorded: Recorded) -> tuple[np.ndarray, np.ndarray]:
    """Rows of an operation's weight as they are stored, and biases.

    Returns
    -------
    Columns of a product's weight, shape (columns, elements), and a bias of each; or γ and β.
    """
    if isinstance(recorded, RecordedProduct):
        assert recorded.initial is not None
        return recorded.right.T, np.asarray(recorded.initial)
    assert recorded.gamma is not None and recorded.beta is not None
    return np.stack([recorded.gamma, recorded.beta]), np.empty(0, dtype=np.int64)


def block_rows(plan: Plan, rows: np.ndarray, block: Block) -> np.ndarray:
    """Columns of a block of a weight, filled up to the block's lines."""
    part = rows[slice(*block.j), slice(*block.k)]
    behind = plan.block_lines * plan.design.window - part.shape[1]
    return np.pad(part, ((0, 0), (0, behind)))


def weight_images(
    spec: BufferSpec, plan: Plan, recorded: Recorded, images: Images
) -> ImageWords:
    """Images of an operation's weight.

    Parameters
    ----------
    spec : the weight buffer
    plan, recorded : the operation, and its integers
    images : where its images lie

    Raises
    ------
    ValueError
        If a bank has more non-zeros than the declared density gives it words for.
    """
    rows, biases = weight_rows(recorded)
    try:
        if not plan.streams:
            return {images.addresses[FIRST]: image(spec, rows, plan.image, biases)}
        return {
            images.addresses[at]: image(
                spec, block_rows(plan, rows, block), plan.block_image(block),
                biases[slice(*block.j)] if block.k[0] == 0 else ())
            for at, block in weight_blocks(plan).items()
        }
    except ValueError as error:
        raise ValueError(f"{plan.task.label}: {error}") from None


def least_density(plan: Plan, recorded: Recorded) -> float:
    """Smallest declared density of a product's weight with which all its images hold it."""
    spec = AcceleratorSpec.of(plan.design).weights
    rows, _ = weight_rows(recorded)
    parts = [rows]
    if plan.streams:
        blocks = weight_blocks(plan).values()
        parts = [rows[slice(*block.j), slice(*block.k)] for block in blocks]
    density: float = max(
        value_words(spec, part) / (len(part) * -(-part.shape[1] // spec.window))
        for part in parts)
    return density


def main_memory(design: AcceleratorDesign, images: Iterable[ImageWords]) -> MainMemory:
    """Put images together; what none of them holds is 0.

    Parameters
    ----------
    design : whose main memory it is
    images : as `weight_images` gives them
    """
    held = {address: words for some in images for address, words in some.items()}
    words = [0] * max((address + len(one) for address, one in held.items()), default=0)
    for address, one in held.items():
        words[address : address + len(one)] = one
    return MainMemory(tuple(words), design.memory.latency_cycles, design.memory_bits_per_cycle)
