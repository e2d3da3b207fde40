"""The error bound of layer norm, from the errors of its parts over all that can enter them.

The tests of test_layer_norm.py look for rows with large errors; this one shows that there is none
above 1 ulp. The reciprocal root is the one part with a table: its arguments are tried one by one,
and its worst is put together with what the other parts cut off, at their worst signs. All errors
are in ulps of the output.
"""

import numpy as np
import pytest

from hwgen.units.layer_norm.golden import MANTISSA, _root_argument, golden
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.layer_norm.table import (
    HEADROOM,
    ROOT_GUARD,
    TERM_FRACTION,
    Format,
    reciprocal_root,
)

BLOCK = 1 << 20
EVERY = 1 << 25

CUT = 2
"""Units of the last place that a mantissa of variance and ε may be too small by: less than one of
the variance, and less than one of what is moved down to the larger of the two."""

CUT_OF_EPSILON = 2
"""The same in parts of ε·n²: its constant is cut off, and so is the product (test_epsilon_term)."""

CUT_OF_VARIANCE = 2.0**-42
"""What a variance of 2^58 and more has lost already, in parts of it (test_variance_is_exact)."""


def root_errors(form):
    """Least and largest relative error of the reciprocal root, over every mantissa there is.

    What is exact lies anywhere between a mantissa and what its parts may have lost above it. With
    more than 25 bits a sample of mantissas is tried, both ends of every segment of the table in it.
    """
    table = reciprocal_root(form.fraction)
    unit = 2.0**-form.mantissa
    end = 4 << form.mantissa
    begin = 1 << form.mantissa
    drop = form.mantissa - form.fraction
    least, largest = 0.0, 0.0
    for start in range(begin, min(end, begin + EVERY), BLOCK):
        mantissa = np.arange(start, min(start + BLOCK, end))
        if end - begin > EVERY:
            rng = np.random.default_rng(start)
            ends = np.arange(0, 1 << table.index_bits) << table.offset_bits
            ends = np.concatenate([ends, ends + (1 << table.offset_bits) - 1])
            octave, place = ends >> form.fraction, ends & ((1 << form.fraction) - 1)
            ends = np.where(octave == 1, ends << (drop + 1), (place + (1 << form.fraction)) << drop)
            mantissa = np.concatenate([rng.integers(begin, end, BLOCK), ends])
        value = table.evaluate(_root_argument(mantissa, form))
        rounded = (value + (1 << (ROOT_GUARD - 1))) >> ROOT_GUARD
        got = np.minimum(rounded, (1 << form.fraction) - 1) * 2.0**-form.fraction
        lowest = mantissa * unit
        highest = (lowest + CUT * unit) / (1 - CUT_OF_EPSILON * unit) * (1 + CUT_OF_VARIANCE)
        least = min(least, (got * np.sqrt(lowest) - 1).min())
        largest = max(largest, (got * np.sqrt(highest) - 1).max())
    return least, largest


@pytest.mark.parametrize("bits", range(4, 25))
def test_no_row_is_off_by_more_than_1_ulp(bits):
    form = Format.of(LayerNormSpec(1, bits, 4096, 1e-12))
    assert form.mantissa < MANTISSA - 16
    least, largest = root_errors(form)
    # The contract holds for a scaled row of up to eight times the output's range.
    range_ulps = 2.0 ** (bits - 1 + 1 + HEADROOM)
    last = 2.0**-TERM_FRACTION
    # The scaled row loses less than a last place downward, before the root (at most 1) takes it.
    # β's sticky bit keeps it on its side of every tie, within a last place.
    error = range_ulps * max(-least, largest) + last + last + 0.5
    assert error < 0.942


@pytest.mark.parametrize("bits", range(4, 13))
def test_every_row_of_two_elements_at_every_exponent(bits):
    # Only the distance of the two counts.
    top, low = (1 << (bits - 1)) - 1, -(1 << (bits - 1))
    distance = np.arange(1 << bits)
    rows = np.stack([np.full_like(distance, top), top - distance], axis=-1)
    spec = LayerNormSpec(1, bits, 2, 0.01)
    gamma, beta = np.asarray([top, low]), np.asarray([low // 3, top])
    for i_exponent in range(-bits - 8, 7):
        real = np.ldexp(distance.astype(float), i_exponent - 1)
        scaled = real / np.sqrt(real**2 + spec.epsilon) * 2.0 ** (bits - 1)
        exact = scaled[:, None] * np.asarray([1, -1]) * gamma * 2.0 ** (1 - bits) + beta / 4
        for o_exponent in (-bits, 1 - bits, 2 - bits):
            got = golden(rows, i_exponent, gamma, 1 - bits, beta, -1 - bits, o_exponent, spec)
            wanted = np.clip(exact * 2.0 ** (1 - bits - o_exponent), low, top)
            assert np.abs(got - wanted).max() < 0.7
