"""Stochastic rounding: the noise's period, exact counts of what is rounded up, cycles and jobs."""

from __future__ import annotations

from fractions import Fraction

import array_api_strict
import numpy as np
import pytest
import torch

from hwgen.program import Job
from hwgen.units.stochastic_rounding import cost, jobs
from hwgen.units.stochastic_rounding.golden import golden
from hwgen.units.stochastic_rounding.noise import NOISE_BITS, TAPS, leap, states
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

DEFAULT = StochasticRoundingSpec(52, 20, 16)


def shifted(state: int, noise_bits: int) -> int:
    """One shift of the register, bit by bit."""
    into = sum(state >> (tap - 1) & 1 for tap in TAPS[noise_bits]) & 1
    return (2 * state + into) % 2**noise_bits


def leapt(state: int, noise_bits: int) -> int:
    for _ in range(leap(noise_bits)):
        state = shifted(state, noise_bits)
    return state


def modular_power(exponent: int, modulus: int) -> int:
    """x to a power, modulo a polynomial over GF(2); bit n of an integer stands for x^n."""
    degree, result = modulus.bit_length() - 1, 1
    for bit in f"{exponent:b}":
        square = 0
        for place in range(degree):
            square ^= (result << place) * (result >> place & 1)
        result = square << int(bit)
        for place in range(2 * degree, degree - 1, -1):
            result ^= (modulus << (place - degree)) * (result >> place & 1)
    return result


def prime_factors(n: int) -> set[int]:
    found, divisor = set(), 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            found.add(divisor)
            n //= divisor
        divisor += 1
    return found | ({n} if n > 1 else set())


def test_the_widths() -> None:
    assert NOISE_BITS == tuple(range(8, 25))
    assert [leap(bits) for bits in (8, 9, 16, 17, 24)] == [8, 16, 16, 32, 32]


