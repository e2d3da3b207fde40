"""Stochastic rounding on integers, bit for bit."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from hwgen.fixed_point import saturate
from hwgen.units.stochastic_rounding.noise import states
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

Array = Any


def golden(
    value: Array, shift: int, seed: Array | int, spec: StochasticRoundingSpec
) -> Array:
    """Divide tiles of integers by 2**shift, rounded up or down by chance, saturating.

    A value's noise depends on the tile's seed and the value's place in the tile alone. It is added
    to the first `noise_bits` bits of what the shift discards, F · 2^noise_bits of a last place
    (⌊F · 2^noise_bits⌋ where there are more), and the carry rounds up. Over the full period of
    2^noise_bits − 1 values of the noise, exactly ⌊F · 2^noise_bits⌋ round up: the mean differs from
    the exact quotient by at most 2^−noise_bits, for either sign, and whole quotients stay.

    Parameters
    ----------
    value : int64 array of shape (…, n) of numbers of `accumulator_bits` bits, a tile a row
    shift : 0 to accumulator_bits − 1
    seed : int, or int64 array of shape (…): each tile's, 0 to 2^noise_bits − 1; 0 counts as 1
    spec : the module

    Returns
    -------
    int64 array of the shape of `value`, of `bits` bits

    Raises
    ------
    ValueError
        If a value, the shift or a seed is outside its range.
    """
    xp = array_namespace(value)
    limit = 1 << (spec.accumulator_bits - 1)
    seeds = xp.asarray(seed, dtype=xp.int64)
    _check("value", value, -limit, limit - 1)
    _check("seed", seeds, 0, (1 << spec.noise_bits) - 1)
    if not 0 <= shift < spec.accumulator_bits:
        raise ValueError(f"shift must be 0 to {spec.accumulator_bits - 1}, not {shift}")
    floor = value >> shift
    rest = value - (floor << shift)
    fewer = shift - spec.noise_bits
    fraction = rest >> fewer if fewer >= 0 else rest << -fewer
    noise = states(seeds, value.shape[-1], spec.noise_bits)
    return saturate(floor + ((fraction + noise) >> spec.noise_bits), spec.bits)


def _check(name: str, value: Array, low: int, high: int) -> None:
    xp = array_namespace(value)
    if 0 in value.shape:
        raise ValueError(f"{name} must hold at least one number, not the shape {value.shape}")
    for found in (int(xp.min(value)), int(xp.max(value))):
        if not low <= found <= high:
            raise ValueError(f"{name} must be {low} to {high}, not {found}")
