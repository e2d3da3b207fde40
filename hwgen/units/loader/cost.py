"""How large images in main memory are, and how long it takes to load them.

Every argument is a number or an array, and results are what their arguments are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LOAD = 2
"""Cycles from a word's arrival to its first write: the register that it comes to, and that of the
masks' counts. Words of values and of biases are written a cycle earlier."""


@dataclass(frozen=True)
class ImageSize:
    """What of an image depends on shape, density and design alone; numbers, or arrays of them.

    Parameters
    ----------
    lines : lines that the image holds
    biases : words of biases, which come first
    groups : groups of a word of masks and words of values
    values : words of values in each group
    slots : slots that each group takes: one a word, and idle ones if masks could not keep up
    """

    lines: Any
    biases: Any
    groups: Any
    values: Any
    slots: Any

    @property
    def words(self) -> Any:
        """Words of main memory."""
        return self.biases + self.groups * (1 + self.values)

    @property
    def all_slots(self) -> Any:
        """Slots in which all of it comes."""
        return self.biases + self.groups * self.slots


def biases_together(window: Any, bits: Any, accumulator_bits: Any) -> Any:
    """Biases in a word: the largest power of two that fits, at least one.

    Parameters
    ----------
    window, bits : positions of a line, and width of a value; a word has window · bits
    accumulator_bits : of a partial sum; a bias has one less
    """
    found = 1 + 0 * window
    for level in range(1, 11):
        biases = 2**level
        fits = biases * (accumulator_bits - 1) <= window * bits
        found = found + (biases - found) * fits
    return found


def rate(numerator: Any, denominator: Any, lines_per_cycle: Any, window: Any, bits: Any) -> Any:
    """Bits a cycle that come from main memory, at most one word for each of G lines.

    Parameters
    ----------
    numerator, denominator : of main memory's own rate
    lines_per_cycle : G
    window, bits : positions of a line, and width of a value

    Returns
    -------
    Numerator and denominator.
    """
    most = lines_per_cycle * window * bits
    over = numerator > most * denominator
    return numerator + (most - numerator) * over, denominator + (1 - denominator) * over


def unpack_cycles(bits: Any, lines_per_cycle: Any) -> Any:
    """Cycles in which the masks of a word go to the directory, G lines a cycle."""
    return -(-bits // lines_per_cycle)


def image_size(
    lines: Any,
    value_words: Any,
    biases: Any,
    *,
    window: Any,
    bits: Any,
    accumulator_bits: Any,
    lines_per_cycle: Any,
    rate_numerator: Any,
    rate_denominator: Any,
) -> ImageSize:
    """Size of the image of some lines.

    A word of masks holds those of `bits` lines. The words of values are shared out over the groups
    equally. A group takes as many slots as it has words, or as many as it takes until its masks
    are in the directory.

    Parameters
    ----------
    lines : lines, 0 for no image
    value_words : words of every bank that hold the non-zeros
    biases : how many come with them
    window, bits, accumulator_bits : of the design
    lines_per_cycle : G
    rate_numerator, rate_denominator : of main memory, from `rate`
    """
    groups = -(-lines // bits)
    values = -(-value_words // (groups + (groups < 1)))
    masks = unpack_cycles(bits, lines_per_cycle)
    needed = -(-masks * rate_numerator // (window * bits * rate_denominator))
    slots = 1 + values + (needed - 1 - values) * (needed > 1 + values)
    words = -(-biases // biases_together(window, bits, accumulator_bits))
    return ImageSize(lines, words, groups, values, slots)


def overhead(latency: Any, bits: Any, lines_per_cycle: Any) -> Any:
    """Cycles of a job of main memory beyond those in which its bits come.

    Parameters
    ----------
    latency : cycles from a word's request to its arrival
    bits : width of a value
    lines_per_cycle : G
    """
    return latency + unpack_cycles(bits, lines_per_cycle) + LOAD


def memory_cycles(
    bits: Any,
    latency: Any,
    *,
    width: Any,
    lines_per_cycle: Any,
    rate_numerator: Any,
    rate_denominator: Any,
) -> Any:
    """Cycles from the order to the last write in a buffer, both included; 0 for no bits.

    Parameters
    ----------
    bits : that move, idle slots included
    latency : cycles from a word's request to its arrival
    width : bits of a value
    lines_per_cycle : G
    rate_numerator, rate_denominator : of main memory, from `rate`
    """
    moved = -(-bits * rate_denominator // rate_numerator)
    return (overhead(latency, width, lines_per_cycle) + moved) * (bits > 0)
