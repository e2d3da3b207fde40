"""Products whose rows are cut off before they are summed, on integers."""

from __future__ import annotations

from typing import Any


def digits_of(bits: int) -> int:
    """Radix-4 Booth digits of a signed number of `bits` bits."""
    return -(-bits // 2)


def truncated(left: Any, right: Any, right_bits: int, cut: int, subtract: bool = False) -> Any:
    """About ±left · right / 2^cut: a row a radix-4 Booth digit of `right`, each cut off by itself.

    A negative row is the complement of the positive one (¬v = −v − 1), which saves a carry; so
    every row is rounded down, and some of the digits that are zero count −1.

    Parameters
    ----------
    left : unsigned integers
    right : signed integers of `right_bits` bits
    right_bits : width of `right`
    cut : bits that each row loses
    subtract : whether the product's sign is changed
    """
    total = 0
    for digit in range(digits_of(right_bits)):
        triple = ((right << 1) >> (2 * digit)) & 7
        negative = triple >> 2
        size = ((triple & 1) + ((triple >> 1) & 1) - 2 * negative) * (1 - 2 * negative)
        row = ((left * size) << (2 * digit)) >> cut
        below = 1 - negative if subtract else negative
        total = total + (1 - 2 * below) * row - below
    return total
