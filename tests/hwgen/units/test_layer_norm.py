"""Layer norm on integers against mpmath, its table and its cycles."""

import zlib
from fractions import Fraction
from types import SimpleNamespace

import array_api_strict
import mpmath
import numpy as np
import pytest
import torch

from hwgen.program import Job
from hwgen.units.layer_norm import cost, jobs
from hwgen.units.layer_norm.golden import _epsilon_term, _root, _variance, golden
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.layer_norm.table import Format, epsilon_mantissa, reciprocal_root
from hwgen.units.residual_add.golden import rescale

BOUND = 0.7
"""Ulps that are allowed here; the contract says 1, the largest error seen is 0.61."""

WIDTHS = (4, 5, 8, 12, 16, 20, 24)
RNG = np.random.default_rng


def terms(x, i_exponent, gamma, gamma_exponent, beta, beta_exponent, o_exponent, epsilon):
    """Return the scaled row and β in ulps of the output, to 40 digits."""
    with mpmath.workdps(60):
        n, x = len(x), [int(value) for value in x]
        total = sum(x)
        variance = mpmath.mpf(n * sum(v * v for v in x) - total * total) / n**2
        real = variance * mpmath.mpf(4) ** i_exponent + mpmath.mpf(epsilon)
        scale = mpmath.mpf(2) ** (i_exponent + gamma_exponent - o_exponent) / mpmath.sqrt(real)
        return (
            [(mpmath.mpf(v) - mpmath.mpf(total) / n) * int(g) * scale
             for v, g in zip(x, gamma, strict=True)],
            [int(b) * mpmath.mpf(2) ** (beta_exponent - o_exponent) for b in beta],
        )


def worst(got, scaled, offset, bits):
    """Largest error in ulps of those within eight times the output's range."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    errors = [
        abs(int(g) - min(max(s + o, low), high))
        for g, s, o in zip(got, scaled, offset, strict=True)
        if max(abs(s), abs(o)) <= 8 * high
    ]
    return max(errors, default=0)


def row(rng, bits, n):
    """Integers of one of several distributions."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    kind = rng.choice(["uniform", "normal", "one-hot", "two", "nearly constant"])
    if kind == "uniform":
        return rng.integers(low, high + 1, n)
    if kind == "normal":
        spread = high * rng.random() ** 3
        return np.clip(np.rint(rng.normal(high / 3, spread, n)), low, high).astype(np.int64)
    if kind == "two":
        return rng.choice([low, high], n)
    x = np.full(n, rng.integers(low, high))
    x[rng.integers(n)] = high if kind == "one-hot" else x[0] + 1
    return x


@pytest.mark.parametrize("bits", WIDTHS)
def test_random_rows_under_random_exponents(bits):
    rng = RNG(bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    for case in range(80):
        n = 4096 if case == 0 else int(rng.choice([1, 2, 3, 7, 64, 200]))
        x, beta = row(rng, bits, n), rng.integers(low, high + 1, n)
        gamma = rng.integers(low, high + 1, n)
        if case % 3 == 0:
            gamma[:] = rng.choice([1, low, high])
        # Mostly what a calibrated tensor has, now and then anything.
        i_exponent = int(rng.integers(-bits - 4, 2) if case % 4 else rng.integers(-128, 128))
        gamma_exponent = int(rng.integers(-3, 4) - bits if case % 5 else rng.integers(-99, 99))
        o_exponent = gamma_exponent + int(rng.integers(-3, 8))
        beta_exponent = o_exponent + int(rng.integers(-12, 6) * (1 if case % 7 else 5))
        spec = LayerNormSpec(1, bits, 4096, float(rng.choice([1e-12, 1e-5, 0.3])))
        given = (x, i_exponent, gamma, gamma_exponent, beta, beta_exponent, o_exponent)
        got = golden(*given, spec)
        assert got.min() >= low and got.max() <= high
        assert worst(got, *terms(*given, spec.epsilon), bits) < BOUND


def test_every_row_of_three_in_four_bits():
    grid = np.stack(np.meshgrid(*[np.arange(-8, 8)] * 3), axis=-1).reshape(-1, 3)
    gamma, beta = np.asarray([7, -8, 3]), np.asarray([0, 5, -8])
    centred = (grid - grid.mean(axis=-1, keepdims=True)) / 4
    for o_exponent in (-3, -2, 0):
        got = golden(grid, -2, gamma, -3, beta, -4, o_exponent, LayerNormSpec(1, 4, 3, 0.01))
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 0.01)
        exact = (centred / deviation * gamma / 8 + beta / 16) / 2.0**o_exponent
        assert np.abs(got - np.clip(exact, -8, 7)).max() < BOUND


