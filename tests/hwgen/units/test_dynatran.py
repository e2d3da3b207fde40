"""dynatran: golden, cycles and jobs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwgen.program import Job
from hwgen.units.dynatran import cost, jobs
from hwgen.units.dynatran.golden import prune
from hwgen.units.dynatran.spec import DynatranSpec


def test_below_is_pruned_and_equal_is_kept() -> None:
    value, zero_mask = prune(np.array([-4, -3, -2, -1, 0, 1, 2, 3, 4]), 3)
    assert value.tolist() == [-4, -3, 0, 0, 0, 0, 0, 3, 4]
    assert zero_mask.tolist() == [True, True, *[False] * 5, True, True]


def test_the_most_negative_number_has_a_magnitude() -> None:
    for bits in (4, 8, 20):
        low = np.array([-(1 << (bits - 1)), 1 - (1 << (bits - 1))])
        assert prune(low, 1 << (bits - 1))[0].tolist() == [low[0], 0]
    assert prune(np.array([-128], dtype=np.int8), 127)[0].tolist() == [-128]


def test_without_a_threshold_zeros_are_still_masked() -> None:
    value, zero_mask = prune(np.array([0, 1, -1]), 0)
    assert value.tolist() == [0, 1, -1]
    assert zero_mask.tolist() == [False, True, True]


def test_invalid_positions_are_zero() -> None:
    value, zero_mask = prune(np.array([[5, 5, 5], [1, 7, 0]]), 2, np.array([1, 0, 1]))
    assert value.tolist() == [[5, 0, 5], [0, 0, 0]]
    assert zero_mask.tolist() == [[True, False, True], [False, False, False]]


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold must be at least 0, not -1"):
        prune(np.array([1]), -1)


@given(st.lists(st.integers(-(2**19), 2**19 - 1), min_size=1), st.integers(0, 2**19))
def test_torch_numpy_and_the_definition_agree(values: list[int], threshold: int) -> None:
    expected = [value if abs(value) >= threshold else 0 for value in values]
    pruned, zero_mask = prune(np.array(values), threshold)
    assert pruned.tolist() == expected
    assert zero_mask.tolist() == [value != 0 for value in expected]
    tensor = torch.tensor(values)
    by_torch, torch_mask = prune(tensor, threshold)
    assert torch.equal(by_torch, torch.where(tensor.abs() < threshold, 0, tensor))
    assert torch_mask.tolist() == zero_mask.tolist()


def test_cycles() -> None:
    spec = DynatranSpec(4, 8)
    assert cost.cycles(spec, 10) == 10 + cost.latency(spec) == 11
    assert cost.cycles_back_to_back(spec, 10) == 10


def test_jobs_are_plain_and_say_what_comes_out() -> None:
    spec = DynatranSpec(2, 8)
    job = Job("dynatran", "two beats", {
        "value": np.array([[5, -3], [-128, 127]]), "valid_mask": np.array([[1, 1], [1, 0]]),
        "last": np.array([0, 1]), "threshold": 4})
    assert jobs.signals(spec, job) == {"threshold": 4}
    assert jobs.stimulus(spec, job)["i"] == [
        {"value": [5, -3], "valid_mask": 3, "last": 0},
        {"value": [-128, 127], "valid_mask": 1, "last": 1}]
    assert jobs.expected(spec, job)["o"] == [
        {"value": [5, 0], "zero_mask": 1, "last": 0},
        {"value": [-128, 0], "zero_mask": 1, "last": 1}]
    assert jobs.predicted_cycles(spec, job) == 3


def test_random_jobs_repeat_and_survive_json() -> None:
    spec = DynatranSpec(4, 8)
    job = jobs.random_job(spec, np.random.default_rng(1))
    again = jobs.random_job(spec, np.random.default_rng(1))
    read = Job.from_json(job.to_json())
    assert jobs.stimulus(spec, job) == jobs.stimulus(spec, again) == jobs.stimulus(spec, read)
    assert jobs.expected(spec, job) == jobs.expected(spec, read)
    assert job.cycles == read.cycles == jobs.predicted_cycles(spec, job)


def test_random_jobs_hold_ties_and_extremes() -> None:
    spec = DynatranSpec(4, 6)
    rng = np.random.default_rng(2)
    ties = extremes = above = 0
    for _ in range(100):
        job = jobs.random_job(spec, rng)
        value, threshold = job.operands["value"], job.operands["threshold"]
        assert value.min() >= -32 and value.max() <= 31 and 0 <= threshold < 64
        ties += (np.abs(value) == threshold).any()
        extremes += (value == -32).any()
        above += threshold > 32
    assert min(ties, extremes) > 50
    assert above
