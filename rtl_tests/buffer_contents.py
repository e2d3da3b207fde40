"""What lies in a buffer's memories: put there before a program, and read back behind it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwgen.simulation.machine import Word
from hwgen.units.buffer.golden import Image
from hwgen.units.buffer.spec import EVEN_WORDS, LINE_ENTRIES, ODD_WORDS, BufferSpec


def words_of_lines(spec: BufferSpec, base: int, lines: int, start: int) -> list[Word]:
    """Words that hold some lines whose values begin at `start` and follow one another."""
    entries = [(LINE_ENTRIES, bank, line) for bank in range(spec.pieces)
               for line in range(base, base + lines)]
    first = start // spec.piece // 2
    words = range(first, min(spec.words // 2, first + lines // 2 + 1))
    return entries + [
        (memory, bank, address) for memory in (EVEN_WORDS, ODD_WORDS)
        for bank in range(spec.pieces) for address in words]


def read_rows(
    spec: BufferSpec, found: Mapping[Word, int], base: int, shape: tuple[int, int]
) -> np.ndarray:
    """Read rows out of what a buffer holds.

    Parameters
    ----------
    spec, found : the buffer, and its words
    base : line of the first row
    shape : rows, and elements of each

    Raises
    ------
    KeyError
        If an entry or a word that it points to is missing.
    """
    memories: dict[int, dict[tuple[int, int], int]] = {}
    for (memory, bank, address), data in found.items():
        memories.setdefault(memory, {})[bank, address] = data
    image = Image(spec, memories[LINE_ENTRIES], memories.get(EVEN_WORDS, {}),
                  memories.get(ODD_WORDS, {}), np.zeros(spec.pieces, dtype=np.int64))
    return image.rows(base, *shape)
