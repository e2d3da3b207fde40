"""What a lane adds to the functions of its units: which noise a tile gets."""

from __future__ import annotations

from typing import Any

SEED_SHIFTS = {"b": 12, "i": 6, "j": 0}
"""Places by which a tile's index along each dimension is moved before it is added to a seed."""


def tile_seed(seed: int, b: Any, i: Any, j: Any, noise_bits: int) -> Any:
    """Seed of a tile's noise.

    It follows from the tile's place in the result, not from when and where it is computed, so that
    results are the same in every order of loops.

    Parameters
    ----------
    seed : of the whole tensor
    b, i, j : index of the tile along each dimension, numbers or arrays of int64
    noise_bits : width of the noise; a seed of 0 counts as 1
    """
    moved = sum(index << SEED_SHIFTS[name] for name, index in (("b", b), ("i", i), ("j", j)))
    return (seed + moved) % (1 << noise_bits)
