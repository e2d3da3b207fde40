"""Descriptors: a product by hand, banks that are free when something comes, constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwgen.design import LOOP_ORDERS, AcceleratorDesign
from hwgen.program import INITIAL, Descriptor, assemble, disassemble
from hwgen.units.accelerator.spec import AcceleratorSpec
from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows
from sim.assembly import descriptors, header, program
from sim.homes import Constants, Homes, Walk
from sim.images import image
from sim.schedule import NO_IMAGE, Plan
from sim.weights import FIRST, Images, Place, WeightPlaces, weight_blocks
from sim.workload import Task


def design(**changes: Any) -> AcceleratorDesign:
    return AcceleratorDesign.load({
        **AcceleratorDesign.load("small").model_dump(), "pes": 1, "tile_b": 1, "tile_x": 2,
        "tile_y": 2, "window": 4, "k_segment": 4, "macs_per_lane": 2, "fifo_depth": 2,
        "lanes_per_pe": 1, "softmax_per_pe": 2, "loop_order": "bijk", **changes})


def plan(
    made: AcceleratorDesign, extents: Sequence[int], kind: str = "product", has_weight: bool = True,
    streams: bool = False,
) -> Plan:
    reads = ("left",) if has_weight else ("left", "right")
    operation = Operation(
        "one", None, kind, 1, has_weight, False, "sequence", 1, 1, reads, "one")  # type: ignore[arg-type]
    task = Task(operation, (1.0,) * len(reads), 1.0, 1.0)
    sizes = dict(zip("bijk", extents, strict=True))
    return Plan(made, task, sizes, (True,) * len(reads), True, True, 0, 0, not streams, NO_IMAGE)


HOMES = Homes((Walk(10, 2, 6), Walk(5, 2)), Walk(40, 1, 3), 64, 96,
              images=Images({FIRST: 1000}, (Place(5, 7, 3),)))
READ_LEFT = {"left_enable": 1, "left_b": 1, "left_lines": 1}
READ_RIGHT = {"right_enable": 1, "right_b": 1, "right_lines": 1, "right_rows": 2,
              "right_weights": 1, "bias": 3}
COMPUTE = {"compute": 1, "tiles_b": 1, "tiles_i": 1, "tiles_j": 1, "last_b": 1, "last_j": 2,
           "windows": 1}
WRITE = {"write_enable": 1, "write_b": 1, "write_pieces": 1}

STEPS: list[dict[str, int]] = [
    {**READ_LEFT, "left_line": 10, "left_rows": 2, **READ_RIGHT, "right_line": 5,
     "bias_enable": 1},
    {**COMPUTE, "last_i": 2, "initial": INITIAL.index("bias"),
     **READ_LEFT, "left_bank": 1, "left_line": 11, "left_rows": 2, "left_absent": 1,
     **READ_RIGHT, "right_bank": 1, "right_line": 6, "right_absent": 1},
    {**COMPUTE, "last_i": 2, "initial": INITIAL.index("sums"), "closing": 1, "compute_left": 1,
     "compute_right": 1, **READ_LEFT, "left_line": 14, "left_rows": 1,
     **READ_RIGHT, "right_line": 5, "bias_enable": 1},
    {**COMPUTE, "last_i": 1, "first_tile_i": 1, "origin_i": 2, "initial": INITIAL.index("bias"),
     **READ_LEFT, "left_bank": 1, "left_line": 15, "left_rows": 1, "left_absent": 1,
     **READ_RIGHT, "right_bank": 1, "right_line": 6, "right_absent": 1,
     **WRITE, "write_line": 40, "write_rows": 2},
    {**COMPUTE, "last_i": 1, "first_tile_i": 1, "origin_i": 2, "initial": INITIAL.index("sums"),
     "closing": 1, "compute_left": 1, "compute_right": 1, "result_bank": 1},
    {**WRITE, "write_bank": 1, "write_line": 42, "write_rows": 1, "write_flush": 1},
]
"""Of 3 rows by 2 columns of 6 elements, in tiles of 2 by 2 and segments of 4, one after another."""


def test_a_product_by_hand() -> None:
    constants = Constants(3, 2, fields={"shift": 7})
    configuration, *steps = descriptors(plan(design(), (1, 3, 2, 6)), HOMES, constants)
    expected = {
        "shift": 7, "valid_i": 3, "valid_j": 2, "lane_b": 1, "lane_i": 1, "lane_j": 1,
        "unroll_b": 1, "unroll_i": 1, "unroll_j": 1, "left_row_stride": 2, "left_b_stride": 6,
        "left_wrap_stride": 6, "right_row_stride": 2, "result_row_stride": 1,
        "result_b_stride": 3, "result_wrap_stride": 3, "start": 64, "limit": 96}
    assert {name: value for name, value in configuration.fields.items() if value} == expected
    found = [{name: value for name, value in one.fields.items() if value} for one in steps]
    assert found == STEPS


def test_a_product_with_its_weight_in_blocks_by_hand() -> None:
    product = plan(design(), (1, 3, 2, 6), streams=True)
    places = Place(32, 16, 4), Place(48, 24, 6)
    homes = replace(HOMES, reads=(HOMES.reads[0], Walk(32, 1)),
                    images=Images({(0, 0): 1000, (0, 4): 1005}, places))
    configuration, *steps = descriptors(product, homes, Constants(3, 2))
    assert configuration.fields["right_row_stride"] == 1
    found = [{name: value for name, value in one.fields.items()
              if value and name.startswith(("right_line", "right_rows", "bias", "copy"))}
             for one in steps]
    # A word of 80 bits holds one bias. Each segment's two columns are a line each: one group.
    first = {"copy_enable": 1, "copy_address": 1000, "copy_biases": 2, "copy_lines": 2,
             "copy_values": 2, "copy_slots": 20, "copy_line": 32, "copy_word": 16, "copy_bias": 4}
    second = {"copy_enable": 1, "copy_address": 1005, "copy_lines": 2, "copy_values": 2,
              "copy_slots": 20, "copy_line": 48, "copy_word": 24, "copy_bias": 6}
    read = {"right_rows": 2, "right_lines": 1}
    assert found == [
        {**read, "right_line": 32, "bias_enable": 1, "bias": 4, **second},
        {**read, "right_line": 48, "bias": 6, **first},
        {**read, "right_line": 32, "bias_enable": 1, "bias": 4, **second},
        {**read, "right_line": 48, "bias": 6},
        {}, {}]


@pytest.mark.parametrize("order", LOOP_ORDERS)
def test_a_block_is_there_when_it_is_read_and_none_comes_where_one_is_read(order: str) -> None:
    made = design(loop_order=order, lanes_per_pe=3)
    product = plan(made, (2, 9, 11, 13), streams=True)
    images = WeightPlaces(AcceleratorSpec.of(made).weights).take(product)
    homes = Homes((Walk(0, 4, 36), Walk(images.places[0].line, 1)), Walk(200, 3, 27), 0, 64,
                  images=images)
    whole = program([product], {"one": homes}, {"one": Constants(9, 11)})
    held: dict[int, int] = {}
    steps = [part.fields for part in whole if part.opcode == "step"]
    blocks = [block for step in product.steps() for block in
              (transfer.block for transfer in step.dispatch if transfer.operand == "right")]
    read = 0
    for fields in steps:
        if fields.get("right_enable"):
            block = blocks[read]
            read += 1
            assert held[fields["right_line"]] == images.addresses[block.j[0], block.k[0]]
            assert fields["bias_enable"] == (block.k[0] == 0)
            assert fields.get("copy_line") != fields["right_line"]
        if fields.get("copy_enable"):
            held[fields["copy_line"]] = fields["copy_address"]
    assert read == len(blocks) >= len(weight_blocks(product)) == len(set(images.addresses.values()))


def test_what_the_next_operation_needs_comes_meanwhile() -> None:
    made = design()
    load = image(made, 30, 20, 5)
    first = replace(plan(made, (1, 3, 2, 6)), load=load)
    norm = plan(made, (1, 3, 1, 6), kind="add_norm")
    following = Images({FIRST: 77}, (Place(64, 32, 8),))
    configuration, *steps = descriptors(first, HOMES, Constants(3, 2), following)
    found = {name.removeprefix("prefetch_"): value for name, value in configuration.fields.items()
             if name.startswith("prefetch_")}
    assert found == {"address": 77, "biases": 5, "lines": 30, "values": load.values,
                     "slots": load.slots, "line": 64, "word": 32, "bias": 8}
    shares = [one.fields["prefetch_slots"] for one in steps]
    assert len(set(shares)) == 1 and sum(shares) >= load.all_slots > sum(shares[1:])
    with pytest.raises(ValueError, match="one loads an image that has no place"):
        descriptors(first, HOMES, Constants(3, 2))
    norm = replace(norm, task=replace(
        norm.task, operation=replace(norm.task.operation, writes="two")))
    homes = {"one": HOMES, "two": replace(HOMES, images=following)}
    constants = {"one": Constants(3, 2), "two": Constants(3, 6)}
    both = program([replace(first, load=norm.image), norm], homes, constants)
    configurations = [part.fields for part in both if part.opcode == "configure"]
    assert configurations[0]["prefetch_lines"] == norm.image.lines
    assert configurations[0]["prefetch_address"] == 77
    assert configurations[1]["weights_line"] == 64
    assert not any(name.startswith("prefetch") for name in configurations[1])
    with pytest.raises(ValueError, match="one does not load what two finds in its buffer"):
        program([first, norm], homes, constants)


@pytest.mark.parametrize("order", LOOP_ORDERS)
def test_nothing_comes_into_a_bank_that_is_worked_from(order: str) -> None:
    made = design(loop_order=order, lanes_per_pe=3)
    product = plan(made, (2, 9, 11, 13), has_weight=False)
    homes = Homes((Walk(0, 4, 36), Walk(100, 4, 44)), Walk(200, 3, 27), 0, 64, sums=50)
    computed, spills = 0, 0
    for step in descriptors(product, homes, Constants(9, 11)):
        fields = step.fields
        if step.opcode != "step" or not fields.get("compute"):
            continue
        computed += 1
        for side in ("left", "right"):
            if fields.get(f"{side}_enable"):
                assert fields[f"{side}_bank"] != fields[f"compute_{side}"]
        for side in ("fill", "drain"):
            if fields.get(f"{side}_enable"):
                spills += 1
                assert fields[f"{side}_bank"] != fields["sums_bank"]
                inside = fields[f"{side}_word"] - homes.sums
                assert 0 <= inside <= (product.waves_inside - 1) * product.sum_words
        if fields["closing"] and fields.get("write_enable"):
            assert fields["write_bank"] != fields["result_bank"]
    assert computed == product.waves
    assert (spills > 0) == product.spills


def test_rows_of_heads_and_batches_are_a_walk() -> None:
    walk = Walk(7, 6, batch_lines=30, head_lines=2, wrap=3)
    assert walk.line(0, 0) == 7
    assert walk.line(2, 1) == 7 + 2 * 30 + 6
    assert walk.line(4, 5) == 7 + 30 + 2 + 5 * 6  # head 1, batch 1
    assert walk.phase(4) == 1
    # From the last batch of a head back to the first of the next, modulo the lines of a walk.
    strides = walk.strides("left")
    assert (walk.line(2, 0) + strides["left_wrap_stride"]) % (1 << 20) == walk.line(3, 0)
    assert strides["left_b_stride"] == 30 and strides["left_wrap"] == 3


def test_a_program_has_a_header_and_an_end_and_comes_back_from_its_words() -> None:
    product = plan(design(), (1, 3, 2, 6))
    made = program([product], {"one": HOMES}, {"one": Constants(3, 2)})
    opcodes = [part.opcode for part in made]
    assert opcodes == ["header", "step", "configure", *6 * ["step"], "end"]
    plain = [Descriptor(part.opcode, {name: value for name, value in part.fields.items() if value})
             for part in made]
    assert disassemble(assemble(made)) == plain


def test_a_header_names_the_machine_and_not_the_order() -> None:
    assert header(design()) == header(design(loop_order="kjib"))
    assert header(design()) != header(design(fifo_depth=4))


def test_rows_are_shared_out_and_counted_by_sequence() -> None:
    softmax = plan(design(), (1, 5, 1, 6), kind="softmax")
    homes = Homes((Walk(10, 2),), Walk(30, 2), 0, 64)
    constants = Constants(2, 5, sequence=4)
    steps = [part.fields for part in descriptors(softmax, homes, constants)][1:]
    assert len(steps) == math.ceil(5 / 2) + 2
    assert [one["left_line"] for one in steps if one.get("left_enable")] == [10, 14, 18]
    assert [one["origin_i"] for one in steps if one.get("compute")] == [0, 2, 0]
    assert [one["write_rows"] for one in steps if one.get("write_enable")] == [2, 2, 1]
    assert {one["write_pieces"] for one in steps if one.get("write_enable")} == {3}
    assert {one["left_absent"] for one in steps if one.get("left_enable")} == {1}


def test_tanh_has_no_rtl() -> None:
    with pytest.raises(ValueError, match="one is a tanh, which has no RTL"):
        descriptors(plan(design(), (1, 2, 1, 2), kind="tanh"), HOMES, Constants(1, 1))


def recorded_product(real: np.ndarray) -> RecordedProduct:
    left, right = np.ones((2, 3, 4), dtype=np.int64), np.ones((4, 5), dtype=np.int64)
    exponents = {"left": -4, "right": -5, "rounded": -6, "output": -7}
    return RecordedProduct(0, "query", left, right, None, 3, True, exponents, 9, real)


def test_constants_come_from_a_recording() -> None:
    real = np.zeros((2, 3, 5), dtype=bool)
    real[:, :2] = True
    assert Constants.of(recorded_product(real)) == Constants(2, 5, 1, {
        "threshold": 9, "shift": 3, "activate": 1, "i_exponent": -6, "o_exponent": -7})
    rows = RecordedRows(
        0, "attention_softmax", "softmax", np.ones((6, 5), dtype=np.int64),
        real.reshape(6, 5), {"rows": -3, "output": -9}, 1)
    assert Constants.of(rows, 3) == Constants(2, 5, 3, {"threshold": 1, "i_exponent": -3})


@pytest.mark.parametrize("place", [(1, 1), (0, 2)])  # a shorter one, and a hole
def test_sequences_of_unequal_lengths_are_refused(place: tuple[int, int]) -> None:
    real = np.zeros((2, 3, 5), dtype=bool)
    real[:, :2] = True
    sequence, row = place
    real[sequence, row] = ~real[sequence, row]
    with pytest.raises(ValueError, match=r"query: the real positions .* run sequences"):
        Constants.of(recorded_product(real))
