"""fifo: golden, cycles and jobs."""

from __future__ import annotations

from collections import deque
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st

from hwgen.program import Job
from hwgen.units.fifo import cost, jobs
from hwgen.units.fifo.golden import golden, trace
from hwgen.units.fifo.spec import FifoSpec


def test_the_order_is_kept() -> None:
    assert golden(np.array([3, 1, 2])).tolist() == [3, 1, 2]


def test_an_entry_leaves_two_cycles_after_it_came() -> None:
    taken, given, level = trace(np.array([1, 0, 0, 0]), np.ones(4), FifoSpec(8, 4))
    assert taken.tolist() == [True, False, False, False]
    assert given.tolist() == [False, False, True, False]
    assert level.tolist() == [0, 1, 1, 0]


def test_a_full_one_takes_nothing_until_the_cycle_after_a_read() -> None:
    read = np.array([0] * 6 + [1, 0, 1, 1])
    taken, given, level = trace(np.ones(10), read, FifoSpec(8, 4))
    assert taken.astype(int).tolist() == [1, 1, 1, 1, 0, 0, 0, 1, 0, 1]
    assert given.astype(int).tolist() == read.tolist()
    assert level.tolist() == [0, 1, 2, 3, 4, 4, 4, 3, 4, 3]


@drawn(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.integers(4, 6))
def test_levels_are_those_of_a_naive_queue(wanted: list[tuple[bool, bool]], depth: int) -> None:
    queue: deque[int] = deque()
    found: tuple[list[bool], list[bool], list[int]] = ([], [], [])
    for cycle, (offer, want) in enumerate(wanted):
        found[2].append(len(queue))
        room = len(queue) < depth
        found[1].append(bool(want and queue and queue[0] < cycle - 1))
        if found[1][-1]:
            queue.popleft()
        found[0].append(offer and room)
        if found[0][-1]:
            queue.append(cycle)
    write, read = np.array(wanted, dtype=bool).reshape(-1, 2).T
    got = trace(write, read, FifoSpec(8, depth))
    assert tuple(values.tolist() for values in got) == found


@pytest.mark.parametrize("make", [torch.tensor, array_api_strict.asarray])
def test_the_same_in_torch_and_in_strict_arrays(make: Any) -> None:
    rng = np.random.default_rng(1)
    write, read = rng.random((2, 100)) < 0.6
    wanted = trace(write, read, FifoSpec(8, 5))
    got = trace(make(write), make(read), FifoSpec(8, 5))
    assert all((np.asarray(a) == b).all() for a, b in zip(got, wanted, strict=True))


def test_requests_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have one shape, not \(3,\) and \(4,\)"):
        trace(np.ones(3), np.ones(4), FifoSpec(8, 4))


@pytest.mark.parametrize(("fields", "message"), [
    ((0, 4), "bits must be a whole number from 1 to 4096, not 0"),
    ((4097, 4), "bits must be a whole number from 1 to 4096, not 4097"),
    ((8, 3), "depth must be a whole number from 4 to 4096, not 3"),
    ((8, 4097), "depth must be a whole number from 4 to 4096, not 4097")])
def test_specs_outside_their_range_are_refused(fields: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FifoSpec(*fields)


def test_cycles() -> None:
    spec = FifoSpec(8, 4)
    assert cost.cycles(spec, 10) == 10 + cost.latency(spec) == 12
    assert cost.cycles_back_to_back(spec, 10) == 10


def test_jobs_are_plain_and_say_what_comes_out() -> None:
    spec = FifoSpec(40, 4)
    job = Job("fifo", "two", {"value": np.array([[5, 0], [1, 255]])})
    assert jobs.signals(spec, job) == {}
    assert jobs.stimulus(spec, job)["i"] == [{"i": 5}, {"i": 255 << 32 | 1}]
    assert jobs.expected(spec, job)["o"] == [{"o": 5}, {"o": 255 << 32 | 1}]
    assert jobs.predicted_cycles(spec, job) == 4


@pytest.mark.parametrize("bits", [1, 32, 40, 320])
def test_random_jobs_repeat_and_survive_json(bits: int) -> None:
    spec = FifoSpec(bits, 8)
    job = jobs.random_job(spec, np.random.default_rng(1))
    again = jobs.random_job(spec, np.random.default_rng(1))
    read = Job.from_json(job.to_json())
    assert jobs.stimulus(spec, job) == jobs.stimulus(spec, again) == jobs.stimulus(spec, read)
    assert jobs.expected(spec, job) == jobs.expected(spec, read)
    assert job.cycles == read.cycles == jobs.predicted_cycles(spec, job)


def test_random_jobs_go_round_and_fill_every_bit() -> None:
    spec = FifoSpec(40, 8)
    rng = np.random.default_rng(2)
    made = [jobs.random_job(spec, rng) for _ in range(100)]
    lengths = {len(job.operands["value"]) for job in made}
    assert {1, 7, 8, 9} < lengths and max(lengths) > 24
    entries = [beat["i"] for job in made for beat in jobs.stimulus(spec, job)["i"]]
    assert {0, (1 << 40) - 1} < set(entries) and max(entries) < 1 << 40
