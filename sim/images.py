"""Images of a design's weights in main memory, for the walk over its steps."""

from __future__ import annotations

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.loader import cost as loader
from hwgen.units.loader.cost import ImageSize


def lines_per_cycle(design: AcceleratorDesign) -> int:
    """Lines that a buffer gives in a cycle, G."""
    rate = design.buffer_bits_per_cycle
    lines: int = accelerator.lines_per_cycle(
        design.pes, rate.numerator, rate.denominator, design.window, design.bits
    )
    return lines


def memory_rate(design: AcceleratorDesign) -> tuple[int, int]:
    """Bits a cycle that come from main memory into a buffer, numerator and denominator."""
    rate = design.memory_bits_per_cycle
    numerator, denominator = loader.rate(
        rate.numerator, rate.denominator, lines_per_cycle(design), design.window, design.bits
    )
    return numerator, denominator


def image(design: AcceleratorDesign, lines: int, value_words: int, biases: int) -> ImageSize:
    """Size of the image of some lines.

    Parameters
    ----------
    design : whose weight buffer takes it
    lines, value_words, biases : lines, words of every bank for their values, and biases
    """
    numerator, denominator = memory_rate(design)
    return loader.image_size(
        lines,
        value_words,
        biases,
        window=design.window,
        bits=design.bits,
        accumulator_bits=design.accumulator_bits,
        lines_per_cycle=lines_per_cycle(design),
        rate_numerator=numerator,
        rate_denominator=denominator,
    )
