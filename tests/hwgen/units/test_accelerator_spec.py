"""What an accelerator of a design is built of, and which designs are refused."""

from typing import Any

import pytest

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator import cost
from hwgen.units.accelerator.spec import AcceleratorSpec

SMALL = {
    "tile_b": 2, "tile_x": 4, "tile_y": 8, "nonlinearity": "relu", "pes": 1, "lanes_per_pe": 4,
    "macs_per_lane": 2, "softmax_per_pe": 6, "batch_size": 1, "activation_buffer_kib": 4,
    "weight_buffer_kib": 6, "mask_buffer_kib": 2,
    "memory": {"type": "dram", "banks": 32, "ranks": 2, "channels": 1}, "loop_order": "bijk",
    "integer_bits": 4, "fraction_bits": 6, "k_max": 256, "max_sequence_length": 32,
    "window": 8, "k_segment": 16,
}


def design(**changes: Any) -> AcceleratorDesign:
    return AcceleratorDesign.model_validate(SMALL | changes)


def test_depths_follow_from_the_design() -> None:
    spec = AcceleratorSpec.of(design())
    for buffer, kib in ((spec.activations, 4), (spec.weights, 6)):
        assert (buffer.bits, buffer.window, buffer.piece) == (10, 8, 4)
        # As many words as fit the buffer's bits, in pairs of an even and an odd one.
        assert buffer.value_bits <= kib * 8192 < buffer.value_bits + 2 * buffer.pieces * 40
        assert buffer.words % 2 == 0
    # Either buffer has half of the mask buffer.
    assert spec.activations.mask_bits + spec.weights.mask_bits == 2 * 8192
    assert spec.activations.biases == 0
    assert spec.weights.biases == spec.weights.lines // 2
    assert spec.weights.bias_bits == design().accumulator_bits - 1
    assert spec.lane.segment_lines == 2
    assert (spec.lane.tile_b, spec.lane.tile_x, spec.lane.tile_y) == (2, 4, 8)
    assert (spec.lane.lanes, spec.lanes, spec.softmax_engines) == (4, 4, 6)
    assert spec.softmax.rows.row_lines == 4
    assert spec.norm.rows.row_lines == 256 // 8


@pytest.mark.parametrize(
    ("lanes", "engines", "places", "levels"),
    [(1, 1, 1, 0), (4, 2, 4, 1), (4, 5, 5, 2), (16, 1, 16, 2), (17, 4, 17, 3)],
)
def test_a_lane_and_an_engine_share_a_leaf(
    lanes: int, engines: int, places: int, levels: int
) -> None:
    spec = AcceleratorSpec.of(design(lanes_per_pe=lanes, softmax_per_pe=engines))
    assert (spec.places, spec.levels) == (places, levels)
    assert cost.step_constant(1, lanes, engines) == 2 * levels + 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pes": 2}, "pes must be 1 for an accelerator's RTL, not 2"),
        ({"tile_x": 6}, "tile_x must be a power of two for an accelerator's RTL, not 6"),
        ({"k_segment": 12}, "k_segment must be a multiple of window = 8 for an accelerator's RTL, "
                            "not 12"),
        ({"window": 2, "k_segment": 4},
         "window must be at least 3 for a partial sum to fit a line of an accelerator's RTL, "
         "not 2"),
        # What a block of it refuses, in that block's words.
        ({"lanes_per_pe": 257}, "lanes must be a whole number from 1 to 256, not 257"),
        ({"k_segment": 8 * 65, "k_max": 1024},
         "segment_lines must be a whole number from 1 to 64, not 65"),
    ],
)
def test_a_design_without_rtl_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        AcceleratorSpec.of(design(**changes))


def test_lines_and_pieces_of_a_cycle() -> None:
    # A port of 100 bits a cycle gives one line of 8 · 10, whatever asks; of 170, two, to two PEs.
    assert cost.lines_per_cycle(1, 170, 1, 8, 10) == 1
    assert cost.lines_per_cycle(4, 170, 1, 8, 10) == 2
    assert cost.lines_per_cycle(4, 100, 3, 8, 10) == 1
    assert cost.pieces_per_cycle(4, 8, 4, 1) == 2
    assert cost.pieces_per_cycle(1, 8, 4, 1) == 1
    assert cost.pieces_per_cycle(4, 8, 4, 2) == 4


def test_room_in_the_buffers() -> None:
    # 8192 bits are 51 words of 8 · 20, of which an even number is taken.
    assert [cost.buffer_words(kib, 8, 20) for kib in (1, 2)] == [50, 102]
    # Half of 8192 masks for each buffer.
    assert cost.buffer_lines(1, 8) == 512
    assert [cost.bias_words(lines, 2) for lines in (512, 513, 12, 16, 17)] == [128, 129, 4, 4, 5]


@pytest.mark.parametrize(
    ("lanes", "window", "bits", "accumulator_bits", "together"),
    # A line of 64 · 20 bits has room for 24 sums of 52: 16 side by side, as far as there are lanes.
    [(16, 64, 20, 52, 16), (32, 64, 20, 52, 16), (12, 64, 20, 52, 8), (4, 8, 10, 28, 2),
     (4, 4, 20, 52, 1), (1, 64, 20, 52, 1)],
)
def test_lanes_that_move_a_sum_side_by_side(
    lanes: int, window: int, bits: int, accumulator_bits: int, together: int
) -> None:
    assert cost.sums_per_cycle(lanes, window, bits, accumulator_bits) == together
