"""Images in main memory: rows and biases come back from their words, and sizes are as they say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.loader.cost import ImageSize, biases_together, image_size, memory_cycles, rate
from hwgen.units.loader.golden import image, value_words

SPECS = [
    BufferSpec(4, 8, 2, words=400, lines=400, biases=64, bias_bits=15, biases_together=2),
    BufferSpec(5, 4, 4, words=400, lines=400, biases=64, bias_bits=20, biases_together=1),
    BufferSpec(8, 16, 4, words=400, lines=400, biases=64, bias_bits=23, biases_together=4),
]


def size_of(spec: BufferSpec, rows: np.ndarray, biases: int, spare: int = 0) -> ImageSize:
    lines = len(rows) * -(-rows.shape[1] // spec.window)
    size: ImageSize = image_size(
        lines, value_words(spec, rows) + spare, biases, window=spec.window, bits=spec.bits,
        accumulator_bits=spec.bias_bits + 1, lines_per_cycle=1,
        rate_numerator=spec.window * spec.bits, rate_denominator=1)
    return size


def signed(code: int, bits: int) -> int:
    return code - (1 << bits) if code >> bits - 1 else code


def fields(word: int, width: int, count: int) -> list[int]:
    """Fields of some bits of a word, the lowest first."""
    return [word >> width * number & (1 << width) - 1 for number in range(count)]


def read_back(
    spec: BufferSpec, words: Sequence[int], size: ImageSize, shape: tuple[int, int]
) -> tuple[np.ndarray, list[int]]:
    """Rows and biases of an image, by the format's description alone."""
    biases = [signed(code, spec.bias_bits) for word in words[:size.biases]
              for code in fields(word, spec.bias_bits, spec.biases_together)]
    masks: list[int] = []
    banks: list[list[int]] = [[] for _ in range(spec.pieces)]
    for group in range(size.groups):
        first = size.biases + group * (1 + size.values)
        masks += fields(words[first], spec.window, spec.bits)
        for word in words[first + 1:first + 1 + size.values]:
            values = [signed(code, spec.bits) for code in fields(word, spec.bits, spec.window)]
            for bank in range(spec.pieces):
                banks[bank] += values[bank * spec.piece:(bank + 1) * spec.piece]
    assert not any(masks[size.lines:])
    lines = np.zeros((size.lines, spec.window), dtype=np.int64)
    for number, mask in enumerate(masks[:size.lines]):
        for position in range(spec.window):
            if mask >> position & 1:
                lines[number, position] = banks[position // spec.piece].pop(0)
    rows, elements = shape
    return lines.reshape(rows, -1)[:, :elements], biases


@pytest.mark.parametrize("spec", SPECS)
@given(data=st.data())
def test_rows_and_biases_come_back(spec: BufferSpec, data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    shape = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3 * spec.window))
    half = 1 << spec.bits - 1
    rows = rng.integers(-half, half, shape)
    rows *= rng.random(shape) < data.draw(st.sampled_from([0.0, 0.3, 1.0]))
    reach = 1 << spec.bias_bits - 1
    biases = rng.integers(-reach, reach, data.draw(st.integers(0, 9)))
    size = size_of(spec, rows, len(biases), data.draw(st.integers(0, 3)))
    words = image(spec, rows, size, biases)
    assert len(words) == size.words
    assert all(0 <= word < 1 << spec.window * spec.bits for word in words)
    found, with_biases = read_back(spec, words, size, shape)
    assert np.array_equal(found, rows)
    assert with_biases[:len(biases)] == biases.tolist()
    assert not any(with_biases[len(biases):])


def test_an_image_by_hand() -> None:
    spec = BufferSpec(4, 4, 2, words=16, lines=16, biases=8, bias_bits=7, biases_together=2)
    rows = np.asarray([[1, 0, 0, -1], [2, 3, 0, 0]])
    words = image(spec, rows, ImageSize(2, 1, 1, 2, 5), [5, -1])
    # Two banks: 1 2 3 in the one, and −1 in the other; a word has two values of each.
    assert words == [0b1111111_0000101, 0b0011_1001, 0x0F21, 0x0003]


def test_what_does_not_fit_is_refused() -> None:
    spec, rows = SPECS[0], np.ones((3, 8), dtype=np.int64)
    with pytest.raises(ValueError, match="the rows have 3 lines, not 4"):
        image(spec, rows, ImageSize(4, 0, 1, 4, 5))
    with pytest.raises(ValueError, match="the rows need 3 words of every bank where the image has "
                                         "2; declare a density of at least 1.000"):
        image(spec, rows, ImageSize(3, 0, 1, 2, 5))


def test_the_words_of_the_fullest_bank_count() -> None:
    spec = SPECS[0]  # pieces of 2
    rows = np.zeros((5, 8), dtype=np.int64)
    assert value_words(spec, rows) == 0
    rows[:, 3] = 1
    assert value_words(spec, rows) == 3


@pytest.mark.parametrize(("window", "bits", "accumulator_bits", "expected"), [
    (8, 10, 28, 2), (8, 10, 81, 1), (8, 10, 82, 1), (16, 16, 33, 8), (16, 16, 34, 4),
    (2048, 24, 49, 1024)])
def test_biases_in_a_word(window: int, bits: int, accumulator_bits: int, expected: int) -> None:
    assert biases_together(window, bits, accumulator_bits) == expected


def test_a_groups_slots_are_its_words_or_the_time_of_its_masks() -> None:
    common = {"window": 8, "bits": 10, "accumulator_bits": 28, "lines_per_cycle": 1}
    whole = image_size(33, 17, 9, **common, rate_numerator=80, rate_denominator=1)
    assert whole == ImageSize(33, 5, 4, 5, 10)
    assert (whole.words, whole.all_slots) == (5 + 4 * 6, 5 + 4 * 10)
    # Half a word a cycle: ten cycles of masks are five slots.
    slow = image_size(33, 17, 9, **common, rate_numerator=40, rate_denominator=1)
    assert slow.slots == 6
    assert image_size(0, 0, 0, **common, rate_numerator=80, rate_denominator=1).all_slots == 0


def test_the_rate_is_at_most_a_word_for_each_line() -> None:
    assert rate(2048, 7, 1, 8, 10) == (80, 1)
    assert rate(2048, 7, 1, 32, 10) == (2048, 7)
    assert rate(2048, 7, 4, 8, 10) == (2048, 7)


def test_cycles_of_main_memory() -> None:
    rates = {"width": 10, "lines_per_cycle": 1, "rate_numerator": 80, "rate_denominator": 3}
    assert memory_cycles(0, 36, **rates) == 0
    assert memory_cycles(80 * 5, 36, **rates) == 36 + 15 + 10 + 2