@pytest.mark.parametrize("bits", WIDTHS)
def test_constant_rows_give_beta(bits):
    rng = RNG(bits)
    beta = rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 50)
    for value in (-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1):
        for distance in (-40, -20, -12, -9, -8, -7, -1, 0, 1, 2, 7, 30):
            for i_exponent in (-128, -16, 0, 127):
                got = golden(np.full(50, value), i_exponent, beta, 3, beta, distance - 20, -20,
                             LayerNormSpec(1, bits, 64, 1e-12))
                assert got.tolist() == rescale(beta, distance - 20, -20, bits).tolist()


def test_one_hot_of_768_is_27_7():
    x = np.zeros(768, dtype=np.int64)
    x[5] = 1 << 17
    gamma, beta = np.full(768, 1 << 17), np.zeros(768, dtype=np.int64)
    spec = LayerNormSpec(16, 20, 4096, 1e-12)
    got = golden(x, -16, gamma, -17, beta, 0, -14, spec)
    assert got[5] == round(767**0.5 * 2**14)
    assert round(got[5] / 2**14, 1) == 27.7
    assert got[6] == round(-(767**-0.5) * 2**14)
    assert golden(x, -16, gamma, -17, beta, 0, -16, spec)[5] == 2**19 - 1


def test_epsilon_counts_where_the_variance_is_small():
    x, one, zero = np.asarray([0, 2]), np.full(2, 64), np.zeros(2, dtype=np.int64)
    for epsilon, i_exponent in ((0.25, -1), (0.25, 0), (1e-12, -20), (0.0625, -30)):
        real = (2.0**i_exponent) / np.sqrt(4.0**i_exponent + epsilon)
        got = golden(x, i_exponent, one, -6, zero, 0, -18, LayerNormSpec(1, 20, 2, epsilon))
        assert np.abs(got - np.asarray([-real, real]) * 2**18).max() < BOUND


@pytest.mark.parametrize("bits", WIDTHS)
def test_variance_is_exact(bits):
    rng = RNG(bits)
    for _ in range(50):
        n = int(rng.choice([1, 2, 3, 1000, 4096]))
        x = row(rng, bits, n)
        total, squares = int(x.sum()), int((x * x).sum())
        exact = n * squares - total * total
        mantissa, exponent = _variance(np.asarray([total]), np.asarray([squares]), n)
        got = int(mantissa[0]) * Fraction(2) ** int(exponent[0])
        assert exponent[0] % 2 == 0
        assert (got == exact) if exact < 2**58 else (0 <= 1 - got / exact < Fraction(1, 2**42))
        assert exact == 0 or 2**58 <= mantissa[0] < 2**60


@pytest.mark.parametrize("bits", WIDTHS)
def test_epsilon_term(bits):
    form = Format.of(LayerNormSpec(1, bits, 4096, 0.5))
    for epsilon in (1e-300, 1e-12, 1e-5, 0.1, 0.25, 0.999):
        mantissa, power = epsilon_mantissa(epsilon, form.mantissa)
        exact = Fraction(epsilon) / Fraction(4) ** power
        assert 1 <= exact < 4 and 0 <= exact * 2**form.mantissa - mantissa < 1
        for n in (1, 2, 3, 768, 4095, 4096):
            exact = Fraction(epsilon) * n * n
            got, power = _epsilon_term(np.asarray([n]), epsilon, form)
            assert 1 << form.mantissa <= got[0] < 4 << form.mantissa
            got = int(got[0]) * Fraction(4) ** int(power[0]) / 2**form.mantissa
            assert 0 <= 1 - got / exact < Fraction(2, 2**form.mantissa)


