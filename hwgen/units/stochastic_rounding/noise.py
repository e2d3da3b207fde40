"""Noise from linear feedback shift registers of full period, as matrices over GF(2)."""

from __future__ import annotations

from functools import cache
from typing import Any

from array_api_compat import array_namespace

Array = Any

TAPS = {
    8: (8, 6, 5, 4),
    9: (9, 5),
    10: (10, 7),
    11: (11, 9),
    12: (12, 6, 4, 1),
    13: (13, 4, 3, 1),
    14: (14, 5, 3, 1),
    15: (15, 14),
    16: (16, 15, 13, 4),
    17: (17, 14),
    18: (18, 11),
    19: (19, 6, 2, 1),
    20: (20, 17),
    21: (21, 19),
    22: (22, 21),
    23: (23, 18),
    24: (24, 23, 22, 17),
}
"""Positions, the lowest being 1, whose sum is the bit that comes in below: those of primitive
polynomials, so that a register runs through all its 2^n − 1 states but zero (the list of P. Alfke,
Xilinx application note XAPP 052, 1996)."""

NOISE_BITS = tuple(TAPS)
"""Widths for which there is a polynomial."""

ZERO_SEED = 1
"""The seed that stands for 0, from which a register would never leave."""


def leap(noise_bits: int) -> int:
    """Shifts of the register from one element's noise to the next.

    The least power of two that is at least the width: no two elements share a bit of the register,
    and the period stays full, for 2^n − 1 is odd.
    """
    return 1 << (noise_bits - 1).bit_length()


@cache
def leap_columns(noise_bits: int) -> tuple[int, ...]:
    """Where one element's leap takes each bit of the register: the columns of its matrix."""
    columns = _shift_columns(noise_bits)
    for _ in range(leap(noise_bits).bit_length() - 1):
        columns = _squared(columns)
    return columns


def states(seed: Array, count: int, noise_bits: int) -> Array:
    """Noise of the elements 0 to count − 1 of tiles.

    The state after n leaps is the leap's matrix to the power n times the seed. What is known is
    doubled, from n states to 2·n by the matrix's power n.

    Parameters
    ----------
    seed : int64 array of any shape, 0 to 2^noise_bits − 1; 0 counts as `ZERO_SEED`
    count : elements of a tile, at least 1
    noise_bits : width of the register

    Returns
    -------
    int64 array of the seeds' shape and a last axis of `count`, 1 to 2^noise_bits − 1; the first
    element's noise is one leap from the seed.
    """
    xp = array_namespace(seed)
    start = xp.where(seed == 0, xp.full_like(seed, ZERO_SEED), seed)
    columns = leap_columns(noise_bits)
    known = _times(columns, start)[..., None]
    while known.shape[-1] < count:
        known = xp.concat([known, _times(columns, known)], axis=-1)
        columns = _squared(columns)
    return known[..., :count]


def _shift_columns(noise_bits: int) -> tuple[int, ...]:
    """One shift: every bit moves up by one, and the taps' sum comes in below."""
    top = (1 << noise_bits) - 1
    return tuple(
        ((1 << (place + 1)) & top) | (place + 1 in TAPS[noise_bits]) for place in range(noise_bits)
    )


def _times(columns: tuple[int, ...], state: Any) -> Any:
    """Matrix times vector, for a number and for an array of numbers alike."""
    product = 0 * state
    for place, column in enumerate(columns):
        product = product ^ (-((state >> place) & 1) & column)
    return product


def _squared(columns: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_times(columns, column) for column in columns)
