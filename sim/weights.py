"""Where weights lie: their images in main memory, and the places of these in the weight buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwgen.program import MOST_BIAS_WORDS, MOST_BIASES
from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.loader.cost import ImageSize
from sim.schedule import Block, Plan

FIRST = 0, 0
"""First column and first element of the image that is there when its operation starts."""


@dataclass(frozen=True)
class Place:
    """Where an image goes in the weight buffer.

    Parameters
    ----------
    line : its first line
    word : its first word of every bank
    bias : its first word of biases
    """

    line: int
    word: int
    bias: int


@dataclass(frozen=True)
class Images:
    """The images of an operation's weight.

    Parameters
    ----------
    addresses : in main memory, by an image's first column and first element of a column; the whole
        weight, or γ and β, is the one at `FIRST`
    places : where they go, in turn: one place, or the two of a weight that streams
    """

    addresses: Mapping[tuple[int, int], int]
    places: tuple[Place, ...]


def weight_blocks(plan: Plan) -> dict[tuple[int, int], Block]:
    """Blocks of a weight that streams, each once, by first column and element, as they come."""
    return {(block.j[0], block.k[0]): block for block in plan.blocks("jk")}


class WeightPlaces:
    """Gives weights their places, operation after operation.

    Operations that have a weight take the two halves of the weight buffer in turn: the next one's
    comes while this one's is used. A weight that streams has two places, the quarters of its half:
    a block comes to the one while another is read from the other.

    Parameters
    ----------
    spec : the weight buffer
    """

    def __init__(self, spec: BufferSpec) -> None:
        self._spec = spec
        self._taken = 0
        self.words = 0
        """Words of main memory that are taken."""

    def take(self, plan: Plan) -> Images:
        """Give an operation's weight its places.

        Raises
        ------
        ValueError
            If an image does not fit its half or quarter of the weight buffer.
        """
        if not plan.streams:
            return self.take_image(plan.task.label, plan.image)
        blocks = weight_blocks(plan)
        sizes = {at: plan.block_image(block) for at, block in blocks.items()}
        return self._take(plan.task.label, sizes, 2)

    def take_image(self, label: str, size: ImageSize) -> Images:
        """Give one image, which comes as a whole, its place; see `take`."""
        return self._take(label, {FIRST: size}, 1)

    def _take(self, label: str, sizes: Mapping[tuple[int, int], ImageSize], parts: int) -> Images:
        spec, half = self._spec, self._taken % 2
        room = {"lines": spec.lines, "words of every bank": spec.words,
                "words of biases": min(spec.biases, MOST_BIASES) // spec.biases_together}
        part = {name: size // 2 // parts for name, size in room.items()}
        addresses = {}
        for at, size in sizes.items():
            needed = (size.lines, size.groups * size.values, size.biases)
            for (name, most), number in zip(part.items(), needed, strict=True):
                if number > most:
                    raise ValueError(
                        f"{label}: an image of {number} {name} does not fit the {most} of "
                        f"{'half' if parts == 1 else 'a quarter of'} the weight buffer")
            if size.biases > MOST_BIAS_WORDS:
                raise ValueError(
                    f"{label}: an image of {size.biases} words of biases is more than the "
                    f"{MOST_BIAS_WORDS} that a descriptor can ask for")
            addresses[at] = self.words
            self.words += size.words
        self._taken += 1
        first = [half * (size // 2) for size in room.values()]
        return Images(addresses, tuple(
            Place(*(start + number * size for start, size in zip(first, part.values(),
                                                                 strict=True)))
            for number in range(parts)))
