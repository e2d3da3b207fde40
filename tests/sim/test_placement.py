"""Where tensors lie: apart while they live, places used again, what does not fit refused."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator.spec import AcceleratorSpec
from model.space import TransformerDesign
from sim import Workload
from sim.layer import layer_program
from sim.masks import RecordedMasks
from sim.placement import Placement, place
from sim.random_masks import random_recording
from sim.schedule import NO_IMAGE, Plan, schedule
from sim.weights import FIRST, Images, weight_blocks

MODEL = TransformerDesign.load(
    {"layers": [{"hidden": 32, "heads": ["sa_sdp"] * 2, "feed_forward": [48]}]})
BATCH, LENGTH = 2, 11


def design(**changes: Any) -> AcceleratorDesign:
    return AcceleratorDesign.load({
        **AcceleratorDesign.load("small").model_dump(), "pes": 1, "tile_b": 1, "tile_x": 4,
        "tile_y": 4, "window": 8, "k_segment": 8, "macs_per_lane": 2, "fifo_depth": 2,
        "lanes_per_pe": 2, "softmax_per_pe": 2, "activation_buffer_kib": 16,
        "weight_buffer_kib": 32, "mask_buffer_kib": 8, "loop_order": "kijb", **changes})


def workload(model: TransformerDesign = MODEL, density: float = 0.5) -> Workload:
    return Workload(model, LENGTH, density, batch_size=BATCH)


def layer(made: AcceleratorDesign, work: Workload) -> list[Plan]:
    return [replace(plan, load=NO_IMAGE) for plan in schedule(made, work).plans
            if plan.task.operation.layer == 0]


Range = tuple[int, int]


def apart(ranges: list[Range]) -> bool:
    return all(one[1] <= other[0] or other[1] <= one[0]
               for one, other in itertools.combinations(ranges, 2))


def lines_of(placement: Placement, name: str) -> Range:
    tensor = placement.tensors[name]
    return tensor.line, tensor.line + tensor.rows * -(-tensor.elements // 8)


def living(plans: list[Plan], number: int) -> set[str]:
    """Names of what is read in an operation or later, and is there already or written now."""
    written = {plan.task.label for plan in plans[: number + 1]}
    never = {plan.task.label for plan in plans[number + 1:]}
    later = {name for plan in plans[number:] for name in plan.task.operation.reads}
    return {plans[number].task.label} | later & written | later - never


def test_what_lives_at_one_time_lies_apart() -> None:
    plans = layer(design(), workload())
    placement, spec = place(plans, workload()), AcceleratorSpec.of(design())
    spilled = 0
    for number, plan in enumerate(plans):
        names = living(plans, number)
        assert apart([lines_of(placement, name) for name in names]), plan.task.label
        words = [(placement.tensors[name].start, placement.tensors[name].limit) for name in names]
        if plan.task.operation.kind == "product" and plan.spills:
            spilled += 1
            first = placement.homes[plan.task.label].sums
            stop = first + plan.waves_inside * plan.sum_words
            words.append((first * spec.lane.piece, stop * spec.lane.piece))
        assert apart(words), plan.task.label
        assert max(stop for _, stop in words) <= spec.activations.positions
        assert max(lines_of(placement, name)[1] for name in names) <= spec.activations.lines
    assert spilled


def test_places_are_used_again() -> None:
    placement = place(layer(design(), workload()), workload())
    assert not apart([lines_of(placement, name) for name in placement.tensors])
    assert not apart([(one.start, one.limit) for one in placement.tensors.values()])


def occupied(plan: Plan, images: Images) -> list[dict[str, Range]]:
    """Lines, words of every bank and words of biases that the images of each place take at most."""
    sizes = [plan.image]
    if plan.streams:
        sizes = [plan.block_image(block) for block in weight_blocks(plan).values()]
    lines = max(size.lines for size in sizes)
    words = max(size.groups * size.values for size in sizes)
    biases = max(size.biases for size in sizes)
    return [{"lines": (one.line, one.line + lines), "words": (one.word, one.word + words),
             "biases": (one.bias, one.bias + biases)} for one in images.places]


@pytest.mark.parametrize("changes", [{}, {"weight_buffer_kib": 2}])
def test_a_weight_lies_apart_from_the_one_before_and_a_block_from_the_one_before(
    changes: dict[str, int],
) -> None:
    made = design(**changes)
    plans, spec = layer(made, workload()), AcceleratorSpec.of(made).weights
    weights = place(plans, workload()).weights
    assert list(weights) == [
        f"0.{name}" for name in ("query", "key", "value", "attention_output", "attention_norm",
                                 "feed_forward_0", "feed_forward_1", "feed_forward_norm")]
    readers = [plan for plan in plans if plan.task.label in weights]
    assert any(plan.streams for plan in readers) == bool(changes)
    rooms = {"lines": spec.lines, "words": spec.words,
             "biases": spec.biases // spec.biases_together}
    for one, after in itertools.pairwise(readers):
        both = [part for plan in (one, after) for part in occupied(plan, weights[plan.task.label])]
        for name, room in rooms.items():
            assert apart([part[name] for part in both])
            assert max(part[name][1] for part in both) <= room


@pytest.mark.parametrize("changes", [{}, {"weight_buffer_kib": 2}])
def test_images_lie_one_after_another_in_main_memory(changes: dict[str, int]) -> None:
    plans = layer(design(**changes), workload())
    weights = place(plans, workload()).weights
    ranges = []
    for plan in plans:
        if plan.task.label not in weights:
            continue
        images = weights[plan.task.label]
        blocks = weight_blocks(plan) if plan.streams else {FIRST: None}
        assert set(images.addresses) == set(blocks)
        for at, block in blocks.items():
            size = plan.image if block is None else plan.block_image(block)
            ranges.append((images.addresses[at], images.addresses[at] + size.words))
    assert ranges[0][0] == 0
    assert all(one[1] == after[0] for one, after in itertools.pairwise(ranges))


def test_heads_lie_side_by_side_and_the_values_columns_one_after_another() -> None:
    plans = layer(design(), workload())
    placement = place(plans, workload())
    query, value = placement.tensors["0.query"], placement.tensors["0.value"]
    score, context = placement.homes["0.score"], placement.homes["0.context"]
    for head, batch, row in itertools.product(range(2), range(BATCH), range(LENGTH)):
        b = head * BATCH + batch
        side_by_side = query.line + (batch * LENGTH + row) * 4 + head * 2
        assert score.reads[0].line(b, row) == side_by_side
        written = placement.tensors["0.context"].line + (batch * LENGTH + row) * 4 + head * 2
        assert context.result.line(b, row) == written
    for head, batch, column in itertools.product(range(2), range(BATCH), range(16)):
        stored = value.line + (batch * 32 + head * 16 + column) * 2
        assert context.reads[1].line(head * BATCH + batch, column) == stored
    assert (value.rows, value.elements) == (BATCH * 32, LENGTH)


def test_the_pooler_reads_the_first_row_of_each_sequence() -> None:
    made, work = design(loop_order="bijk"), workload()
    plans = [replace(plan, load=NO_IMAGE) for plan in schedule(made, work).plans
             if plan.task.label in ("0.feed_forward_norm", "pooler")]
    placement = place(plans, work)
    stored, walk = placement.tensors["0.feed_forward_norm"], placement.homes["pooler"].reads[0]
    assert (stored.rows, stored.elements) == (BATCH * LENGTH, 32)
    assert [walk.line(b, 0) for b in range(BATCH)] == [
        stored.line + b * LENGTH * 4 for b in range(BATCH)]


def test_heads_that_are_no_whole_lines_are_refused() -> None:
    model = TransformerDesign.load(
        {"layers": [{"hidden": 24, "heads": ["sa_sdp"] * 2, "feed_forward": [48]}]})
    with pytest.raises(ValueError, match="heads of 12 elements must be whole lines: window = 8"):
        place(layer(design(), workload(model)), workload(model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_buffer_kib": 3}, "0.key writes what is not to stay in the buffers"),
        ({"activation_buffer_kib": 6}, "109 words do not fit one after another in 306"),
        ({"weight_buffer_kib": 1, "lanes_per_pe": 32},
         "0.query: an image of 24 words of every bank does not fit the 12 of a quarter of the "
         "weight buffer"),
        ({"loop_order": "kijb"}, "0.value: the partial sums are not to stay in the buffers"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, int], message: str) -> None:
    model = TransformerDesign.load(
        {"layers": [{"hidden": 48, "heads": ["sa_sdp"] * 2, "feed_forward": [64]}]})
    work = workload(model)
    made = design(**{"loop_order": "bijk", **changes})
    with pytest.raises(ValueError, match=message):
        place(layer(made, work), work)


def test_an_image_that_does_not_fit_a_half_is_refused() -> None:
    model = TransformerDesign.load(
        {"layers": [{"hidden": 256, "heads": ["sa_sdp"] * 2, "feed_forward": [64]}]})
    work = workload(model)
    made = design(activation_buffer_kib=512, mask_buffer_kib=64, weight_buffer_kib=1)
    with pytest.raises(ValueError, match=r"0\.attention_norm: an image of 64 words of every bank "
                                         "does not fit the 25 of half the weight buffer"):
        place(layer(made, work), work)


def test_a_gap_is_taken_as_a_whole() -> None:
    # Query, key and value are of one size, so that a later one of it takes the first's place.
    placement = place(layer(design(), workload()), workload())
    score, output = (placement.tensors[f"0.{name}"] for name in ("query", "attention_output"))
    assert (output.line, output.start) == (score.line, score.start)


@pytest.mark.parametrize("density", [0.3, 0.35, 0.4, 0.45])
def test_open_sums_need_words_one_after_another(density: float) -> None:
    made = design(loop_order="kijb", activation_buffer_kib=9)
    work = workload(density=density)
    (plan,) = (replace(plan, load=NO_IMAGE, sums_resident=True)
               for plan in schedule(made, work).plans if plan.task.label == "0.query")
    assert plan.spills
    tensor = math.ceil(density * 1.125 * BATCH * LENGTH * 4) + 1
    room = AcceleratorSpec.of(made).activations.words
    if 2 * tensor + plan.waves_inside * plan.sum_words <= room:
        assert place([plan], work)
    else:
        with pytest.raises(ValueError, match="words do not fit one after another"):
            place([plan], work)


def test_a_tensor_is_not_read_before_it_is_written() -> None:
    plans = layer(design(), workload())
    with pytest.raises(ValueError, match=r"0\.score reads 0\.query before it is written"):
        place([plans[3], *plans[:3]], workload())


def test_a_layer_is_one_program_of_all_its_steps() -> None:
    made, work = design(), workload()
    recording = random_recording(
        work, made.bits, made.accumulator_bits, np.random.default_rng(0))
    layered = layer_program(made, work, RecordedMasks(recording, work), 0)
    opcodes = [part.opcode for part in layered.descriptors]
    assert opcodes.count("configure") == len(layered.plans) == 11
    assert len(layered.steps()) == len(opcodes) - 2
    assert opcodes[:3] == ["header", "step", "configure"]
    assert layered.plans[-1].load == NO_IMAGE
    size = layered.plans[0].image
    first = layered.memory().words[:size.words]
    assert len(first) == size.words and first[size.biases] and layered.memory().words[-1]
    with pytest.raises(ValueError, match="layer must be below 1, not 1"):
        layer_program(made, work, RecordedMasks(recording, work), 1)


def test_a_bank_may_hold_an_eighth_more_than_is_declared() -> None:
    # The query: 22 rows of 32 elements are 88 lines, and half of as many words is what is declared.
    query = place(layer(design(), workload()), workload()).tensors["0.query"]
    assert (query.rows, query.elements) == (22, 32)
    assert query.limit - query.start == (50 + 1) * 4  # ⌈88 · 0.5 · 1.125⌉ words, one begun
