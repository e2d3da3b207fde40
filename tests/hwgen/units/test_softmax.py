"""Softmax on integers against float64 and mpmath, its tables and its cycles."""

import zlib
from types import SimpleNamespace

import array_api_strict
import mpmath
import numpy as np
import pytest
import torch

from hwgen.program import Job
from hwgen.units.softmax import cost, jobs
from hwgen.units.softmax.golden import _exponential, _reciprocal, golden, output_exponent
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import COLUMNS, EXTRA, Format, Reciprocal, shift_of, whole_table

BOUND = 0.8
"""Ulps that are allowed here; the contract says 1, and test_softmax_bound.py shows it."""

WIDTHS = (4, 5, 8, 12, 16, 20, 24)
RNG = np.random.default_rng


def exact(x, i_exponent, bits, valid_mask=None):
    """Softmax in float64, in ulps of the output, saturated."""
    valid_mask = np.ones(x.shape, dtype=bool) if valid_mask is None else valid_mask
    top = np.max(np.where(valid_mask, x, -(2 ** (bits - 1))), axis=-1, keepdims=True)
    distance = np.where(valid_mask, x - top, 0).astype(float)
    term = np.where(valid_mask, np.exp(np.ldexp(distance, i_exponent)), 0.0)
    total = term.sum(axis=-1, keepdims=True)
    ratio = np.divide(term, total, out=np.zeros_like(term), where=total > 0)
    return np.minimum(ratio * 2 ** (bits - 1), 2 ** (bits - 1) - 1)


