"""Measured error of the layer-norm module."""

from __future__ import annotations

import math

import numpy as np

from hwgen.units.accuracy import Accuracy
from hwgen.units.layer_norm.golden import golden
from hwgen.units.layer_norm.spec import LayerNormSpec

BOUND_ULP = 1.0
"""What `golden` promises for every row."""

ROWS = 256
"""Rows that are drawn."""

OUTPUT_RANGE_LOG2 = 5
"""Results are less than 2^this: a one-hot row of 1,024 elements reaches it."""


def measure(spec: LayerNormSpec) -> list[Accuracy]:
    """Compare golden with float64 on exact integer sums, rows of every length and variance.

    γ and β are drawn up to 1; errors are shown over the row's variance, that of the integers.
    """
    rng = np.random.default_rng(0)
    top = 1 << (spec.bits - 1)
    exponent = 1 - spec.bits
    o_exponent = OUTPUT_RANGE_LOG2 - (spec.bits - 1)
    places, errors = [], []
    for _ in range(ROWS):
        n = max(2, math.ceil(spec.max_row ** rng.random()))
        spread = 2.0 ** rng.uniform(0, spec.bits - 1)
        row = np.clip(np.rint(rng.normal(0, spread, n)), -top, top - 1).astype(np.int64)
        gamma, beta = rng.integers(-top, top, (2, n))
        total, squares = int(row.sum()), sum(int(v) ** 2 for v in row.tolist())
        spread_squared = n * squares - total * total
        if not spread_squared:  # a constant row: the variance has no logarithm, β is the result
            continue
        root = math.sqrt(spread_squared + spec.epsilon * n * n * 2.0 ** (-2 * exponent))
        exact = (n * row - total) / root * (gamma * 2.0**exponent) + beta * 2.0**exponent
        target = np.clip(exact / 2.0**o_exponent, -top, top - 1)
        value = golden(row, exponent, gamma, exponent, beta, exponent, o_exponent, spec)
        errors.append(value - target)
        places.append(np.full(n, math.log2(spread_squared / n**2)))
    where = np.concatenate(places)
    return [
        Accuracy.of(
            f"layer norm, exponent {o_exponent} of the result",
            f"{len(where):,} results of {len(places)} rows of 2 to {spec.max_row} elements, "
            f"exponents {exponent} in and {o_exponent} out, against float64",
            "variance of the row's integers (power of two)",
            where,
            np.concatenate(errors),
            BOUND_ULP,
        )
    ]
