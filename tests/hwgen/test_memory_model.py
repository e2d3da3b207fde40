"""The test bench's main memory: words in order after a latency, and no more than its rate."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from hwgen.program import MainMemory
from hwgen.simulation.machine import memory_request
from hwgen.simulation.main_memory import MainMemoryModel
from hwgen.simulation.module import Field, Port

LAYOUT = {"memory.enable": 0, "memory.address": 1, "memory.tag": 29, "memory_data.valid": 0,
          "memory_data.tag": 1, "memory_data.word": 4, "address": 28, "tag": 3}
IDLE = "X" * 31 + "0"
"""A request's registers hold nothing before the first one."""


class Ports:
    """Both ports of the model: what the accelerator asks in a cycle, and what it sees."""

    def __init__(self) -> None:
        self.value = IDLE
        self.seen = 0

    def set(self, payload: int) -> None:
        self.seen = payload


def answers(
    requests: dict[int, tuple[int, int]], cycles: int, **memory: Any
) -> dict[int, tuple[int, int]]:
    """Ask for (address, tag) in some cycles; (word, tag) by the cycle in which it comes."""
    ports = Ports()
    given = {"words": ["a", "b", "c"], "latency": 3, "numerator": 5, "denominator": 2, **memory}
    model = MainMemoryModel(ports, ports, LAYOUT, given)
    found = {}
    for number in range(cycles):
        address, tag = requests.get(number, (0, 0))
        ports.value = f"{tag << 29 | address << 1 | 1:032b}" if number in requests else IDLE
        model.drive(number)
        if ports.seen & 1:
            found[number] = ports.seen >> 4, ports.seen >> 1 & 7
        model.sample(number)
    return found


def test_words_come_in_order_after_the_latency_with_their_tags() -> None:
    requests = {1: (2, 5), 4: (0, 0), 6: (1, 7)}
    assert answers(requests, 20) == {4: (12, 5), 7: (10, 0), 9: (11, 7)}
    assert answers(requests, 20, latency=1) == {2: (12, 5), 5: (10, 0), 7: (11, 7)}


def test_what_lies_beyond_is_zero() -> None:
    assert answers({0: (3, 1), 3: ((1 << 28) - 1, 2)}, 9) == {3: (0, 1), 6: (0, 2)}


def burst(pace: Callable[[int], int], count: int = 9) -> dict[int, tuple[int, int]]:
    return {pace(number): (0, 0) for number in range(count)}


@pytest.mark.parametrize("start", [0, 1, 7])
def test_a_burst_at_the_rate_is_served(start: int) -> None:
    # 5 / 2 cycles a word, in whole cycles rounded up or down.
    assert len(answers(burst(lambda number: start + -(-number * 5 // 2)), 50)) == 9
    assert len(answers(burst(lambda number: start + number * 5 // 2), 50)) == 9


@pytest.mark.parametrize("early", [1, 2, 8])
def test_a_request_that_is_early_is_an_error(early: int) -> None:
    requests = burst(lambda number: 10 + number * 5 // 2 - (number == early))
    with pytest.raises(RuntimeError, match=f"cycle {10 + early * 5 // 2 - 1}: a request before"):
        answers(requests, 50)


def test_a_pause_earns_no_burst() -> None:
    with pytest.raises(RuntimeError, match="cycle 31: a request before"):
        answers({0: (0, 0), 30: (0, 0), 31: (0, 0)}, 50)


def test_where_there_is_no_memory_nothing_may_be_asked() -> None:
    ports = Ports()
    model = MainMemoryModel(ports, ports, LAYOUT, None)
    model.sample(3)
    ports.value = f"{1:032b}"
    with pytest.raises(RuntimeError, match="cycle 4: a request where there is no main memory"):
        model.sample(4)


def test_a_word_takes_the_bits_of_its_port() -> None:
    """The model's cycles of a word are the port's width at main memory's rate, exactly."""
    port = Port("memory_data", "in", "signal", 84, (
        Field("valid", 0, 1, None, False), Field("word", 4, 80, None, False)))
    memory = MainMemory((255, 1), 9, Fraction(2048, 7))
    assert memory_request(memory, {"memory_data": port}) == {
        "words": ["ff", "1"], "latency": 9, "numerator": 35, "denominator": 128}
    assert memory_request(None, {"memory_data": port}) is None


def test_it_survives_json() -> None:
    memory = MainMemory((0, 1 << 200, 7), 9, Fraction(2048, 7))
    assert MainMemory.from_json(json.loads(json.dumps(memory.to_json()))) == memory


@pytest.mark.parametrize(("latency", "rate", "message"), [
    (0, Fraction(1), "latency_cycles must be at least 1, not 0"),
    (1, Fraction(0), "bits_per_cycle must be positive, not 0")])
def test_a_memory_that_cannot_be_is_refused(latency: int, rate: Fraction, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MainMemory((), latency, rate)
