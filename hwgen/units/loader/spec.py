"""Parameters of a loader."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.check import check_range


@dataclass(frozen=True, slots=True)
class LoaderSpec:
    """What brings images from main memory into a buffer.

    Parameters
    ----------
    buffer : where they go; it has biases
    latency : cycles from a word's request to its arrival, 1 to 4096
    rate_numerator, rate_denominator : bits that come in a cycle, at most a word

    Raises
    ------
    ValueError
        If a parameter is outside its range, or the buffer has no biases.
    """

    buffer: BufferSpec
    latency: int
    rate_numerator: int
    rate_denominator: int

    def __post_init__(self) -> None:
        check_range("latency", self.latency, 1, 4096)
        check_range("rate_denominator", self.rate_denominator, 1, 1 << 32)
        check_range("rate_numerator", self.rate_numerator, 1,
                    self.word_bits * self.rate_denominator)
        check_range("biases of the buffer", self.buffer.biases, 1, 1 << 20)

    @property
    def word_bits(self) -> int:
        """Bits of a word: the values of a line."""
        return self.buffer.window * self.buffer.bits
