"""Parameters of a post-sparsity module."""

from __future__ import annotations

from dataclasses import dataclass

from hwgen.units.check import check_range


@dataclass(frozen=True, slots=True)
class PostSparsitySpec:
    """A compressor of one value a cycle.

    Parameters
    ----------
    bits : width of a value, 4 to 24
    word : values in a beat of `o_value`, 1 to 64
    mask_word : positions in a beat of `o_mask`, 1 to 64

    Raises
    ------
    ValueError
        If a parameter is outside its range.
    """

    bits: int
    word: int
    mask_word: int

    def __post_init__(self) -> None:
        check_range("bits", self.bits, 4, 24)
        check_range("word", self.word, 1, 64)
        check_range("mask_word", self.mask_word, 1, 64)