@pytest.mark.parametrize("bits", WIDTHS)
def test_root_of_variance_and_epsilon(bits):
    rng = RNG(bits)
    spec = LayerNormSpec(1, bits, 4096, 1e-3)
    form = Format.of(spec)
    for case in range(300):
        n = int(rng.choice([2, 3, 100, 4096]))
        x = row(rng, bits, n)
        total, squares = int(x.sum()), int((x * x).sum())
        i_exponent = int(rng.integers(-2 * bits, 8) if case % 2 else rng.integers(-128, 128))
        sums = (np.asarray([value]) for value in (total, squares, n))
        root, power = _root(*sums, i_exponent, spec.epsilon, form)
        with mpmath.workdps(60):
            exact = mpmath.mpf(n * n) * 1e-3 / mpmath.mpf(4) ** i_exponent
            exact += n * squares - total * total
            got = mpmath.mpf(int(root[0])) / 2**form.fraction / mpmath.mpf(2) ** int(power[0])
            if n * squares > total * total:
                # A scaled row of eight times the output's range is then off by 0.4 ulp at most.
                assert abs(got * mpmath.sqrt(exact) - 1) < 0.4 * 2.0 ** -(bits + 2)


@pytest.mark.parametrize("bits", range(4, 25))
def test_table_against_mpmath(bits):
    fraction = bits + 5
    table = reciprocal_root(fraction)
    segments = 1 << table.index_bits
    assert table.index_bits + table.offset_bits == fraction + 1
    with mpmath.workdps(40):
        for segment in range(segments):
            places = [mpmath.mpf(2 * segment + half) / (2 * segments) for half in range(3)]
            first = 2 * segment < segments
            roots = (mpmath.sqrt(1 + 2 * f if first else 4 * f) for f in places)
            a, b, c = (2 ** (fraction + 2) / root for root in roots)
            wanted = (a, 3 * a - 4 * b + c, 2 * a - 4 * b + 2 * c)
            got = (table.c0[segment], table.c1[segment], table.c2[segment])
            assert all(abs(g - w) <= 0.5 for g, w in zip(got, wanted, strict=True))


@pytest.mark.parametrize("bits", WIDTHS)
def test_polynomial_is_as_precise_as_stated(bits):
    argument = RNG(1).integers(0, 1 << (bits + 6), 100_000)
    place = argument / 2.0 ** (bits + 6)
    exact = np.where(place < 0.5, 1 + 2 * place, 4 * place) ** -0.5
    got = reciprocal_root(bits + 5).evaluate(argument) / 2.0 ** (bits + 7)
    assert np.abs(got - exact).max() < 2.5 * 2.0 ** -(bits + 7)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_same_in_torch_and_in_strict_arrays(bits):
    rng = RNG(bits)
    x = np.stack([row(rng, bits, 60) for _ in range(10)]).reshape(2, 5, 60)
    gamma, beta = row(rng, bits, 60), row(rng, bits, 60)
    spec = LayerNormSpec(1, bits, 64, 1e-12)
    for i_exponent, o_exponent in ((-bits, -bits), (-100, 30), (60, -50)):
        want = golden(x, i_exponent, gamma, 1 - bits, beta, -bits, o_exponent, spec)
        for make in (torch.from_numpy, array_api_strict.asarray):
            got = golden(make(x), i_exponent, make(gamma), 1 - bits, make(beta), -bits,
                         o_exponent, spec)
            assert (np.asarray(got) == want).all()
        for index in np.ndindex(2, 5):
            alone = golden(x[index], i_exponent, gamma, 1 - bits, beta, -bits, o_exponent, spec)
            assert (alone == want[index]).all()