def scores(rng, bits, shape):
    """Scores of one of several distributions."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1)
    spread = rng.choice([0.01, 0.1, 1.0])
    normal = np.clip(np.rint(rng.normal(0, high * spread, shape)), low, high - 1).astype(np.int64)
    return rng.choice(
        [
            rng.integers(low, high, shape),
            normal,
            np.where(rng.random(shape) < 1 / shape[-1], high - 1, low),
            np.where(rng.random(shape) < 0.5, 0, normal),
        ]
    )


def test_every_row_of_three_in_four_bits():
    grid = np.stack(np.meshgrid(*[np.arange(-8, 8)] * 3), axis=-1).reshape(-1, 3)
    spec = SoftmaxSpec(1, 4, 3)
    for i_exponent in range(-6, 5):
        for mask in range(8):
            valid_mask = np.broadcast_to([mask & 1, mask >> 1 & 1, mask >> 2], grid.shape) == 1
            got = golden(grid, i_exponent, spec, valid_mask)
            assert np.abs(got - exact(grid, i_exponent, 4, valid_mask)).max() < BOUND
            assert not got[~valid_mask].any()


def test_every_pair_in_eight_bits():
    grid = np.stack(np.meshgrid(*[np.arange(-128, 128)] * 2), axis=-1)
    for i_exponent in range(-9, 2):
        got = golden(grid, i_exponent, SoftmaxSpec(1, 8, 2))
        assert np.abs(got - exact(grid, i_exponent, 8)).max() < BOUND


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("max_row", [1, 2, 17, 512, 4096])
def test_random_rows(bits, max_row):
    rng = RNG(bits * max_row)
    spec = SoftmaxSpec(1, bits, max_row)
    for _ in range(12):
        shape = (3, int(rng.integers(1, max_row + 1)))
        x = scores(rng, bits, shape)
        valid_mask = rng.random(shape) < rng.choice([0.5, 0.9, 1.0])
        i_exponent = int(rng.integers(-bits - 6, 4))
        got = golden(x, i_exponent, spec, valid_mask)
        assert np.abs(got - exact(x, i_exponent, bits, valid_mask)).max() < BOUND


@pytest.mark.parametrize("bits", WIDTHS)
def test_one_large_among_thousands_of_equal_scores(bits):
    # All small terms lose the same bits: the worst there is for the sum.
    steps = RNG(bits).integers(1, 2 ** (bits - 1), 60)
    x = np.zeros((60, 4096), dtype=np.int64)
    x[:, 1:] = -steps[:, None]
    for i_exponent in (4 - bits, 6 - bits):
        got = golden(x, i_exponent, SoftmaxSpec(1, bits, 4096))
        assert np.abs(got - exact(x, i_exponent, bits)).max() < BOUND


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("i_exponent", [-128, -64, -40, 2, 3, 4, 5, 6, 9, 127])
def test_far_exponents(bits, i_exponent):
    x = np.full((2, 4096), -1)
    x[:, 0] = 0
    x[1, 1:] = -(2 ** (bits - 1))
    got = golden(x, i_exponent, SoftmaxSpec(1, bits, 4096))
    assert np.abs(got - exact(x, i_exponent, bits)).max() < BOUND


def test_against_mpmath():
    rng = RNG(4)
    spec = SoftmaxSpec(1, 24, 300)
    for i_exponent in (-24, -21, -18):
        x = rng.integers(-(2**23), 2**23, 300)
        with mpmath.workdps(40):
            terms = [mpmath.exp(mpmath.ldexp(int(value), i_exponent)) for value in x]
            total = mpmath.fsum(terms)
            got = golden(x, i_exponent, spec)
            worst = max(abs(int(g) - t / total * 2**23) for g, t in zip(got, terms, strict=True))
        assert worst < BOUND


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("n", [2, 3, 5, 16])
def test_near_equal_terms(bits, n):
    # Shares between 1/n and 1, where errors of the terms count most.
    spec = SoftmaxSpec(1, bits, n)
    rng = RNG(n)
    for i_exponent in range(1 - bits, 5 - bits):
        x = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (4000, n))
        same = np.where(np.arange(n) == 0, 2 ** (bits - 1) - 1, x[:, :1])
        for rows in (x, same):
            got = golden(rows, i_exponent, spec)
            assert np.abs(got - exact(rows, i_exponent, bits)).max() < BOUND


@pytest.mark.parametrize("bits", range(4, 25))
def test_tables_against_mpmath(bits):
    form = Format.of(SoftmaxSpec(1, bits, 300))
    one = 2**form.fraction
    assert form.fraction == bits + 2
    with mpmath.workdps(40):
        ln2 = mpmath.log(2)
        assert list(whole_table()) == [int(mpmath.floor(i / (8 * ln2))) for i in range(256)]
        wanted = [int(mpmath.floor(k * ln2 * one)) % one for k in range(whole_table()[-1] + 1)]
        assert list(form.ln2) == wanted
        segments = 1 << form.index_bits
        # The distance to a multiple of ln 2 is below 0.82.
        assert len(form.centres) == int((ln2 + 0.125) * segments) + 1
        for segment, centre in enumerate(form.centres):
            assert abs(centre - mpmath.exp(-(segment + 0.5) / segments) * one) <= 0.5
        intervals = 1 << form.square_bits
        assert len(form.squares) == intervals
        for interval, square in enumerate(form.squares):
            offset = (interval + 0.5) / (2 * segments * intervals)
            assert abs(square - mpmath.mpf(offset) ** 2 / 2 * one) <= 0.5


@pytest.mark.parametrize("bits", range(4, 25))
def test_tables_of_the_reciprocal_against_mpmath(bits):
    form = Reciprocal(bits - 1 + COLUMNS)
    segments, unit = 1 << form.index_bits, 2 ** (form.bits + EXTRA)
    with mpmath.workdps(40):
        assert len(form.centres) == segments
        for segment, centre in enumerate(form.centres):
            place = 1 + mpmath.mpf(2 * segment + 1) / (2 * segments)
            assert abs(centre - 2**form.centre_bits / place) <= 0.5
        half = 1 << (form.power_bits - 1)
        assert len(form.powers) == 2 * half
        for index, power in enumerate(form.powers):
            place = mpmath.mpf(index - 2 * half * (index >= half)) + 0.5
            d = place / half / segments
            assert abs(power - (d**2 + d**3) * unit) <= 0.5


@pytest.mark.parametrize("bits", range(4, 25))
def test_exponential_of_every_argument(bits):
    form = Format(bits, 9)
    argument = np.arange(min(2 << form.fraction, 1 << 19))
    if 2 << form.fraction > 1 << 19:
        argument = np.append(argument, RNG(bits).integers(0, 8 << form.fraction, 200_000))
    got = _exponential(argument, -form.fraction, form)
    assert got[0] == 1 << (form.fraction + form.growth)
    place = np.ldexp(argument.astype(float), -form.fraction)
    wanted = np.exp(-place) * 2.0 ** (form.fraction + form.growth)
    # In ulps of the output, relative to the exponential, and a unit of its own fraction.
    error = (np.abs(got - wanted) - 1) / wanted * 2 ** (bits - 1)
    assert error.max() < 0.8


@pytest.mark.parametrize("bits", range(4, 25))
def test_reciprocal_of_every_argument(bits):
    form = Reciprocal(bits - 1 + COLUMNS)
    argument = np.arange(1 << min(form.bits, 18))
    if form.bits > 18:
        argument = np.append(argument, RNG(bits).integers(0, 1 << form.bits, 200_000))
    argument = np.append(argument, (1 << form.bits) - 1)
    wanted = 1 / (1 + np.ldexp(argument.astype(float), -form.bits))
    error = np.ldexp(_reciprocal(argument, form).astype(float), -form.bits) - wanted
    assert np.abs(error).max() * 2 ** (bits - 1) < 0.02


def test_widths():
    form = Format.of(SoftmaxSpec(16, 20, 512))
    assert (form.fraction, form.growth, form.index_bits, form.offset_bits) == (22, 9, 6, 16)
    assert (form.square_bits, form.whole_bits, form.kept, form.inverse) == (7, 5, 20, 27)
    assert (form.factor_digits, form.rounding, form.product_offset) == (11, 131, 11)
    inverse = Reciprocal(27)
    assert (inverse.index_bits, inverse.centre_bits, inverse.rest_bits) == (9, 11, 22)
    assert (inverse.power_bits, inverse.rest_offset, inverse.offset) == (8, 3, 5)
    assert [Format.of(SoftmaxSpec(1, 8, n)).growth for n in (1, 2, 3, 4096)] == [0, 1, 2, 12]
    assert [shift_of(e) for e in (-128, -59, -58, -57, 0, 5, 127)] == [63, 63, 63, 62, 5, 0, 0]


def test_known_values():
    x = np.asarray([3, 1, 0, -2]) << 16
    assert golden(x, -16, SoftmaxSpec(1, 20, 64)).tolist() == [439891, 59533, 21901, 2964]
    assert output_exponent(SoftmaxSpec(1, 20, 64)) == -19
    # The bits that the RTL was proven equal to: a change here is a change of the hardware.
    x = np.arange(64 * 100).reshape(100, 64) ** 3 * 7919 % 2**20 - 2**19
    got = golden(x, -17, SoftmaxSpec(1, 20, 64), x % 5 > 0)
    assert zlib.crc32(got.astype("<i8").tobytes()) == 822281196


@pytest.mark.parametrize("bits", WIDTHS)
def test_equal_scores_share_equally(bits):
    spec = SoftmaxSpec(1, bits, 4096)
    for n in (1, 2, 4, 16, 64, 4096):
        share = min(2.0 ** (bits - 1) / n, 2 ** (bits - 1) - 1)
        for value in (-(2 ** (bits - 1)), 0, 2 ** (bits - 1) - 1):
            got = golden(np.full((1, n), value), -3, spec)
            assert np.abs(got - share).max() <= 0.5


def test_what_is_masked_counts_for_nothing():
    rng = RNG(8)
    spec = SoftmaxSpec(1, 12, 64)
    x = rng.integers(-2048, 2048, (50, 64))
    valid_mask = rng.random(x.shape) < 0.6
    valid_mask[3] = False
    got = golden(x, -8, spec, valid_mask)
    other = np.where(valid_mask, x, rng.integers(-2048, 2048, x.shape))
    assert (golden(other, -8, spec, valid_mask) == got).all()
    assert not got[3].any()
    for row in (0, 1, 2):
        chosen = valid_mask[row]
        assert (golden(x[row][chosen], -8, spec) == got[row][chosen]).all()


def test_a_pruned_score_still_counts():
    got = golden(np.asarray([[0, 0, 100]]), -6, SoftmaxSpec(1, 8, 3))
    assert got[0].tolist() == np.rint(exact(np.asarray([[0, 0, 100]]), -6, 8))[0].tolist()
    assert got[0, 0] > 0


def test_masks_broadcast_over_heads():
    x = RNG(2).integers(-100, 100, (2, 3, 4, 5))
    valid_mask = np.asarray([True, True, True, False, False])
    got = golden(x, -5, SoftmaxSpec(1, 8, 5), valid_mask)
    assert (got[..., :3] == golden(x[..., :3], -5, SoftmaxSpec(1, 8, 5))).all()
    assert not got[..., 3:].any()


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_same_in_torch_and_in_strict_arrays(bits):
    rng = RNG(bits)
    spec = SoftmaxSpec(1, bits, 100)
    x = scores(rng, bits, (7, 100))
    valid_mask = rng.random(x.shape) < 0.8
    want = golden(x, 2 - bits, spec, valid_mask)
    got = golden(torch.from_numpy(x), 2 - bits, spec, torch.from_numpy(valid_mask))
    assert got.dtype == torch.int64
    assert (got.numpy() == want).all()
    strict = array_api_strict.asarray
    got = golden(strict(x), 2 - bits, spec, strict(valid_mask))
    assert (np.asarray(got) == want).all()


def test_rows_that_are_too_long_are_refused():
    with pytest.raises(ValueError, match="at most 4 elements, not 5"):
        golden(np.zeros((1, 5), dtype=np.int64), 0, SoftmaxSpec(1, 8, 4))


def test_cycles():
    assert [cost.cycles(SoftmaxSpec(p, 8, 512), 128) for p in (1, 2, 4, 8, 16, 32)] == [
        401, 211, 115, 68, 44, 34]
    spec = SoftmaxSpec(8, 8, 512)
    assert [cost.cycles(spec, n) for n in (1, 8, 9, 17)] == [23, 23, 26, 29]
    assert cost.cycles_back_to_back(spec, 17, 5) == 29 + 4 * 3
    assert cost.cycles_of_rows(spec, [17] * 5) == 29 + 4 * 3
    # A short row waits for the long one before it, a long one for nothing but itself.
    assert cost.cycles_of_rows(spec, [64, 1]) == cost.cycles(spec, 64) + 1
    assert cost.cycles_of_rows(spec, [1, 64]) == cost.cycles(spec, 64) + 1


def test_cycles_of_populations():
    many = SimpleNamespace(parallel=np.asarray([1, 2, 16, 32]), bits=np.full(4, 8))
    n = np.asarray([[7], [300]])
    got = cost.cycles(many, n)
    assert got.tolist() == [
        [cost.cycles(SoftmaxSpec(p, 8, 512), k) for p in (1, 2, 16, 32)] for k in (7, 300)]
    assert cost.cycles(SimpleNamespace(parallel=torch.tensor([16])), 300).tolist() == [got[1, 2]]


def test_jobs_are_plain_data():
    spec = SoftmaxSpec(4, 8, 30)
    for seed in range(20):
        job = jobs.random_job(spec, RNG(seed))
        again = Job.from_json(job.to_json())
        assert jobs.stimulus(spec, again) == jobs.stimulus(spec, job)
        assert jobs.expected(spec, again) == jobs.expected(spec, job)
        assert jobs.signals(spec, again) == {"i_exponent": job.exponents["i"]}
        assert job.cycles == jobs.predicted_cycles(spec, again)


def test_a_job_beat_by_beat():
    spec = SoftmaxSpec(2, 8, 3)
    job = jobs.make_job(spec, [[5, 5, 9]], [[1, 1, 0]], -2, "three")
    assert jobs.stimulus(spec, job) == {"i": [
        {"value": [5, 5], "valid_mask": 3, "last": 0},
        {"value": [9, 5], "valid_mask": 0, "last": 1}]}
    assert jobs.expected(spec, job) == {"o": [
        {"value": [64, 64], "last": 0}, {"value": [0, 0], "last": 1}]}
