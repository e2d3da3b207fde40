"""The residual adder's golden model against exact fractions, and its cycles."""

from fractions import Fraction
from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest
import torch

from hwgen.program import Job
from hwgen.units.residual_add import cost, jobs
from hwgen.units.residual_add.golden import golden, rescale
from hwgen.units.residual_add.spec import ResidualAddSpec


def exact(a, a_exponent, b, b_exponent, o_exponent, bits):
    """Exact sums, rounded by Python (ties to even), saturated."""
    two = Fraction(2)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scaled = [
        (int(left) * two**a_exponent + int(right) * two**b_exponent) / two**o_exponent
        for left, right in zip(a, b, strict=True)
    ]
    return [min(max(round(value), low), high) for value in scaled]


def operand(rng, bits, n):
    """Edge values and random ones of all sizes."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    small = rng.integers(low, high + 1, n) >> rng.integers(0, bits, n)
    return np.where(rng.random(n) < 0.3, rng.choice([low, high, 0, 1, -1], n), small)


@pytest.mark.parametrize("bits", [4, 8, 16, 20, 24])
@pytest.mark.parametrize("spread", [1, 8, 24, 36, 60, 128])
def test_random_operands_under_any_exponents(bits, spread):
    rng = np.random.default_rng(bits * spread)
    spec = ResidualAddSpec(1, bits)
    for _ in range(60):
        centre = int(rng.integers(-128, 128))
        drawn = np.clip(centre + rng.integers(-spread, spread + 1, 3), -128, 127)
        a_exponent, b_exponent, o_exponent = (int(e) for e in drawn)
        a, b = operand(rng, bits, 16), operand(rng, bits, 16)
        got = golden(a, a_exponent, b, b_exponent, o_exponent, spec)
        assert got.tolist() == exact(a, a_exponent, b, b_exponent, o_exponent, bits)


def test_every_pair_of_four_bits():
    grid = np.stack(np.meshgrid(np.arange(-8, 8), np.arange(-8, 8)), axis=-1).reshape(-1, 2)
    a, b = grid[:, 0], grid[:, 1]
    for a_exponent in range(-5, 6):
        for o_exponent in range(-5, 6):
            got = golden(a, a_exponent, b, 0, o_exponent, ResidualAddSpec(1, 4))
            assert got.tolist() == exact(a, a_exponent, b, 0, o_exponent, 4)


def test_ties_at_the_end_of_the_window_are_broken_by_the_smaller_operand():
    # 1.5 ulps and a trace of b, tens of bits below: up, down, or to even.
    spec = ResidualAddSpec(1, 24)
    for distance in (30, 36, 37, 38, 60, 127):
        a, b = np.asarray([3, 3, 3, -3, -3]), np.asarray([1, -1, 0, 1, -1])
        assert golden(a, 0, b, -distance, 1, spec).tolist() == [2, 1, 2, -1, -2]
        assert golden(b, -distance, a, 0, 1, spec).tolist() == [2, 1, 2, -1, -2]


def test_the_same_in_torch_and_in_strict_arrays():
    rng = np.random.default_rng(2)
    a, b = operand(rng, 20, 200).reshape(4, 50), operand(rng, 20, 50)
    for exponents in ((-16, -14, -13), (-16, -80, -18), (-80, 0, -60)):
        a_exponent, b_exponent, o_exponent = exponents
        spec = ResidualAddSpec(1, 20)
        want = golden(a, a_exponent, b, b_exponent, o_exponent, spec)
        for make in (torch.from_numpy, array_api_strict.asarray):
            got = golden(make(a), a_exponent, make(b), b_exponent, o_exponent, spec)
            assert (np.asarray(got) == want).all()


@pytest.mark.parametrize("bits", [4, 24])
def test_rescale(bits):
    rng = np.random.default_rng(bits)
    value = operand(rng, bits, 50)
    for o_exponent in range(-40, 41):
        wanted = exact(value, 0, np.zeros(50, dtype=np.int64), 0, o_exponent, bits)
        assert rescale(value, 0, o_exponent, bits).tolist() == wanted
    assert rescale(np.asarray([2**60, -(2**60)]), 0, -100, bits).tolist() == [
        2 ** (bits - 1) - 1, -(2 ** (bits - 1))]


def test_cycles():
    assert cost.latency(ResidualAddSpec(4, 8)) == 5
    assert [cost.cycles(ResidualAddSpec(4, 8), n) for n in (1, 4, 5, 768)] == [6, 6, 7, 197]
    many = SimpleNamespace(parallel=np.asarray([1, 32]))
    assert cost.latency(many).tolist() == [5, 5]
    assert cost.cycles(many, np.asarray([[33], [64]])).tolist() == [[38, 7], [69, 7]]
    assert cost.cycles_back_to_back(many, 33).tolist() == [33, 2]


def test_jobs_are_plain_and_say_what_comes_out():
    spec = ResidualAddSpec(2, 8)
    rows = [np.array([[5, -3, 127], [1, 1, 2]]), np.array([[7], [-128]])]
    job = jobs.make_job(spec, rows, (0, 1, 1), "two rows")
    assert jobs.signals(spec, job) == {"a_exponent": 0, "b_exponent": 1, "o_exponent": 1}
    # Beyond a row stand its first elements.
    assert jobs.stimulus(spec, job) == {
        "i_a": [{"value": [5, -3], "valid_mask": 3, "last": 0},
                {"value": [127, 5], "valid_mask": 1, "last": 1},
                {"value": [7, 7], "valid_mask": 1, "last": 1}],
        "i_b": [{"value": [1, 1]}, {"value": [2, 1]}, {"value": [-128, -128]}]}
    # 2.5 + 1, −1.5 + 1, 63.5 + 2, 3.5 − 128: ties to even.
    assert jobs.expected(spec, job)["o"] == [
        {"value": [4, 0], "valid_mask": 3, "last": 0},
        {"value": [66, 4], "valid_mask": 1, "last": 1},
        {"value": [-124, -124], "valid_mask": 1, "last": 1}]
    assert job.cycles == jobs.predicted_cycles(spec, job) == 3 + 5


def test_random_jobs_repeat_and_survive_json():
    spec = ResidualAddSpec(4, 8)
    job = jobs.random_job(spec, np.random.default_rng(1))
    again = jobs.random_job(spec, np.random.default_rng(1))
    read = Job.from_json(job.to_json())
    assert jobs.stimulus(spec, job) == jobs.stimulus(spec, again) == jobs.stimulus(spec, read)
    assert jobs.expected(spec, job) == jobs.expected(spec, read)
    assert job.cycles == read.cycles == jobs.predicted_cycles(spec, job)


def test_random_jobs_reach_all_cases():
    spec = ResidualAddSpec(4, 8)
    rng = np.random.default_rng(2)
    fine = mixed = above = partial = saturated = inexact = 0
    for _ in range(200):
        job = jobs.random_job(spec, rng)
        a, b, o = (job.exponents[name] for name in "abo")
        fine += max(a, b) < o
        mixed += min(a, b) < o <= max(a, b)
        above += 0 < min(a, b) - o < 8
        partial += any(n % 4 for n in job.shapes["rows"])
        values = golden(job.operands["a"], a, job.operands["b"], b, o, spec)
        saturated += 0 < (np.abs(values) > 126).sum() < len(values)
        inexact += 0 < min(abs(a - o), abs(b - o)) < 8
    assert min(fine, mixed, above, partial, saturated, inexact) > 20
