"""Images of rows in main memory, as the loader puts them into a buffer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from hwgen.units.buffer.golden import line, word
from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.loader.cost import ImageSize


def value_words(spec: BufferSpec, rows: ArrayLike) -> int:
    """Words of every bank that the non-zeros of some rows need: those of the fullest bank.

    Parameters
    ----------
    spec : the buffer
    rows : integers, shape (rows, elements)
    """
    cut = _lines(spec, rows)
    count = np.count_nonzero(cut, axis=(0, 2))
    return -(-int(count.max(initial=0)) // spec.piece)


def image(
    spec: BufferSpec, rows: ArrayLike, size: ImageSize, biases: ArrayLike = ()
) -> list[int]:
    """Lay rows out in main memory, in words of `window` · `bits` bits.

    Words of biases; then groups of a word of masks, those of `bits` lines from the lowest bit on,
    and `size.values` words of values. A word of values is a word of every bank, the first bank's
    lowest; in a bank the non-zeros of all lines follow one another.

    Parameters
    ----------
    spec : the buffer that it is for
    rows : integers, shape (rows, elements)
    size : of `image_size`
    biases : integers, shape (biases,)

    Raises
    ------
    ValueError
        If the rows have another number of lines, or a bank more non-zeros than the image has
        room for.
    """
    cut = _lines(spec, rows)
    if len(cut) != size.lines:
        raise ValueError(f"the rows have {len(cut)} lines, not {size.lines}")
    needed, room = value_words(spec, rows), size.groups * size.values
    if needed > room:
        raise ValueError(f"the rows need {needed} words of every bank where the image has {room}; "
                         f"declare a density of at least {needed / max(1, len(cut)):.3f}")
    together = spec.biases_together
    offsets = np.asarray(biases, dtype=np.int64).tolist()
    words = [
        sum(value % (1 << spec.bias_bits) << spec.bias_bits * place
            for place, value in enumerate(offsets[first:first + together]))
        for first in range(0, len(offsets), together)
    ]
    masks = [line(one.reshape(-1))[0] for one in cut]
    banks = [one[one != 0].tolist() for one in cut.swapaxes(0, 1)]
    for group in range(size.groups):
        words.append(sum(mask << spec.window * place for place, mask in enumerate(
            masks[group * spec.bits:(group + 1) * spec.bits])))
        for number in range(group * size.values, (group + 1) * size.values):
            part = slice(number * spec.piece, (number + 1) * spec.piece)
            words.append(sum(word(spec, values[part]) << spec.word_bits * bank
                             for bank, values in enumerate(banks)))
    return words


def _lines(spec: BufferSpec, rows: ArrayLike) -> np.ndarray:
    """Rows cut into pieces of lines, shape (lines, pieces, piece), filled up with zeros."""
    rows = np.asarray(rows, dtype=np.int64)
    count, elements = rows.shape
    lines = -(-elements // spec.window)
    filled = np.zeros((count, lines * spec.window), dtype=np.int64)
    filled[:, :elements] = rows
    return filled.reshape(count * lines, spec.pieces, spec.piece)
