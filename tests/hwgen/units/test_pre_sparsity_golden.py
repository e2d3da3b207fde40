"""pre_sparsity: effectual pairs, beats and jobs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwgen.program import Job
from hwgen.units.post_sparsity.golden import compress
from hwgen.units.pre_sparsity import cost, jobs
from hwgen.units.pre_sparsity.golden import beats, gather, pairs_per_window
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

ELEMENTS = st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=40)


@given(ELEMENTS)
@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_pairs_are_those_of_the_dense_operands(make: object, elements: list[tuple[int, int]]
                                               ) -> None:
    left, right = make([a for a, _ in elements]), make([b for _, b in elements])
    found = gather(*compress(left), *compress(right))
    expected = [(a, b) for a, b in elements if a and b]
    assert list(zip(*(side.tolist() for side in found), strict=True)) == expected


@given(ELEMENTS, st.integers(1, 9))
def test_pairs_per_window(elements: list[tuple[int, int]], window: int) -> None:
    left, right = (np.array(side) for side in zip(*elements, strict=True))
    expected = [sum(1 for a, b in elements[start:start + window] if a and b)
                for start in range(0, len(elements), window)]
    assert pairs_per_window(left, right, window).tolist() == expected
    by_torch = pairs_per_window(torch.tensor(left), torch.tensor(right), window)
    assert by_torch.tolist() == expected


def test_pairs_per_window_broadcasts_a_tile() -> None:
    rng = np.random.default_rng(4)
    left, right = rng.random((3, 1, 10)) < 0.5, rng.random((1, 2, 10)) < 0.5
    found = pairs_per_window(left, right, 4)
    assert found.shape == (3, 2, 3)
    assert found[2, 1].tolist() == pairs_per_window(left[2, 0], right[0, 1], 4).tolist()
    assert found.sum() == np.einsum("iak,ajk->", left.astype(int), right.astype(int))


@pytest.mark.parametrize(("elements", "expected"), [
    ([1, 2, 3, 4], [[1, 2], [3, 4]]),                  # the last beat is the end
    ([1, 2, 3], [[1, 2], [3, 0]]),
    ([1, 0, 0, 0, 2, 0, 0, 0], [[1, 2]]),
    ([1, 2, 0, 0, 0, 0, 0, 0], [[1, 2], [0, 0]]),      # whole beats, then a window without pairs
    ([1, 2, 3, 0, 0, 0, 0, 0], [[1, 2], [3, 0]]),
    ([0, 0, 0, 0, 0], [[0, 0]]),
])
def test_beats(elements: list[int], expected: list[list[int]]) -> None:
    value = np.array(elements)
    left, right = beats(*compress(value), *compress(2 * value), 2, 4)
    assert left.tolist() == expected
    assert right.tolist() == (2 * np.array(expected)).tolist()


@given(ELEMENTS, st.sampled_from([1, 2, 4]))
def test_the_beats_sum_to_the_dot_product(elements: list[tuple[int, int]], macs: int) -> None:
    left, right = (np.array(side) for side in zip(*elements, strict=True))
    found = beats(*compress(left), *compress(right), macs, 8)
    assert (found[0] * found[1]).sum() == left @ right
    # As many as the last cycles of the period: the machine issues one beat a cycle.
    counts = pairs_per_window(left, right, 8)
    assert len(found[0]) <= cost.periods(PreSparsitySpec(macs, 8, 8, 64), counts)


def test_jobs_are_plain_and_say_what_comes_out() -> None:
    spec = PreSparsitySpec(2, 8, 4, 8)
    job = Job("pre_sparsity", "one", {"left": np.array([[5, 0, -6, 7, 0, 8]]),
                                      "right": np.array([[1, 2, 3, 0, 0, 4]])})
    assert jobs.signals(spec, job) == {}
    unused = jobs.UNUSED
    assert jobs.stimulus(spec, job) == {
        "i_left_mask": [{"zero_mask": 0b1101, "last": 0}, {"zero_mask": 0b0010, "last": 1}],
        "i_left": [{"value": [5, -6, 7, unused]}, {"value": [8, unused, unused, unused]}],
        "i_right_mask": [{"zero_mask": 0b0111, "last": 0}, {"zero_mask": 0b0010, "last": 1}],
        "i_right": [{"value": [1, 2, 3, unused]}, {"value": [4, unused, unused, unused]}]}
    assert jobs.expected(spec, job)["o"] == [
        {"left": [5, -6], "right": [1, 3], "last": 0}, {"left": [8, 0], "right": [4, 0], "last": 1}]
    # Two windows, of which the first issues while the second comes, and a beat for the last pair.
    assert jobs.predicted_cycles(spec, job) == 2 + cost.latency(spec) == 7


def test_random_jobs_repeat_and_survive_json() -> None:
    spec = PreSparsitySpec(4, 8, 16, 32)
    job = jobs.random_job(spec, np.random.default_rng(1))
    again = jobs.random_job(spec, np.random.default_rng(1))
    read = Job.from_json(job.to_json())
    assert jobs.stimulus(spec, job) == jobs.stimulus(spec, again) == jobs.stimulus(spec, read)
    assert jobs.expected(spec, job) == jobs.expected(spec, read)
    assert job.cycles == read.cycles == jobs.predicted_cycles(spec, job)


def test_random_jobs_block_the_fifo_and_end_without_pairs() -> None:
    spec, rng = PreSparsitySpec(2, 8, 8, 16), np.random.default_rng(2)
    blocked = bare = 0
    for _ in range(100):
        job = jobs.random_job(spec, rng)
        counts = pairs_per_window(job.operands["left"], job.operands["right"], 8)
        deep = PreSparsitySpec(2, 8, 8, 1024)
        blocked += (cost.periods(spec, counts) != cost.periods(deep, counts)).any()
        last_beats = [beat for beat in jobs.expected(spec, job)["o"] if beat["last"]]
        assert len(last_beats) == len(counts)
        bare += any(not any(beat["left"]) for beat in last_beats)
    assert blocked > 10
    assert bare > 10