@pytest.mark.parametrize("noise_bits", NOISE_BITS)
def test_polynomials_are_primitive(noise_bits: int) -> None:
    # What comes in is the sum of what came in so many shifts ago: x^n = Σ x^(n − tap).
    modulus = 1 << noise_bits | sum(1 << (noise_bits - tap) for tap in TAPS[noise_bits])
    period = 2**noise_bits - 1
    assert modular_power(period, modulus) == 1
    assert all(modular_power(period // p, modulus) != 1 for p in prime_factors(period))
    # Odd, so that a leap of a power of two has the same period.
    assert period % 2 and leap(noise_bits) & (leap(noise_bits) - 1) == 0 <= leap(noise_bits)


@pytest.mark.parametrize("noise_bits", NOISE_BITS)
def test_noise_is_that_of_the_register_shifted_bit_by_bit(noise_bits: int) -> None:
    seeds = np.array([[0, 1], [2, 2**noise_bits - 1], [5, 2 ** (noise_bits - 1)]])
    got = states(seeds, 21, noise_bits)
    assert got.shape == (3, 2, 21)
    for seed, row in zip(seeds.ravel().tolist(), got.reshape(-1, 21).tolist(), strict=True):
        state = seed or 1
        for value in row:
            state = leapt(state, noise_bits)
            assert value == state


@pytest.mark.parametrize("noise_bits", [8, 9, 12, 16, 18])
def test_the_period_is_full(noise_bits: int) -> None:
    period = 2**noise_bits - 1
    noise = states(np.asarray(7), period + 3, noise_bits)
    assert (np.sort(noise[:period]) == np.arange(1, period + 1)).all()
    assert (noise[period:] == noise[:3]).all()


@pytest.mark.parametrize("whole", [-(2**19), -1000, -1, 0, 1, 2**19 - 2])
@pytest.mark.parametrize("shift", [3, 16, 30])
def test_over_the_period_as_many_round_up_as_the_fraction_says(whole: int, shift: int) -> None:
    rng = np.random.default_rng(shift)
    period = 2**16 - 1
    one = 1 << shift
    for rest in {0, 1, one // 2, one - 1, *rng.integers(0, one, 6).tolist()}:
        value = np.full(period, whole * one + rest)
        got = golden(value, shift, int(rng.integers(1, 2**16)), DEFAULT)
        counted = rest * 2**16 // one
        assert set(got.tolist()) <= {whole, whole + 1}
        assert int((got == whole + 1).sum()) == counted
        bias = whole + Fraction(counted, period) - Fraction(int(value[0]), one)
        assert abs(bias) <= Fraction(1, 2**16)


def test_every_fraction_of_eight_bits_of_both_signs() -> None:
    spec = StochasticRoundingSpec(16, 4, 8)
    for shift in (1, 5, 8, 11):
        value = np.arange(-4 << shift, 4 << shift)
        got = golden(np.tile(value[:, None], 255), shift, 3, spec)
        fraction = value % (1 << shift) * 256 >> shift
        assert (got.sum(axis=-1) == 255 * (value >> shift) + fraction).all()


def test_it_saturates_at_both_ends() -> None:
    top = 2**19
    value = np.array([top - 1, top, top + 9, 2**35 - 1, -top, -top - 1, -(2**35)]) << 16
    assert golden(value, 16, 1, DEFAULT).tolist() == [top - 1] * 4 + [-top] * 3
    # Just below the last number, up or not; just above it, never beyond.
    near = np.full(3000, (top - 1 << 16) - 1), np.full(3000, (top - 1 << 16) + 65535)
    assert set(golden(near[0], 16, 1, DEFAULT).tolist()) <= {top - 2, top - 1}
    assert set(golden(near[1], 16, 1, DEFAULT).tolist()) == {top - 1}
    below = np.full(3000, (-top << 16) - 65535)
    assert set(golden(below, 16, 1, DEFAULT).tolist()) == {-top}
    assert golden(np.array([2**51 - 1, -(2**51)]), 0, 1, DEFAULT).tolist() == [top - 1, -top]


def test_without_a_shift_nothing_is_rounded() -> None:
    value = np.arange(-8, 8)
    assert golden(value, 0, 5, StochasticRoundingSpec(40, 4, 16)).tolist() == value.tolist()


def test_a_seed_of_zero_counts_as_one() -> None:
    value = np.arange(500) * 1234567
    assert (golden(value, 16, 0, DEFAULT) == golden(value, 16, 1, DEFAULT)).all()
    assert (golden(value, 16, 2, DEFAULT) != golden(value, 16, 1, DEFAULT)).any()


def test_a_tile_depends_on_its_seed_and_its_places_alone() -> None:
    rng = np.random.default_rng(4)
    value = rng.integers(-(2**40), 2**40, (3, 100))
    seeds = np.array([9, 9, 77])
    got = golden(value, 24, seeds, DEFAULT)
    for row, seed, want in zip(value, seeds.tolist(), got, strict=True):
        assert (golden(row, 24, seed, DEFAULT) == want).all()
        assert (golden(row[:37], 24, seed, DEFAULT) == want[:37]).all()


def test_the_same_in_torch_and_in_strict_arrays() -> None:
    rng = np.random.default_rng(5)
    value, seeds = rng.integers(-(2**45), 2**45, (4, 70)), rng.integers(0, 2**16, 4)
    for shift in (0, 9, 16, 33):
        want = golden(value, shift, seeds, DEFAULT)
        for make in (torch.from_numpy, array_api_strict.asarray):
            assert (np.asarray(golden(make(value), shift, make(seeds), DEFAULT)) == want).all()


@pytest.mark.parametrize(("value", "shift", "seed", "message"), [
    ([2**51], 3, 1, "value must be -2251799813685248 to 2251799813685247, not 2251799813685248"),
    ([0], 52, 1, "shift must be 0 to 51, not 52"),
    ([0], -1, 1, "shift must be 0 to 51, not -1"),
    ([0], 3, 65536, "seed must be 0 to 65535, not 65536"),
    ([0], 3, -1, "seed must be 0 to 65535, not -1"),
    ([], 3, 1, "value must hold at least one number"),
])
def test_what_does_not_fit_is_refused(value: list[int], shift: int, seed: int, message: str
                                      ) -> None:
    with pytest.raises(ValueError, match=message):
        golden(np.array(value, dtype=np.int64), shift, seed, DEFAULT)


@pytest.mark.parametrize(("fields", "message"), [
    ((20, 20, 16), "accumulator_bits must be a whole number from 21 to 62, not 20"),
    ((63, 20, 16), "accumulator_bits must be a whole number from 21 to 62, not 63"),
    ((52, 3, 16), "bits must be a whole number from 4 to 24, not 3"),
    ((52, 25, 16), "bits must be a whole number from 4 to 24, not 25"),
    ((52, 20, 7), "noise_bits must be a whole number from 8 to 24, not 7"),
    ((52, 20, 25), "noise_bits must be a whole number from 8 to 24, not 25"),
])
def test_specs_outside_their_range_are_refused(fields: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StochasticRoundingSpec(*fields)


def test_cycles() -> None:
    assert cost.cycles(DEFAULT, 10) == 10 + cost.latency(DEFAULT) == 13
    assert cost.cycles_back_to_back(DEFAULT, 10) == 10


def test_jobs_are_plain_and_say_what_comes_out() -> None:
    spec = StochasticRoundingSpec(16, 8, 8)
    job = jobs.make_job(spec, [[16, -16, 7], [1 << 14]], [0, 200], 4, "two tiles")
    assert jobs.signals(spec, job) == {"shift": 4}
    assert jobs.stimulus(spec, job)["i"] == [
        {"value": 16, "seed": 0, "last": 0}, {"value": -16, "seed": 255, "last": 0},
        {"value": 7, "seed": 255, "last": 1}, {"value": 1 << 14, "seed": 200, "last": 1}]
    noise = leapt(leapt(leapt(1, 8), 8), 8)
    assert jobs.expected(spec, job)["o"] == [
        {"value": 1, "last": 0}, {"value": -1, "last": 0},
        {"value": int(noise + 7 * 16 > 255), "last": 1}, {"value": 127, "last": 1}]
    assert job.cycles == jobs.predicted_cycles(spec, job) == 7


def test_random_jobs_repeat_and_survive_json() -> None:
    job = jobs.random_job(DEFAULT, np.random.default_rng(1))
    again = jobs.random_job(DEFAULT, np.random.default_rng(1))
    read = Job.from_json(job.to_json())
    assert jobs.stimulus(DEFAULT, job) == jobs.stimulus(DEFAULT, again)
    assert jobs.stimulus(DEFAULT, job) == jobs.stimulus(DEFAULT, read)
    assert jobs.expected(DEFAULT, job) == jobs.expected(DEFAULT, read)
    assert job.cycles == read.cycles == jobs.predicted_cycles(DEFAULT, job)


def test_random_jobs_hold_fractions_and_both_ends() -> None:
    rng = np.random.default_rng(2)
    ends, inside, up, down, zero_seeds = set(), 0, 0, 0, 0
    for _ in range(100):
        job = jobs.random_job(DEFAULT, rng)
        value, shift = job.operands["value"], job.operands["shift"]
        got = np.array([beat["value"] for beat in jobs.expected(DEFAULT, job)["o"]])
        ends |= set(got.tolist()) & {-(2**19), 2**19 - 1}
        floor = value >> shift
        inside += (np.abs(got) < 2**19 - 2).sum()
        up += (got == floor + 1).sum()
        down += ((got == floor) & (floor << shift != value)).sum()
        zero_seeds += (job.operands["seeds"] == 0).sum()
    assert len(ends) == 2
    assert min(inside, up, down, zero_seeds) > 30
