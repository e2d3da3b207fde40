"""Layouts of a lane's ports."""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

INDEX_BITS = 24
"""Width of a row's or column's index in a whole result."""

ZERO, BIAS, SUM = range(3)
"""What a segment's sums begin with: `initial` of a step."""


def place_layout(spec):
    """Which tile of a full block a lane has: written where `enable`."""
    tile = range(spec.lanes)
    return data.StructLayout({"enable": 1, "used": 1, "b": tile, "i": tile, "j": tile})


def operation_layout(spec):
    """Constants of an operation, steady while it runs and from the cycle before it."""
    stochastic = {"stochastic": 1} if spec.mac_lane.noise_bits else {}
    return data.StructLayout({
        "shift": range(spec.mac_lane.accumulator_bits), **stochastic,
        "activate": range(3), "i_exponent": signed(8), "o_exponent": signed(8),
        "threshold": unsigned(spec.bits),
        "transposed": 1, "right_has_b": 1,
        "valid_i": unsigned(INDEX_BITS), "valid_j": unsigned(INDEX_BITS),
    })


def step_layout(spec):
    """One segment of a block of tiles; the fields are steady from `start` while a lane is busy."""
    tiles = range(spec.lanes + 1)
    noise = {"seed": unsigned(spec.mac_lane.noise_bits), **{
        f"first_tile_{name}": unsigned(INDEX_BITS) for name in "bij"}}
    return data.StructLayout({
        "start": 1,
        "tiles_b": tiles, "tiles_i": tiles, "tiles_j": tiles,
        "last_b": range(spec.tile_b + 1), "last_i": range(spec.tile_x + 1),
        "last_j": range(spec.tile_y + 1),
        "windows": range(spec.segment_lines + 1),
        "initial": unsigned(2), "closing": 1,
        **(noise if spec.mac_lane.noise_bits else {}),
        "left_bank": 1, "right_bank": 1, "sums_bank": 1, "result_bank": 1,
        "origin_i": unsigned(INDEX_BITS), "origin_j": unsigned(INDEX_BITS),
    })


def left_layout(spec):
    """A line of a left operand's row, for the lanes whose tile it belongs to."""
    return data.StructLayout(_line_fields(spec, {"i": range(spec.tile_x)}))


def right_layout(spec):
    """A line of a right operand's column, and the column's bias."""
    return data.StructLayout(_line_fields(spec, {"j": range(spec.tile_y)}) | {
        "bias_valid": 1, "bias": signed(spec.mac_lane.accumulator_bits)})


def result_layout(spec):
    """Which piece of which row of the result is read: i of its tile, or j where transposed."""
    longer = max(spec.tile_x, spec.tile_y)
    return data.StructLayout({
        "enable": 1, "bank": 1, "b": range(spec.tile_b), "row": range(longer),
        "piece": range(longer // spec.piece)})


def piece_layout(spec):
    """Zero-free values of a piece, from place 0 on, and its zero_mask."""
    return data.StructLayout({"value": data.ArrayLayout(signed(spec.bits), spec.piece),
                              "zero_mask": unsigned(spec.piece)})


def sums_layout(spec):
    """A partial sum that leaves, or comes back: i and j of its dot product, lowest, and b."""
    return data.StructLayout({
        "read": 1, "write": 1, "read_bank": 1, "write_bank": 1,
        "read_address": range(spec.dots), "write_address": range(spec.dots),
        "value": signed(spec.mac_lane.accumulator_bits)})


def _line_fields(spec, row):
    tile = range(spec.lanes)
    return {
        "valid": 1, "bank": 1, "b": tile, "tile": tile,
        "row": data.StructLayout({"b": range(spec.tile_b), **row}),
        "line": range(spec.segment_lines),
        "zero_mask": unsigned(spec.window),
        "value": data.ArrayLayout(signed(spec.bits), spec.window)}
