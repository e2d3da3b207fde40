"""Sizes of images, and the cycles in which they come: by hand, by counting, and in arrays."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from hwgen.units.loader import cost
from hwgen.units.loader.cost import ImageSize

SMALL: dict[str, Any] = {
    "window": 64, "bits": 20, "accumulator_bits": 52, "lines_per_cycle": 3,
    "rate_numerator": 2048, "rate_denominator": 7,
}


def random_case(rng: np.random.Generator) -> dict[str, Any]:
    window, bits = int(rng.choice([1, 4, 16, 64, 256])), int(rng.integers(4, 33))
    lines_per_cycle = int(rng.integers(1, 9))
    memory = [(2048, 7), (20480, 7), (4096, 7), (20480, 3)][rng.integers(4)]
    numerator, denominator = cost.rate(*memory, lines_per_cycle, window, bits)
    return {
        "window": window, "bits": bits, "accumulator_bits": 2 * bits + int(rng.integers(1, 17)),
        "lines_per_cycle": lines_per_cycle,
        "rate_numerator": numerator, "rate_denominator": denominator,
    }


def random_size(rng: np.random.Generator, case: dict[str, Any]) -> tuple[tuple[int, ...], Any]:
    lines = int(rng.integers(0, 400))
    rows = (lines, int(np.ceil(rng.random() * lines)), int(rng.integers(0, 200)))
    return rows, cost.image_size(*rows, **case)


def test_an_image_by_hand() -> None:
    # 128 columns of two lines, half of which is not zero, and 16 biases of 51 bits in 1280.
    size = cost.image_size(256, 128, 128, **SMALL)
    assert cost.biases_together(64, 20, 52) == 16
    assert size == ImageSize(lines=256, biases=8, groups=13, values=10, slots=11)
    assert (size.words, size.all_slots) == (8 + 13 * 11, 8 + 13 * 11)


def test_masks_take_idle_slots_where_there_are_few_values() -> None:
    # A line of 4 values a cycle: 20 lines' masks take 20 cycles, in which 80 bits come at 1 a slot.
    numerator, denominator = cost.rate(20480, 7, 1, 4, 20)
    assert (numerator, denominator) == (80, 1)
    case = {**SMALL, "window": 4, "lines_per_cycle": 1,
            "rate_numerator": numerator, "rate_denominator": denominator}
    size = cost.image_size(40, 4, 0, **case)
    assert (size.groups, size.values, size.slots) == (2, 2, 20)
    assert (size.words, size.all_slots) == (6, 40)
    assert cost.image_size(40, 0, 0, **case).words == 2, "masks of zeros come too"


def test_nothing_has_no_words_and_takes_no_time() -> None:
    size = cost.image_size(0, 0, 0, **SMALL)
    assert (size.words, size.all_slots) == (0, 0)
    assert memory_cycles(0, 36, SMALL) == 0


def memory_cycles(bits: Any, latency: Any, case: dict[str, Any]) -> Any:
    return cost.memory_cycles(
        bits, latency, width=case["bits"],
        **{name: case[name] for name in ("lines_per_cycle", "rate_numerator", "rate_denominator")})


def test_a_job_by_hand() -> None:
    # 26 slots of 1280 bits at 2048 / 7, and seven cycles for the masks of 20 lines.
    assert memory_cycles(26 * 1280, 36, SMALL) == 36 + 114 + 7 + cost.LOAD
    assert cost.overhead(36, 20, 3) == 36 + 7 + cost.LOAD


def test_memory_is_no_faster_than_the_port() -> None:
    assert cost.rate(2048, 7, 3, 64, 20) == (2048, 7)
    assert cost.rate(20480, 7, 2, 64, 20) == (2560, 1)
    assert cost.rate(20480, 7, 3, 64, 20) == (20480, 7)
    assert cost.rate(2048, 7, 1, 2048, 1) == (2048, 7)


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_in_the_directory_before_the_next_ones_come(seed: int) -> None:
    rng = np.random.default_rng([31, seed])
    case = random_case(rng)
    _, size = random_size(rng, case)
    word = case["window"] * case["bits"]
    rate = Fraction(case["rate_numerator"], case["rate_denominator"])
    needed, free, at = -(-case["bits"] // case["lines_per_cycle"]), 0, 0
    latency, finished = 11, 0
    for slot in range(size.all_slots):
        at = latency - (-(slot + 1) * word // rate)
        if slot >= size.biases and (slot - size.biases) % size.slots == 0:
            assert at >= free, "masks wait for those before them"
            free = at + needed
            finished = max(finished, free + cost.LOAD)
        finished = max(finished, at + cost.LOAD)
    assert finished <= memory_cycles(size.all_slots * word, latency, case)
    # No slot could be left out.
    if size.slots > 1 + size.values:
        assert (size.slots - 1) * word / rate < needed


def test_the_words_hold_everything() -> None:
    rng = np.random.default_rng(32)
    for _ in range(200):
        case = random_case(rng)
        (lines, words, biases), size = random_size(rng, case)
        assert size.lines == lines and size.groups * case["bits"] >= lines
        assert 0 <= size.groups * size.values - words < max(1, size.groups)
        together = cost.biases_together(case["window"], case["bits"], case["accumulator_bits"])
        assert together & (together - 1) == 0 and size.biases * together >= biases
        wide = case["accumulator_bits"] - 1
        assert together == 1 or together * wide <= case["window"] * case["bits"]
        assert together == 1024 or 2 * together * wide > case["window"] * case["bits"]


def test_arrays_are_their_entries() -> None:
    rng = np.random.default_rng(33)
    cases = [random_case(rng) for _ in range(100)]
    rows, sizes = zip(*(random_size(rng, case) for case in cases), strict=True)
    columns = {name: np.array([case[name] for case in cases]) for name in cases[0]}
    found = cost.image_size(*np.array(rows).T, **columns)
    for name in ("lines", "biases", "groups", "values", "slots", "words", "all_slots"):
        wanted = [getattr(size, name) for size in sizes]
        assert getattr(found, name).tolist() == wanted, name
    bits = found.all_slots * columns["window"] * columns["bits"]
    wanted = [memory_cycles(int(one), 36, case) for one, case in zip(bits, cases, strict=True)]
    assert memory_cycles(bits, 36, columns).tolist() == wanted
    assert memory_cycles(bits.astype(np.float64), 36, columns).tolist() == wanted
