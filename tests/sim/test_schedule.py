"""Steps: every product covered once, operands moved when they change, and the page's tables."""

import importlib.util
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from hwgen.design import LOOP_ORDERS, AcceleratorDesign
from hwgen.program import DESCRIPTOR_WORDS
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.buffer import cost as buffer
from hwgen.units.loader import cost as loader
from hwgen.units.norm_engine import cost as norm_engine
from model.space import TransformerDesign
from sim import Workload
from sim.reference import DeclaredDensities, walk
from sim.reference_ports import Machine, moves
from sim.schedule import NO_IMAGE, Plan, schedule

ROOT = Path(__file__).parents[2]
MODEL = TransformerDesign.load(
    {"layers": [{"hidden": 40, "heads": ["sa_sdp"] * 2, "feed_forward": [60]}]}
)


def plans(order: str, **changes: object) -> dict[str, Plan]:
    design = AcceleratorDesign.load(
        {
            **AcceleratorDesign.load("small").model_dump(),
            "tile_x": 4,
            "tile_y": 8,
            "tile_b": 2,
            "pes": 3,
            "lanes_per_pe": 2,
            "macs_per_lane": 4,
            "k_segment": 12,
            "window": 8,
            "fifo_depth": 16,
            "loop_order": order,
            **changes,
        }
    )
    workload = Workload(MODEL, 13, 0.5, batch_size=3)
    return {plan.task.label: plan for plan in schedule(design, workload).plans}


