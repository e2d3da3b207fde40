"""Values that show when a constant of an activation is changed."""

from __future__ import annotations

import numpy as np

from hwgen.fixed_point import FixedPoint
from hwgen.units.activation.golden import scaled_tail
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.activation.table import LIMIT_LOG2, tail_table

CANDIDATES = 1024
"""Values that are looked at in a segment of the table."""


def probes(spec: ActivationSpec, i_exponent: int, o_exponent: int,
           rng: np.random.Generator) -> np.ndarray:
    """Arguments at the edges of the unit's cases, and for gelu two in each segment of its table.

    Those two are taken where the result is nearest to a change of its rounding, one below and one
    above, so that a coefficient's last bit counts.

    Returns
    -------
    int64 array of values of `spec.bits` bits, in random order
    """
    number = FixedPoint(spec.bits, 0)
    fall = o_exponent - i_exponent
    # Half an output unit and its neighbours, zero, the ends of the range, and where it saturates.
    marks = [0, number.minimum, number.maximum]
    if fall >= 1:
        marks += [1 << (fall - 1), 3 << (fall - 1), 5 << (fall - 1)]
    marks.append(number.maximum >> -fall if fall < 0 else number.maximum << min(fall, spec.bits))
    near = (np.asarray([mark for mark in marks if abs(mark) < 1 << 40])[:, None]
            + np.arange(-1, 2)).ravel()
    values = [near, -near, rng.integers(number.minimum, number.maximum + 1, size=8)]
    if spec.nonlinearity == "gelu":
        values.append(_tight(spec.bits, i_exponent, fall, rng))
    chosen = np.concatenate(values)
    chosen = chosen[(chosen >= number.minimum) & (chosen <= number.maximum)]
    return rng.permutation(chosen)


def _tight(bits: int, i_exponent: int, fall: int, rng: np.random.Generator) -> np.ndarray:
    """Negative arguments for which gelu's rounding is about to change."""
    table = tail_table(bits)
    segments = np.arange(len(table.coefficients))
    width = 2.0 ** (LIMIT_LOG2 - i_exponent) / len(segments)
    # The upper part of a segment, where all powers of t weigh.
    places = segments[:, None] + rng.uniform(0.6, 1.0, size=(len(segments), CANDIDATES))
    reachable = segments * width < 2.0 ** (bits - 1)
    sizes = np.floor(np.minimum(places[reachable] * width, 2.0 ** (bits - 1))).astype(np.int64)
    scale = table.fraction_bits + min(fall, bits)
    # The product's distance from half an output unit, in units that one step of Q moves it by.
    rest = (-sizes * scaled_tail(sizes, i_exponent, bits)) & ((1 << scale) - 1)
    distance = (rest - (1 << (scale - 1))) / np.maximum(sizes, 1)
    rows = np.arange(len(sizes))
    below = np.where(distance < 0, distance, -np.inf).argmax(axis=1)
    above = np.where(distance >= 0, distance, np.inf).argmin(axis=1)
    return -np.concatenate([sizes[rows, below], sizes[rows, above]])
