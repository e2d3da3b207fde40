"""Typical operands, for recording power: bell-shaped numbers, a share of them zero."""

from __future__ import annotations

import numpy as np

SPREAD = 0.25
"""Standard deviation of the operands, as a share of the largest number of the format."""


def typical(
    rng: np.random.Generator, shape: tuple[int, ...], bits: int, density: float
) -> np.ndarray:
    """Draw integers of `bits` bits, normally distributed, of which a share `density` is not zero.

    Parameters
    ----------
    rng : source of randomness
    shape : shape of the result
    bits : width of a number, with its sign
    density : share of non-zeros, 0 to 1
    """
    top = (1 << (bits - 1)) - 1
    value = np.clip(np.rint(rng.normal(0, SPREAD * top, shape)), -top, top).astype(np.int64)
    value[value == 0] = 1
    return value * (rng.random(shape) < density)