@pytest.mark.parametrize("order", LOOP_ORDERS)
def test_waves_cover_a_product_once(order: str) -> None:
    plan = plans(order)["0.score"]
    seen = np.zeros([plan.extents[letter] for letter in "bijk"], dtype=int)
    for block in plan.blocks():
        seen[tuple(slice(*getattr(block, letter)) for letter in "bijk")] += 1
        tiles = [-(-block.size(letter) // plan.tiles[letter]) for letter in "bij"]
        assert np.prod(tiles) <= plan.design.lanes
        assert block.size("k") <= plan.design.k_segment
    assert np.all(seen == 1)


@pytest.mark.parametrize("order", LOOP_ORDERS)
def test_lanes_hold_what_they_work_on(order: str) -> None:
    for label in ("0.score", "0.query"):
        plan = plans(order)[label]
        held: dict[str, object] = {}
        for step in plan.steps():
            for letters, operand in (
                ("bik", "left"),
                ("kj" if label == "0.query" else "bkj", "right"),
            ):
                if step.compute is not None:
                    wanted = [getattr(step.compute, letter) for letter in letters]
                    assert held[operand] == wanted
                for transfer in step.dispatch:
                    if transfer.operand == operand:
                        assert held.get(operand) != (
                            arrives := [getattr(transfer.block, letter) for letter in letters]
                        )
                        held[operand] = arrives


@pytest.mark.parametrize("order", LOOP_ORDERS)
def test_partial_sums_are_where_they_are_needed(order: str) -> None:
    plan = plans(order)["0.score"]
    open_in_lanes: list[object] = []
    spilled: dict[object, int] = {}
    results = []
    for step in plan.steps():
        if step.fill is not None:
            key = step.fill.block.b, step.fill.block.i, step.fill.block.j
            # What is filled in this step was drained in a step before.
            assert spilled[key] < step.number
            open_in_lanes.append(key)
        if step.compute is not None:
            key = step.compute.b, step.compute.i, step.compute.j
            if step.compute.k[0] > 0:
                assert key in open_in_lanes
            elif key not in open_in_lanes:
                open_in_lanes.append(key)
            assert plan.spills or len(open_in_lanes) <= 2, "an accumulator has two banks"
        if step.write is not None:
            key = step.write.block.b, step.write.block.i, step.write.block.j
            open_in_lanes.remove(key)
            if step.write.operand == "sums":
                spilled[key] = step.number
            else:
                results.append(key)
    assert len(results) == len(set(results)) == np.prod([plan.trips[letter] for letter in "bij"])


def test_what_streams_comes_with_its_masks_and_biases() -> None:
    # Neither this weight nor the next fits; three PEs get a line of 8 values of 20 bits each.
    made = plans("bijk", weight_buffer_kib=4, activation_buffer_kib=4)
    plan = made["0.key"]
    walked = walk(plan.design, Workload(MODEL, 13, 0.5, batch_size=3), keep_steps=True)
    times = {time.number: time for time in walked.steps if time.operation == "0.key"}
    configuring, opening, *_, last = plan.steps()
    assert configuring.prefetch_slots == 0 and configuring.dispatch == ()
    assert plan.streams and not plan.prefetched and plan.reads_resident == (True,)
    # Segments of 12 elements are two lines of 8; those of the last, of 4, are one and an empty one.
    assert opening.copy is not None and opening.copy.k == (12, 24) and plan.block_lines == 2
    columns = opening.copy.size("j")
    words = math.ceil(columns * 2 / 2 / math.ceil(columns * 2 / 20))
    # A word of masks and those of values, or as long as the masks of 20 lines take, 7 cycles.
    slots = math.ceil(columns * 2 / 20) * max(1 + words, math.ceil(7 * 2048 / 7 / 160))
    assert plan.block_image(opening.copy).all_slots == slots
    assert plan.load == made["0.value"].image and not made["0.value"].prefetched
    slots += math.ceil(plan.load.all_slots / (plan.waves + 2))
    overhead = 36 + 7 + loader.LOAD
    assert times[-1].cycles["main_memory"] == overhead + math.ceil(slots * 160 * 7 / 2048)
    # Nor does the key fit, so its values and masks leave in the last step.
    assert not plan.write_resident and last.copy is None
    assert last.write is not None
    bits = last.write.block.size("bij") * (20 // 2 + 1) + last.prefetch_slots * 160
    assert times[plan.waves].cycles["main_memory"] == overhead + math.ceil(bits * 7 / 2048)


@pytest.mark.parametrize("order", LOOP_ORDERS)
def test_blocks_of_weights_are_there_when_they_are_dispatched(order: str) -> None:
    plan = plans(order, weight_buffer_kib=1)["0.feed_forward_0"]
    assert plan.streams
    first = next(plan.blocks())
    held, copies = (first.k, first.j), 0
    for step in plan.steps():
        read = [one.block for one in step.dispatch if one.operand == "right"]
        assert all(one.resident for one in step.dispatch if one.operand == "right")
        assert all((block.k, block.j) == held for block in read)
        # It goes where this step reads nothing, and the next step reads it.
        if step.copy is not None:
            held, copies = (step.copy.k, step.copy.j), copies + 1
    blocks = [(block.k, block.j) for block in plan.blocks()]
    assert copies == sum(one != other for one, other in itertools.pairwise(blocks))


def test_images_of_blocks() -> None:
    plan = plans("bijk", weight_buffer_kib=1)["0.feed_forward_0"]
    blocks = list(plan.blocks())
    # 40 elements of a column in segments of 12, whose lines are of 8.
    assert [block.k[0] for block in blocks[:4]] == [0, 12, 24, 36]
    columns = blocks[0].size("j")
    for block, filled in zip(blocks, (2, 2, 2, 1), strict=False):
        image, groups = plan.block_image(block), math.ceil(2 * columns / 20)
        assert image.lines == 2 * columns and image.groups == groups
        assert image.values == math.ceil(math.ceil(columns * filled / 2) / groups)
        # Two biases of 51 bits, a power of two, in a word of 160.
        assert image.biases == (math.ceil(columns / 2) if block.k[0] == 0 else 0)
    assert plan.image == plan.block_image(blocks[0])
    values, masks = plan.weight_bits(blocks[3])
    assert (values, masks) == (columns * 4 * 20 // 2, columns * 4)
    assert plan.weight_bits(blocks[0]) == (columns * (12 * 10 + 51), columns * 12)


def test_what_main_memory_reads_is_counted_once() -> None:
    """Words of images, not idle slots: a prefetched one an operation, a block each time."""
    for changes in ({}, {"weight_buffer_kib": 1}):
        made = plans("kjib", **changes)
        design = made["0.query"].design
        walked = walk(design, Workload(MODEL, 13, 0.5, batch_size=3))
        words = values = 0
        for plan in made.values():
            words += plan.image.words
            values += plan.weight_bits(next(plan.blocks()))[0] if plan.streams \
                else plan.weight_values
            for step in plan.steps():
                if step.copy is not None:
                    words += plan.block_image(step.copy).words
                    values += plan.weight_bits(step.copy)[0]
        # Word and position rows of the embedding, the latter 13 for each of its 13 waves of 3.
        rows = 39 * 40 + 39 * 40
        assert walked.bits["memory_read"] == words * 160 + rows * 20
        assert walked.bits["weight_load"] == values


def test_sums_come_back_behind_the_lines() -> None:
    """The activation buffer takes max(lines + fill, drain) where sums are drained and filled."""
    plan = plans("kijb")["0.query"]
    walked = walk(plan.design, Workload(MODEL, 13, 0.5, batch_size=3), keep_steps=True)
    times = [time for time in walked.steps if time.operation == "0.query"]
    seen = 0
    for step, time in zip(plan.steps(), times, strict=True):
        if step.fill is None or step.write is None or step.write.operand != "sums":
            continue
        rows = sum(one.block.size("bi") for one in step.dispatch if one.operand == "left")
        # A line of 8 values is two pieces: three PEs get a line each a cycle.
        lines = math.ceil(rows * math.ceil(step.fill.block.size("k") / 8) / 3)
        # Six lanes, two of each PE, move a sum each a cycle: three PEs at once.
        sums = math.prod(plan.tiles[letter] for letter in "bij")
        assert plan.sum_words == 3 * sums * plan.sum_groups
        sums *= plan.sum_groups
        read = lines + sums + buffer.read_overhead(plan.design)
        write = sums + buffer.store_overhead(plan.design)
        assert time.cycles["activation_buffer"] == max(read, write)
        seen += 1
    assert seen > 2 and plan.sums_resident


def test_orders_differ() -> None:
    design = AcceleratorDesign.load("small").model_copy(update={"pes": 1})
    workload = Workload("bert-tiny", 64, 0.5)
    counted = set()
    for order in LOOP_ORDERS:
        walked = walk(design.model_copy(update={"loop_order": order}), workload)
        counted.add(
            (walked.latency_cycles, walked.bits["activation_read"], walked.bits["weight_read"])
        )
    assert len(counted) >= 12


def test_residency_follows_shapes_and_declared_densities() -> None:
    large = plans("bijk")
    assert all(plan.write_resident for label, plan in large.items() if label != "classifier")
    assert not large["classifier"].write_resident, "logits stream out"
    assert all(plan.prefetched for plan in large.values())
    # Values of a 40 x 40 weight and its biases: 0.5 · 1600 · 20 + 40 · 51 = 18040 bits.
    fits = plans("bijk", weight_buffer_kib=5)["0.key"]
    assert fits.prefetched and fits.weight_values == 18040
    streams = plans("bijk", weight_buffer_kib=4)["0.key"]
    assert not streams.prefetched
    assert plans("bijk", weight_buffer_kib=4)["0.query"].load == streams.image
    # 40 · 60 mask bits are more than a quarter of a KiB.
    assert not plans("bijk", mask_buffer_kib=1)["0.feed_forward_0"].prefetched
    assert plans("bijk", mask_buffer_kib=1)["0.key"].prefetched
    # The hidden state takes 39 · 40 · 10 bits. Query and key have 2 · 39 rows of 20, which are
    # three lines of 8: 2 · 39 · 24 · 10 bits each, and one of them fits.
    small = plans("bijk", activation_buffer_kib=5)
    assert [small[name].write_resident for name in ("embedding", "0.query", "0.key")] == [
        True,
        True,
        False,
    ]
    assert small["0.score"].reads_resident == (True, False)
    assert not plans("bijk", activation_buffer_kib=4)["0.query"].write_resident, "lines are whole"
    # Their masks take 39 · 40 and 39 · 48 bits, and half of a KiB holds two of them.
    masks = plans("bijk", mask_buffer_kib=1)
    assert [masks[name].write_resident for name in ("embedding", "0.query", "0.key")] == [
        True,
        True,
        False,
    ]


def test_prefetch_comes_in_equal_shares() -> None:
    for changes in ({}, {"weight_buffer_kib": 4}):
        found = plans("bijk", **changes)
        for plan, following in itertools.pairwise(found.values()):
            steps = list(plan.steps())
            assert plan.load == following.image and len(steps) == plan.waves + 3
            share = -(-following.image.all_slots // (plan.waves + 2))
            assert {step.prefetch_slots for step in steps[1:]} == {share}
            assert steps[0].number == -2 and steps[0].prefetch_slots == 0
    assert plan.load.all_slots > 0 and following.load == NO_IMAGE
    program = schedule(plan.design, Workload(MODEL, 13, 0.5, batch_size=3))
    # γ and β of the embedding, two rows of five lines, dense.
    assert program.opening == program.plans[0].image
    assert (program.opening.lines, program.opening.groups, program.opening.values) == (10, 1, 10)


def test_images_of_whole_weights() -> None:
    made = plans("bijk")
    image = made["0.feed_forward_0"].image
    # 60 columns of five lines, half of their values, and two biases a word.
    assert (image.lines, image.groups, image.values, image.biases) == (300, 15, 10, 30)
    assert made["0.score"].image == NO_IMAGE and not made["0.score"].streams


def test_the_page_has_these_tables() -> None:
    spec = importlib.util.spec_from_file_location("steps", ROOT / "examples" / "machine_steps.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs" / "machine.md").read_text()
    for name, lines in module.pages().items():
        assert "\n".join(lines) in page, name


def test_a_result_for_the_other_axis_is_stored_in_its_pieces() -> None:
    design = plans("bijk")["0.value"].design
    values, machine = DeclaredDensities(), Machine.of(design)
    workload = Workload(MODEL, 13, 0.5, batch_size=3)
    stored = {}
    for name in ("0.key", "0.value"):
        plan = plans("bijk")[name]
        steps = [moves(machine, plan, step, values, workload) for step in plan.steps()]
        stored[name] = sum(moved.pieces for moved in steps)
        assert all(moved.bits["memory_write"] == 0 for moved in steps)
    # Pieces of four, of 39 rows of 40, and of 3 · 40 rows of 13.
    assert stored == {"0.key": 39 * 10, "0.value": 120 * 4}


def test_gamma_and_beta_come_before_the_first_rows() -> None:
    plan = plans("bijk")["embedding"]
    walked = walk(plan.design, Workload(MODEL, 13, 0.5, batch_size=3), keep_steps=True)
    configured, first = walked.steps[1:3]
    # Two rows of five lines for three PEs, two of a line's two pieces each.
    read = math.ceil(10 / 3) + buffer.read_latency(plan.design) + 1
    assert configured.cycles == {
        "weight_buffer": read,
        "program": DESCRIPTOR_WORDS,
        "configure": accelerator.CONFIGURE,
    }
    assert first.cycles["layer_norm"] == norm_engine.load_cycles(plan.units, 40)
    assert (plan.weight_values, plan.weight_masks) == (2 * 40 * 20, 2 * 40)
    assert walked.bits["weight_load"] == sum(
        one.weight_values for one in schedule(plan.design, Workload(MODEL, 13, 0.5, 3)).plans
    )
