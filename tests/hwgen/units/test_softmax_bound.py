"""The error bound of softmax, from the errors of its parts over all that can enter them.

The tests of test_softmax.py look for rows with large errors; this one shows that there is none
above 1 ulp. The parts are small enough to try every argument, and the worst of each are put
together at their worst signs. All errors are in ulps of the output, 2^−(bits − 1).
"""

import numpy as np
import pytest

from hwgen.units.softmax.golden import _exponential, _reciprocal, golden
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import COLUMNS, Format, Reciprocal, whole_table

BLOCK = 1 << 22
EVERY = 1 << 25
GRID = 1 << 14


def mantissa_errors(form):
    """Least and largest relative error of e^−r, over every r that the module can reach.

    r is t while the power of two of t is 0; its largest values come with a power of 1.
    """
    ulp = 2.0 ** (form.bits - 1)
    least, largest = 0.0, 0.0
    # Rests of k = 0 end where the table's k first is 1, at t = 0.75; k = 1 reaches its largest.
    first = int(0.75 * 2**form.fraction)
    last = int((whole_table().index(2) / 8) * 2**form.fraction)
    for low in range(0, last, BLOCK):
        t = np.arange(low, min(low + BLOCK, last))
        whole = (t >= first).astype(np.int64)
        rest = t - whole * form.ln2[1]
        assert (rest >= 0).all()
        mantissa = np.ldexp((_exponential(t, -form.fraction, form) << whole).astype(float),
                            -(form.fraction + form.growth))
        exact = np.exp(-np.ldexp(rest.astype(float), -form.fraction))
        error = (mantissa / exact - 1) * ulp
        least, largest = min(least, error.min()), max(largest, error.max())
    return least, largest


def reciprocal_errors(bits):
    """Least and largest error of 1/(1 + f), over every f of up to 25 bits, else a sample of them.

    The sample holds both ends of every segment of the table.
    """
    form = Reciprocal(bits - 1 + COLUMNS)
    low_bits = form.bits - form.index_bits
    least, largest = 0.0, 0.0
    for start in range(0, min(1 << form.bits, EVERY), BLOCK):
        f = np.arange(start, min(start + BLOCK, 1 << form.bits))
        if 1 << form.bits > EVERY:
            rng = np.random.default_rng(start)
            f = rng.integers(0, 1 << form.bits, BLOCK)
            ends = np.arange(1 << form.index_bits) << low_bits
            f = np.concatenate([f, ends, ends + (1 << low_bits) - 1])
        exact = 1 / (1 + np.ldexp(f.astype(float), -form.bits))
        error = np.ldexp(_reciprocal(f, form).astype(float), -form.bits) - exact
        least, largest = min(least, error.min()), max(largest, error.max())
    return least * 2.0 ** (bits - 1), largest * 2.0 ** (bits - 1)


def row_bound(form, mantissa, inverse):
    """Largest error of an output, given the extreme errors of mantissas and reciprocals.

    p is the output's exact value, q ≥ p that of the row's largest element, whose term is exactly 1;
    so an element that is not the largest has p ≤ 1/2, and the row's sum S is at least 1/(1 − p).
    """
    ulp = 2.0 ** (1 - form.bits)
    unit = 2.0**-form.fraction
    # t is cut off to a multiple of the unit and k·ln 2 rounded down to one: the exponent is off by
    # less than a unit either way.
    low, high = ((1 + mantissa[0] * ulp) * np.exp(-unit), (1 + mantissa[1] * ulp) * np.exp(unit))
    # Half a unit of fraction + growth bits for each of 2^growth terms, where S ≥ 1; terms below
    # e^−32 that count as 0.
    lost = unit / 2 + 2.0**form.growth * np.exp(-32)
    # A reciprocal's argument and the reciprocal after its shift lose less than a column each.
    column = 2.0**-form.inverse
    digits = np.maximum(form.kept + 1 - 2 * np.arange(form.factor_digits), 0)
    rows = (1 - 0.5**digits).sum() * ulp * 0.5**COLUMNS
    offset = (form.rounding - (1 << (COLUMNS - 1))) * ulp * 0.5**COLUMNS
    worst = 0.0
    for largest in (False, True):
        p = np.linspace(0, 1 if largest else 0.5, GRID + 1)
        others = 1 - p if largest else 1 - 2 * p
        for sign in (1, -1):
            own, rest = (high, low) if sign > 0 else (low, high)
            # In parts of S: the element's term, the largest one as small as can be, all others.
            term = p if largest else p * own
            total = p + others * rest - sign * lost + (0 if largest else term)
            ratio = term / total
            # What a term has lost when it is multiplied: half a unit of `kept` bits, none from 1.
            if not largest:
                ratio += sign * 0.5 ** (form.kept + 1) * (1 - p) / total
            # A term over 2^power is below 1 and below 2p, for the sum over 2^power is in [1, 2).
            error = inverse[1] * ulp if sign > 0 else 2 * column - inverse[0] * ulp
            ratio += sign * np.minimum(1, 2 * ratio) * error
            ratio += offset if sign > 0 else offset - rows
            worst = max(worst, (sign * (ratio - p)).max() / ulp)
    return worst + 0.5


@pytest.mark.parametrize("bits", [
    *range(4, 16), *(pytest.param(bits, marks=pytest.mark.slow) for bits in range(16, 25))])
def test_no_row_is_off_by_more_than_1_ulp(bits):
    mantissa, inverse = mantissa_errors(Format(bits, 12)), reciprocal_errors(bits)
    for growth in (1, 9, 12):
        assert row_bound(Format(bits, growth), mantissa, inverse) < 0.983
    # A row of one element is 1, which saturates.
    one = golden(np.zeros((1, 1), dtype=np.int64), 0, SoftmaxSpec(1, bits, 1))
    assert one == 2 ** (bits - 1) - 1


@pytest.mark.parametrize("bits", range(4, 13))
def test_every_distance_at_every_exponent(bits):
    # Rows of the largest element and one other: all that two elements can be, for only the
    # distance counts.
    spec = SoftmaxSpec(1, bits, 2)
    distance = np.arange(1 << bits)
    top = (1 << (bits - 1)) - 1
    rows = np.stack([np.full_like(distance, top), top - distance], axis=-1)
    for i_exponent in range(-bits - 8, 7):
        term = np.exp(-np.ldexp(distance.astype(float), i_exponent))
        share = np.stack([1 / (1 + term), term / (1 + term)], axis=-1) * 2 ** (bits - 1)
        error = golden(rows, i_exponent, spec) - np.minimum(share, top)
        assert np.abs(error).max() < 0.75
