"""What lies in a buffer's memories: put there before a program, and read back behind it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwgen.simulation.machine import Word
from hwgen.units.buffer.golden import Image
from hwgen.units.buffer.spec import BIASES, EVEN_WORDS, LINE_ENTRIES, ODD_WORDS, BufferSpec


def words_of_lines(spec: BufferSpec, base: int, lines: int, start: int) -> list[Word]:
    """Words that hold some lines whose values begin at `start` and follow one another."""
    entries = [(LINE_ENTRIES, bank, line) for bank in range(spec.pieces)
               for line in range(base, base + lines)]
    first = start // spec.piece // 2
    words = range(first, min(spec.words // 2, first + lines // 2 + 1))
    return entries + [
        (memory, bank, address) for memory in (EVEN_WORDS, ODD_WORDS)
        for bank in range(spec.pieces) for address in words]


def words_of_biases(first: int, count: int) -> list[Word]:
    """Some words of biases."""
    return [(BIASES, 0, first + number) for number in range(count)]


def bias_words(spec: BufferSpec, first: int, biases: np.ndarray) -> dict[Word, int]:
    """Words of biases as they lie from a word on; the last one is filled up with zeros."""
    found: dict[Word, int] = {}
    for number, value in enumerate(biases.tolist()):
        word, place = divmod(number, spec.biases_together)
        code = value % (1 << spec.bias_bits) << spec.bias_bits * place
        at = (BIASES, 0, first + word)
        found[at] = found.get(at, 0) | code
    return found


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
