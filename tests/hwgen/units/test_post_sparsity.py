"""post_sparsity: golden, cycles and jobs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwgen.program import Job
from hwgen.units.post_sparsity import cost, jobs
from hwgen.units.post_sparsity.golden import compress, decompress, words
from hwgen.units.post_sparsity.spec import PostSparsitySpec


def test_values_keep_their_order() -> None:
    value, zero_mask = compress(np.array([0, 7, 0, -2, 1]))
    assert value.tolist() == [7, -2, 1]
    assert zero_mask.tolist() == [False, True, False, True, True]


@given(st.lists(st.integers(-2, 2), min_size=1))
@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_decompress_undoes_compress(make: object, values: list[int]) -> None:
    value, zero_mask = compress(make(values))
    assert all(value != 0)
    assert decompress(value, zero_mask).tolist() == values
    # What follows the last used value is ignored.
    assert decompress(make([*value.tolist(), 9, 9]), zero_mask).tolist() == values


@pytest.mark.parametrize(("elements", "counts"), [
    (0, [0]), (1, [1]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (8, [3, 3, 2])])
def test_words(elements: int, counts: list[int]) -> None:
    beats, found = words(np.arange(1, elements + 1), 3)
    assert found.tolist() == counts
    flat = beats.reshape(-1).tolist()
    assert flat == [*range(1, elements + 1), *[0] * (3 * len(counts) - elements)]
    assert beats.shape == (len(counts), 3)


def test_cycles() -> None:
    spec = PostSparsitySpec(8, 4, 16)
    assert cost.cycles(spec, 10) == 10 + cost.latency(spec) == 12
    assert cost.cycles_back_to_back(spec, 10) == 10


def test_jobs_are_plain_and_say_what_comes_out() -> None:
    spec = PostSparsitySpec(8, 2, 3)
    job = Job("post_sparsity", "two tiles", {"value": np.array([1, 0, 2, 3, 0, 0])},
              shapes={"tiles": [5, 1]})
    assert jobs.signals(spec, job) == {}
    assert jobs.stimulus(spec, job)["i"] == [
        {"value": value, "last": last}
        for value, last in [(1, 0), (0, 0), (2, 0), (3, 0), (0, 1), (0, 1)]]
    assert jobs.expected(spec, job) == {
        "o_value": [{"value": [1, 2], "count": 2, "last": 0},
                    {"value": [3, 0], "count": 1, "last": 1},
                    {"value": [0, 0], "count": 0, "last": 1}],
        "o_mask": [{"zero_mask": 0b101, "last": 0}, {"zero_mask": 0b001, "last": 1},
                   {"zero_mask": 0, "last": 1}]}
    assert jobs.predicted_cycles(spec, job) == 8


def test_a_word_that_fills_at_the_end_is_the_last() -> None:
    spec = PostSparsitySpec(8, 2, 2)
    for values in ([4, 5], [4, 5, 0]):
        job = Job("post_sparsity", "full", {"value": np.array(values)},
                  shapes={"tiles": [len(values)]})
        assert jobs.expected(spec, job)["o_value"] == [{"value": [4, 5], "count": 2, "last": 1}]


def test_random_jobs_repeat_and_survive_json() -> None:
    spec = PostSparsitySpec(8, 4, 16)
    job = jobs.random_job(spec, np.random.default_rng(1))
    again = jobs.random_job(spec, np.random.default_rng(1))
    read = Job.from_json(job.to_json())
    assert jobs.stimulus(spec, job) == jobs.stimulus(spec, again) == jobs.stimulus(spec, read)
    assert jobs.expected(spec, job) == jobs.expected(spec, read)
    assert job.cycles == read.cycles == jobs.predicted_cycles(spec, job)
