"""Measured error of the softmax module."""

from __future__ import annotations

import numpy as np

from hwgen.units.accuracy import Accuracy
from hwgen.units.softmax.golden import golden, output_exponent
from hwgen.units.softmax.spec import SoftmaxSpec

BOUND_ULP = 1.0
"""What `golden` promises for every row."""

ROWS = 256
"""Rows that are drawn."""

LOWEST_EXPONENT = -30
"""Probabilities below 2^this share the last bin."""


def measure(spec: SoftmaxSpec) -> list[Accuracy]:
    """Compare golden with float64 on rows of every length and spread.

    Rows are normal, from so narrow that all elements get the same share to so wide that one takes
    all, and every fourth is one-hot, constant, or of two values; a share is shown by its power of
    two.
    """
    rng = np.random.default_rng(0)
    top = 2 ** (spec.bits - 1)
    i_exponent = 6 - spec.bits
    unit = 2.0 ** output_exponent(spec)
    places, errors = [], []
    for number in range(ROWS):
        n = int(np.ceil(spec.max_row ** rng.random()))
        spread = 2.0 ** rng.uniform(-2, spec.bits - 1)
        row = np.clip(np.rint(rng.normal(0, spread, n)), -top, top - 1).astype(np.int64)
        if number % 4 == 0:
            row = np.where(np.arange(n) < n ** rng.random(), row[0], row[-1])
        exact = np.exp((row - row.max()) * 2.0**i_exponent)
        exact /= exact.sum()
        # The largest number that there is stands for what is nearer to 1.
        reachable = np.minimum(exact, 1 - unit)
        errors.append(golden(row, i_exponent, spec) - reachable / unit)
        places.append(np.maximum(np.log2(np.maximum(exact, 1e-300)), LOWEST_EXPONENT))
    where = np.concatenate(places)
    return [
        Accuracy.of(
            f"softmax, exponent {output_exponent(spec)} of the result",
            f"{len(where):,} probabilities of {ROWS} rows of 1 to {spec.max_row} elements, "
            f"scores with exponent {i_exponent}, against float64",
            "exact probability (power of two)",
            where,
            np.concatenate(errors),
            BOUND_ULP,
        )
    ]