def test_constant_rows_in_torch_where_epsilon_is_less_than_any_variance():
    # Nothing but the tiny ε is under the root, and a table knows no negative index in torch.
    zero, beta = torch.zeros(7, dtype=torch.int64), torch.arange(7)
    got = golden(zero + 5, 127, beta, 0, beta, 0, 0, LayerNormSpec(1, 8, 7, 1e-12))
    assert got.tolist() == beta.tolist()


def test_both_terms_saturate_beyond_eight_times_the_range():
    # The root's mantissa is 0.504: what is cut off at 2^11 ulps before it gives 1032.1 ulps.
    x = np.asarray([0, 127])
    spec = LayerNormSpec(1, 8, 2, 1e-12)
    for gamma, beta, exponent, wanted in (
        (127, 127, 4, -8), (127, 64, 4, -8), (127, 63, 4, -24), (127, -128, 4, -128),
        (65, 64, 4, -8), (64, 64, 4, 0), (63, 64, 4, 16), (63, 63, 4, 0), (127, 127, 3, 0),
    ):
        given = np.full(2, gamma), exponent, np.full(2, beta), exponent
        assert golden(x, 0, *given, 0, spec)[0] == wanted
    assert golden(x, 0, np.full(2, 127), 2, np.full(2, 127), 3, 0, spec)[0] == 127


@pytest.mark.parametrize("bits", WIDTHS)
def test_at_most_one_ulp_where_both_terms_cancel_at_eight_times_the_range(bits):
    rng = RNG(bits)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    spec = LayerNormSpec(1, bits, 4096, 1e-12)
    for _ in range(100):
        n = int(rng.choice([2, 3, 17, 64]))
        x = row(rng, bits, n)
        gamma, exponent = rng.integers(low, high + 1, n), int(rng.integers(-4, 12))
        largest = max(abs(value) for value in terms(x, -4, gamma, exponent, gamma, 0, 0, 1e-12)[0])
        if largest == 0:
            continue
        # The output's exponent brings the largest scaled value to 2 to 8 times the range.
        shift = int(mpmath.floor(mpmath.log(largest / high, 2))) - int(rng.integers(1, 3))
        scaled = terms(x, -4, gamma, exponent, gamma, 0, shift, 1e-12)[0]
        beta = np.asarray([int(np.clip(int(-value) >> 3, low, high)) for value in scaled])
        given = (x, -4, gamma, exponent, beta, shift + 3, shift)
        got = golden(*given, spec)
        assert worst(got, *terms(*given, 1e-12), bits) <= 1


def test_what_is_masked_counts_for_nothing():
    rng = RNG(8)
    spec = LayerNormSpec(1, 12, 64, 1e-5)
    x, mask = rng.integers(-2048, 2048, (50, 64)), rng.random((50, 64)) < 0.6
    gamma, beta = rng.integers(-2048, 2048, (2, 64))
    mask[3], mask[4] = False, True
    rest = (-8, gamma, -9, beta, -10, -8, spec)
    got = golden(x, *rest, mask)
    assert (golden(np.where(mask, x, 77), *rest, mask) == got).all()
    assert not got[~mask].any() and not got[3].any()
    assert (got[4] == golden(x[4], *rest)).all()
    for number in (0, 1, 2):
        kept = mask[number]
        alone = golden(x[number][kept], -8, gamma[kept], -9, beta[kept], -10, -8, spec)
        assert (alone == got[number][kept]).all()
    got = golden(torch.from_numpy(x), -8, *(
        torch.from_numpy(one) if isinstance(one, np.ndarray) else one for one in rest[1:]
    ), torch.from_numpy(mask))
    assert (got.numpy() == golden(x, *rest, mask)).all()


