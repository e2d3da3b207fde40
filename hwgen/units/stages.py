"""Pipeline stages that several units' cycle counts are made of."""

from __future__ import annotations

from typing import Any

MULTIPLY = 3
"""Stages of a multiplication: four partial products, two sums, one sum."""

MEMORY = 2
"""Cycles from a write into an empty queue with synchronous memory until its entry can be read."""

ROW_START = 2
"""Start of a row in an engine: the cycle that tells it to, and the read of the first zero_mask."""

EXPAND = 5
"""A zero-free line made beats of elements: a beat's zero_mask, its counts, where its values are and
go to, these values, each at its position."""

COMPACT = 2
"""A beat of elements made zero-free pieces: where each value goes, and the values there."""


def tree_levels(width: Any) -> Any:
    """⌈log2 width⌉ for a width of 1 to 64, for a number and for arrays alike."""
    return sum(1 * (width > 2**level) for level in range(6))


def beats(n: Any, parallel: Any) -> Any:
    """⌈n / parallel⌉ for numbers and for arrays alike."""
    return -(-n // parallel)


DADDA = (2, 3, 4, 6, 9, 13, 19, 28, 42, 63, 94, 141, 211, 316, 474, 711, 1066)
"""Rows that 0, 1, 2 … levels of full adders bring down to two: each ⌊3/2⌋ of the one before."""


def dadda_below(rows: int) -> int:
    """Return the rows that one level of full adders makes of `rows`, a number from 3 to 1066."""
    return max(number for number in DADDA if number < rows)


def carry_save_levels(rows: Any) -> Any:
    """Levels of full adders from `rows` to two, for a number and for arrays alike."""
    return sum(1 * (rows > number) for number in DADDA[:-1])


MACRO_BITS = 2048
"""Above this capacity a memory is a macro in synthesis; up to it, flip-flops."""

BRANCH = 4
"""Registers or places that a register of a tree drives."""


def branch_levels(leaves: Any) -> Any:
    """⌈log4 leaves⌉ for a number of up to 4096 leaves and for arrays alike."""
    return sum(1 * (leaves > BRANCH**level) for level in range(6))
