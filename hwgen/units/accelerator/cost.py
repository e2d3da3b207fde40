"""Cycles that belong to no engine: steps, configuration, program, how much moves in a cycle; and
what buffers hold.

Every argument is a number or an array, and results are what their arguments are.
"""

from __future__ import annotations

from typing import Any

from hwgen.program import DESCRIPTOR_WORDS
from hwgen.units.stages import branch_levels

CONFIGURE = 1
"""The cycle of a configuration in which it starts, before lanes are told their tiles."""


def levels(lanes_per_pe: Any, softmax_per_pe: Any) -> Any:
    """Registers from the root of a PE to its lanes and engines: a lane and an engine share a leaf.

    Parameters
    ----------
    lanes_per_pe, softmax_per_pe : lanes and softmax engines of a PE
    """
    more = softmax_per_pe > lanes_per_pe
    return branch_levels(lanes_per_pe + (softmax_per_pe - lanes_per_pe) * more)


def step_constant(pes: Any, lanes_per_pe: Any, softmax_per_pe: Any) -> Any:
    """Cycles of a step beyond its longest engine: down the trees and up, to issue, and to close.

    Parameters
    ----------
    pes, lanes_per_pe, softmax_per_pe : PEs, and lanes and softmax engines of each
    """
    return 2 * (branch_levels(pes) + levels(lanes_per_pe, softmax_per_pe)) + 2


def program_cycles(design: Any) -> Any:
    """Cycles in which the sequencer takes the descriptor of the next step.

    Parameters
    ----------
    design : AcceleratorDesign or DesignBatch
    """
    return DESCRIPTOR_WORDS + 0 * design.pes


def lines_per_cycle(
    pes: Any, rate_numerator: Any, rate_denominator: Any, window: Any, bits: Any
) -> Any:
    """Lines that a buffer gives in a cycle, G = min(pes, max(1, ⌊ρ / (window · bits)⌋)).

    Parameters
    ----------
    pes : processing elements
    rate_numerator, rate_denominator : bits a cycle of a buffer's port, ρ
    window, bits : positions of a line, and width of a value
    """
    lines = rate_numerator // (rate_denominator * window * bits)
    lines = lines + 1 * (lines < 1)
    return lines - (lines - pes) * (lines > pes)


def pieces_per_cycle(pes: Any, window: Any, piece: Any, lines: Any) -> Any:
    """Pieces that a buffer takes in a cycle, S = min(pes, P · G).

    Parameters
    ----------
    pes : processing elements
    window, piece : positions of a line and of a piece; P = ⌊window / piece⌋ pieces of a line
    lines : G, of `lines_per_cycle`
    """
    pieces = window // piece * lines
    return pieces - (pieces - pes) * (pieces > pes)


def sums_per_cycle(lanes_per_pe: Any, window: Any, bits: Any, accumulator_bits: Any) -> Any:
    """Lanes of a PE that move a partial sum each in a cycle, a power of two.

    The largest that is at most `lanes_per_pe` and whose sums fit a line's values; at least one.
    """
    found = 1 + 0 * lanes_per_pe
    for level in range(1, 11):
        lanes = 2**level
        fits = (lanes <= lanes_per_pe) & (lanes * accumulator_bits <= window * bits)
        found = found + (lanes - found) * fits
    return found


def buffer_words(kib: Any, window: Any, bits: Any) -> Any:
    """Words of every bank of a buffer, as many even ones as odd ones.

    Parameters
    ----------
    kib : the buffer's size in KiB
    window, bits : positions of a line, and width of a value
    """
    return kib * 8192 // (window * bits) // 2 * 2


def buffer_lines(mask_kib: Any, window: Any) -> Any:
    """Lines of each of the two buffers, whose masks share the mask buffer.

    Parameters
    ----------
    mask_kib : the mask buffer's size in KiB
    window : positions of a line
    """
    return mask_kib * 8192 // 2 // window


def bias_words(lines: Any, together: Any) -> Any:
    """Words of biases of the weight buffer: room for one a pair of lines, at least four words.

    Parameters
    ----------
    lines : of `buffer_lines`
    together : biases of a word
    """
    words = -(-lines // (2 * together))
    return words + (4 - words) * (words < 4)
