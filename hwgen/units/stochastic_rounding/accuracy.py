"""Measured error of stochastic rounding: below one last place, and none in the mean."""

from __future__ import annotations

import numpy as np

from hwgen.units.accuracy import Accuracy
from hwgen.units.stochastic_rounding.golden import golden
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

TILES = 256


def measure(spec: StochasticRoundingSpec) -> list[Accuracy]:
    """Errors over the discarded fraction, for tiles that hold every fraction of eight bits."""
    rng = np.random.default_rng(0)
    shift = spec.bits
    fraction = np.arange(256)
    quotient = rng.integers(-(1 << (spec.bits - 2)), 1 << (spec.bits - 2), (TILES, 256))
    value = (quotient << shift) + (fraction << max(shift - 8, 0) >> max(8 - shift, 0))
    seeds = rng.integers(1, 1 << spec.noise_bits, TILES)
    exact = value / (1 << shift)
    error = golden(value, shift, seeds, spec) - exact
    return [Accuracy.of(
        "rounding", f"{TILES} tiles of 256 fractions", "discarded fraction (ulp)",
        (exact - np.floor(exact)).reshape(-1), error.reshape(-1), 1.0,
    )]