def test_widths():
    form = Format.of(LayerNormSpec(16, 20, 4096, 1e-12))
    assert (form.growth, form.fraction, form.mantissa) == (12, 25, 27)
    assert (form.variance, form.product, form.window, form.offset) == (62, 52, 28, 27)
    assert [Format.of(LayerNormSpec(1, 8, n, 0.1)).growth for n in (1, 2, 3, 4096)] == [0, 1, 2, 12]


def test_known_bits():
    # The bits that the RTL was proven equal to: a change here is a change of the hardware.
    x = np.arange(30 * 100).reshape(30, 100) ** 3 * 7919 % 2**20 - 2**19
    got = golden(x, -16, x[3], -19, x[7], -20, -17, LayerNormSpec(1, 20, 128, 1e-12))
    assert zlib.crc32(got.astype("<i8").tobytes()) == 1142593362


def test_rows_that_are_too_long_are_refused():
    x = np.zeros((1, 5), dtype=np.int64)
    with pytest.raises(ValueError, match="at most 4 elements, not 5"):
        golden(x, 0, x[0], 0, x[0], 0, 0, LayerNormSpec(1, 8, 4, 1e-12))


def test_cycles():
    got = [cost.cycles(LayerNormSpec(p, 8, 4096, 1e-12), 768) for p in (1, 2, 4, 8, 16, 32)]
    assert got == [1567, 799, 415, 223, 127, 79]
    spec = LayerNormSpec(8, 8, 4096, 1e-12)
    assert [cost.cycles(spec, n) for n in (1, 8, 9, 17)] == [33, 33, 35, 37]
    assert cost.cycles_back_to_back(spec, 17, 5) == 37 + 4 * 3
    assert cost.cycles_of_rows(spec, [17] * 5) == 37 + 4 * 3
    # A short row waits for the long one before it, a long one for nothing but itself.
    assert cost.cycles_of_rows(spec, [64, 1]) == cost.cycles(spec, 64) + 1
    assert cost.cycles_of_rows(spec, [1, 64]) == cost.cycles(spec, 64) + 1
    assert [cost.load_cycles(spec, n) for n in (1, 8, 9)] == [1, 1, 2]
    many = SimpleNamespace(parallel=np.asarray([1, 32]))
    assert cost.cycles(many, np.asarray([[768], [1]])).tolist() == [[1567, 79], [33, 33]]
    assert cost.latency(many).tolist() == [32, 32]


def test_jobs_are_plain_data():
    spec = LayerNormSpec(4, 8, 30, 1e-5)
    for seed in range(20):
        job = jobs.random_job(spec, RNG(seed))
        again = Job.from_json(job.to_json())
        assert jobs.stimulus(spec, again) == jobs.stimulus(spec, job)
        assert jobs.expected(spec, again) == jobs.expected(spec, job)
        assert jobs.signals(spec, again) == {
            f"{key}_exponent": job.exponents[key] for key in ("i", "gamma", "beta", "o")}
        assert job.cycles == jobs.predicted_cycles(spec, again)


def test_a_job_beat_by_beat():
    spec = LayerNormSpec(2, 8, 3, 1e-12)
    exponents = {"i": 0, "gamma": -6, "beta": -5, "o": -5}
    job = jobs.make_job(spec, [[5, 9, 7]], [[1, 1, 0]], [64, 64, 1], [1, -2, 3], exponents, "three")
    assert job.cycles == 2 + cost.cycles(spec, 3)
    assert jobs.stimulus(spec, job) == {
        "i": [{"value": [5, 9], "valid_mask": 3, "last": 0},
              {"value": [7, 5], "valid_mask": 0, "last": 1}],
        "weights": [{"gamma": [64, 64], "beta": [1, -2], "last": 0},
                    {"gamma": [1, 0], "beta": [3, 0], "last": 1}]}
    assert jobs.expected(spec, job) == {"o": [
        {"value": [-31, 30], "last": 0}, {"value": [0, 0], "last": 1}]}
