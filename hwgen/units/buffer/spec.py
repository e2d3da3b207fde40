"""Parameters of a buffer."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_range
from hwgen.units.lines import LineFormat

MOST_ENTRIES = 1 << 20

LINE_ENTRIES, EVEN_WORDS, ODD_WORDS, BIASES = range(4)
"""The memories of a bank, and that of the biases, as the raw port numbers them."""


@dataclass(frozen=True, slots=True)
class BufferSpec:
    """A buffer of lines: a bank for each piece of a line, and a memory of biases.

    Parameters
    ----------
    bits, window, piece : of `LineFormat`
    words : words of `piece` values in a bank, even, 4 to 2^20
    lines : lines that have an entry, 1 to 2^20
    biases : biases that there is room for, 0 (none) to 2^20
    bias_bits : width of a bias, 1 to 128; 0 without biases
    biases_together : biases of a word of their memory, a power of two that divides `biases`

    Raises
    ------
    ValueError
        If a parameter is outside its range, or only one of `biases` and `bias_bits` is 0.
    """

    bits: int
    window: int
    piece: int
    words: int
    lines: int
    biases: int = 0
    bias_bits: int = 0
    biases_together: int = 1

    def __post_init__(self) -> None:
        LineFormat(self.bits, self.window, self.piece)
        check_range("words", self.words, 4, MOST_ENTRIES)
        if self.words % 2:
            raise ValueError(f"words must be even, not {self.words}")
        check_range("lines", self.lines, 1, MOST_ENTRIES)
        check_range("biases", self.biases, 0, MOST_ENTRIES)
        check_range("bias_bits", self.bias_bits, *((1, 128) if self.biases else (0, 0)))
        check_range("biases_together", self.biases_together, 1, MOST_ENTRIES)
        if self.biases_together & (self.biases_together - 1) or self.biases % self.biases_together:
            raise ValueError(f"biases_together must be a power of two that divides biases = "
                             f"{self.biases}, not {self.biases_together}")

    @property
    def line(self) -> LineFormat:
        """Format of the lines."""
        return LineFormat(self.bits, self.window, self.piece)

    @property
    def pieces(self) -> int:
        """Pieces of a line, and banks."""
        return self.window // self.piece

    @property
    def positions(self) -> int:
        """Values that a bank holds."""
        return self.words * self.piece

    @property
    def place_bits(self) -> int:
        """Bits that say where in its word a value is: the lowest of its position."""
        return self.piece.bit_length() - 1

    @property
    def position_bits(self) -> int:
        """Bits of a value's position in a bank: its word, and its place there."""
        return (self.positions - 1).bit_length()

    @property
    def word_bits(self) -> int:
        """Bits of a word of values."""
        return self.piece * self.bits

    @property
    def entry_bits(self) -> int:
        """Bits of a line's entry in a bank: its piece's zero_mask, and where its values start."""
        return self.piece + self.position_bits

    @property
    def raw_bits(self) -> int:
        """Bits of the widest memory."""
        return max(self.word_bits, self.entry_bits, self.bias_word_bits)

    @property
    def bias_words(self) -> int:
        """Words of the bias memory."""
        return self.biases // self.biases_together

    @property
    def bias_word_bits(self) -> int:
        """Bits of a word of biases, the first bias lowest."""
        return self.biases_together * self.bias_bits

    @property
    def value_bits(self) -> int:
        """Bits of all value memories."""
        return self.pieces * self.words * self.word_bits

    @property
    def mask_bits(self) -> int:
        """Bits of all zero_masks."""
        return self.lines * self.window

    @property
    def directory_bits(self) -> int:
        """Bits of all start positions."""
        return self.lines * self.pieces * self.position_bits

    @property
    def bias_memory_bits(self) -> int:
        """Bits of the bias memory."""
        return self.biases * self.bias_bits
