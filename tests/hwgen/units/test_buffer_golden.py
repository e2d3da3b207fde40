"""buffer: golden, sizes and cycles."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwgen.units.buffer import cost, golden
from hwgen.units.buffer.spec import LINE_ENTRIES, ODD_WORDS, BufferSpec


def test_a_line_is_its_nonzeros_and_where_they_stood() -> None:
    zero_mask, values = golden.line([0, 7, 0, -2, 1])
    assert zero_mask == 0b11010
    assert values.tolist() == [7, -2, 1]


def test_layout_by_hand() -> None:
    spec = BufferSpec(4, 4, 2, words=6, lines=5)
    rows = np.array([[1, 2, 3, 0, 0, -1], [0, 4, 0, 0, 5, 0]])
    image = golden.pack(spec, rows, base=1, start=2)
    # Bank 0 gets 1 2, 0 -1, 0 4, 5 0 from position 2 (word 1) on; bank 1 gets 3 0 and 0 0.
    assert image.used.tolist() == [5, 1]
    assert image.entries == {
        (0, 1): 0b11 | 2 << 2, (0, 2): 0b10 | 4 << 2, (0, 3): 0b10 | 5 << 2, (0, 4): 0b01 | 6 << 2,
        (1, 1): 0b01 | 2 << 2, (1, 3): 0b00 | 3 << 2}
    assert image.odd == {(0, 0): 0x21, (0, 1): 0x05, (1, 0): 0x03}
    assert image.even == {(0, 1): 0x4f}
    assert image.rows(1, 2, 6).tolist() == rows.tolist()
    assert golden.capacity_needed(rows, 2, 2).tolist() == [5, 1]
    assert list(image.writes())[0] == (LINE_ENTRIES, 0, 1, 0b11 | 2 << 2)
    assert list(image.writes())[-2:] == [(ODD_WORDS, 0, 1, 0x05), (ODD_WORDS, 1, 0, 0x03)]


def test_an_empty_piece_behind_the_last_position_keeps_the_lower_bits() -> None:
    spec = BufferSpec(4, 2, 2, words=4, lines=5)
    image = golden.pack(spec, [[1, 2]] * 4 + [[0, 0]])
    assert image.entries[0, 4] == 0
    assert image.rows(0, 5, 2).tolist() == [[1, 2]] * 4 + [[0, 0]]


@given(st.data())
def test_what_is_packed_can_be_read_back(data: st.DataObject) -> None:
    window = data.draw(st.sampled_from([1, 2, 4, 8]))
    piece = data.draw(st.sampled_from([size for size in (1, 2, 4, 8) if size <= window]))
    bits = data.draw(st.integers(4, 6))
    count, elements = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 20))
    half = 1 << bits - 1
    values = st.integers(-half, half - 1) | st.just(0)
    rows = np.array(data.draw(st.lists(
        st.lists(values, min_size=elements, max_size=elements), min_size=count, max_size=count)))
    spec = BufferSpec(bits, window, piece, words=100, lines=128)
    start = [piece * data.draw(st.integers(0, 3)) for _ in range(spec.pieces)]
    base = data.draw(st.integers(0, 5))
    order = data.draw(st.permutations(golden.storage_order(spec, count, elements)))
    image = golden.pack(spec, rows, base, start, order=order)
    assert image.rows(base, count, elements).tolist() == rows.tolist()
    assert image.used.tolist() == golden.capacity_needed(rows, piece, spec.pieces).tolist()
    assert image.used.sum() == np.count_nonzero(rows)
    assert set(image.even) | set(image.odd) == {
        (bank, word // 2) for bank, used in enumerate(image.used.tolist())
        for word in range(start[bank] // piece, (start[bank] + used + piece - 1) // piece)}


@pytest.mark.parametrize(("change", "message"), [
    ({"rows": [[8]]}, "must fit 4 bits, not 8 to 8"),
    ({"rows": [[-9]]}, "must fit 4 bits"),
    ({"base": 7}, "end at line 8, not 9"),
    ({"start": 3}, "start must be a multiple of 2"),
    ({"limit": 2}, "bank 0 needs more than the positions 0 to 2"),
    ({"start": 14}, "bank 0 needs more than the positions 14 to 16"),
])
def test_what_cannot_be_stored_is_refused(change: dict[str, object], message: str) -> None:
    spec = BufferSpec(4, 4, 2, words=8, lines=8)
    with pytest.raises(ValueError, match=message):
        golden.pack(spec, **{"rows": [[1, 2, 3, 0], [4, 0, 0, 0]], **change})


# Parameters and cycles.

@pytest.mark.parametrize(("change", "message"), [
    ({"bits": 3}, "bits"), ({"piece": 8}, "piece"), ({"words": 5}, "words must be even"),
    ({"words": 2}, "words"), ({"lines": 0}, "lines"), ({"biases": -1}, "biases"),
    ({"biases": 4}, "bias_bits"), ({"bias_bits": 4}, "bias_bits")])
def test_parameters_are_checked(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BufferSpec(**{"bits": 4, "window": 4, "piece": 2, "words": 4, "lines": 4, **change})


def test_sizes() -> None:
    spec = BufferSpec(20, 64, 16, words=1000, lines=2048, biases=128, bias_bits=51)
    assert (spec.line.pieces, spec.pieces, spec.positions, spec.position_bits) == (4, 4, 16000, 14)
    assert spec.value_bits == 4 * 16000 * 20
    assert spec.mask_bits == 2048 * 64
    assert spec.directory_bits == 4 * 2048 * 14
    assert spec.bias_memory_bits == 128 * 51
    assert spec.raw_bits == 320


def test_cycles() -> None:
    spec = BufferSpec(20, 64, 16, words=1000, lines=2048)
    assert cost.read_latency(spec) == 5
    assert cost.read_cycles(spec, 1) == 7
    assert cost.read_cycles(spec, 0) == cost.store_cycles(spec, 0) == 0
    assert cost.store_cycles(spec, 10) == 15
    many = SimpleNamespace(window=np.array([1, 256, 256]), piece=np.array([1, 1, 64]))
    assert cost.read_cycles(many, np.array([1, 1, 0])).tolist() == [5, 13, 0]
    assert cost.store_cycles(many, np.array([3, 0])).tolist() == [8, 0]
