"""What a buffer's memories hold: rows cut into lines and pieces, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwgen.units.buffer.spec import LINE_ENTRIES, BufferSpec

Integers = NDArray[np.int64]
Memory = dict[tuple[int, int], int]
"""What is in a memory, by bank and address; what is missing is not defined."""


def line(values: ArrayLike) -> tuple[int, Integers]:
    """Zero-free form of a line or of a piece.

    Parameters
    ----------
    values : shape (positions,)

    Returns
    -------
    zero_mask, position 0 in its lowest bit, and the values that are not zero, shape (non-zeros,).
    """
    values = np.asarray(values, dtype=np.int64)
    return sum(1 << int(k) for k in np.flatnonzero(values)), values[values != 0]


def entry(spec: BufferSpec, zero_mask: int, start: int) -> int:
    """Encode a line's entry in a bank: the zero_mask of its piece in the lowest bits, then start.

    An empty piece behind a bank's last position keeps the lower bits of `start`.
    """
    return zero_mask | start % (1 << spec.position_bits) << spec.piece


def word(spec: BufferSpec, values: Iterable[int]) -> int:
    """Encode up to `piece` values, the first in the lowest bits; the other places are 0."""
    return sum((int(value) % (1 << spec.bits)) << spec.bits * place
               for place, value in enumerate(values))


def values_of(spec: BufferSpec, code: int) -> list[int]:
    """Values of a word."""
    half, whole = 1 << spec.bits - 1, 1 << spec.bits
    return [((code >> spec.bits * place) + half) % whole - half for place in range(spec.piece)]


def storage_order(spec: BufferSpec, rows: int, elements: int) -> list[tuple[int, int]]:
    """Pieces in the order of rows, as (row, number of the piece in its row)."""
    return [(row, piece) for row in range(rows) for piece in range(-(-elements // spec.piece))]


def capacity_needed(rows: ArrayLike, piece: int, pieces: int) -> Integers:
    """Positions that rows need in each bank: the non-zeros of its pieces.

    Parameters
    ----------
    rows : shape (rows, elements)
    piece, pieces : positions of a piece, pieces of a line

    Returns
    -------
    Shape (pieces,), in values; a bank takes them in whole words.
    """
    cut = _pieces(np.asarray(rows, dtype=np.int64), piece, pieces)
    counts: Integers = np.count_nonzero(cut, axis=(0, 1, 3)).astype(np.int64)
    return counts


@dataclass(frozen=True)
class Image:
    """Contents of a buffer's memories.

    Parameters
    ----------
    spec : the buffer
    entries : of the memories of line entries, by bank and line
    even, odd : of the memories of words, by bank and half of the word's number
    used : positions that were filled in each bank, shape (pieces,)
    """

    spec: BufferSpec
    entries: Memory
    even: Memory
    odd: Memory
    used: Integers

    def writes(self) -> Iterator[tuple[int, int, int, int]]:
        """Give what to write through the raw port: memory, bank, address and data."""
        for number, memory in enumerate((self.entries, self.even, self.odd), LINE_ENTRIES):
            for (bank, address), data in memory.items():
                yield number, bank, address, data

    def rows(self, base: int, rows: int, elements: int) -> Integers:
        """Read rows back.

        Parameters
        ----------
        base : line of the first row's first window
        rows, elements : how many rows, and elements of each

        Returns
        -------
        Shape (rows, elements); what stands behind a row's end is ignored.

        Raises
        ------
        KeyError
            If an entry or a word is missing.
        """
        spec = self.spec
        lines = -(-elements // spec.window)
        result = np.zeros((rows, lines * spec.window), dtype=np.int64)
        for row, piece in storage_order(spec, rows, elements):
            bank, offset = piece % spec.pieces, row * lines + piece // spec.pieces
            code = self.entries[bank, base + offset]
            places = [k for k in range(spec.piece) if code >> k & 1]
            result[row, [piece * spec.piece + place for place in places]] = self._values(
                bank, code >> spec.piece, len(places))
        return result[:, :elements]

    def _values(self, bank: int, start: int, count: int) -> list[int]:
        """Some successive values of a bank."""
        number, place = divmod(start, self.spec.piece)
        found: list[int] = []
        while len(found) < place + count and count:
            memory = self.odd if number % 2 else self.even
            found += values_of(self.spec, memory[bank, number // 2])
            number += 1
        return found[place:place + count]


def pack(spec: BufferSpec, rows: ArrayLike, base: int = 0, start: ArrayLike = 0,
         limit: int | None = None, order: Iterable[tuple[int, int]] | None = None) -> Image:
    """Lay rows out as the hardware does that stores their pieces one after another.

    A row takes ⌈elements / window⌉ lines; what a line has behind the row's end is not stored.

    Parameters
    ----------
    spec : the buffer
    rows : shape (rows, elements)
    base : line of the first row's first window
    start : position of the first value in all banks or in each, a multiple of `piece`
    limit : position that no value may reach; by default the end of a bank
    order : pieces as they are stored, as (row, number of the piece in its row); by default those
        of `storage_order`

    Returns
    -------
    The image; unused places of a bank's last word are 0, where the hardware leaves anything.

    Raises
    ------
    ValueError
        If the rows do not fit, a value takes more than `bits`, or `start` is inside a word.
    """
    rows = np.asarray(rows, dtype=np.int64)
    count, elements = rows.shape
    starts = [int(first) for first in np.broadcast_to(start, (spec.pieces,))]
    limit = spec.positions if limit is None else limit
    lines = -(-elements // spec.window)
    _check(spec, rows, base + count * lines, starts)
    cut = _pieces(rows, spec.piece, spec.pieces)
    stored: list[list[int]] = [[] for _ in starts]
    entries: Memory = {}
    for row, piece in storage_order(spec, count, elements) if order is None else order:
        number, bank = divmod(piece, spec.pieces)
        zero_mask, values = line(cut[row, number, bank])
        position = starts[bank] + len(stored[bank])
        if len(values) and position + len(values) > limit:
            raise ValueError(f"bank {bank} needs more than the positions {starts[bank]} to {limit}")
        entries[bank, base + row * lines + number] = entry(spec, zero_mask, position)
        stored[bank] += values.tolist()
    memories: tuple[Memory, Memory] = {}, {}
    for bank, packed in enumerate(stored):
        for first in range(0, len(packed), spec.piece):
            address, odd = divmod((starts[bank] + first) // spec.piece, 2)
            memories[odd][bank, address] = word(spec, packed[first:first + spec.piece])
    return Image(spec, entries, *memories, np.array([len(packed) for packed in stored]))


def _pieces(rows: Integers, piece: int, pieces: int) -> Integers:
    """Rows cut into pieces, shape (rows, lines, pieces, piece), filled up with zeros."""
    count, elements = rows.shape
    lines = -(-elements // (piece * pieces))
    filled = np.zeros((count, lines * pieces * piece), dtype=np.int64)
    filled[:, :elements] = rows
    return filled.reshape(count, lines, pieces, piece)


def _check(spec: BufferSpec, rows: Integers, end: int, starts: list[int]) -> None:
    """Refuse what cannot be stored."""
    half = 1 << spec.bits - 1
    if rows.size and (rows.min() < -half or rows.max() >= half):
        raise ValueError(f"values must fit {spec.bits} bits, not {rows.min()} to {rows.max()}")
    if end > spec.lines:
        raise ValueError(f"rows must end at line {spec.lines}, not {end}")
    if any(first % spec.piece for first in starts):
        raise ValueError(f"start must be a multiple of {spec.piece}, not {starts}")
