"""What is proven is what a program can be made of; what is not has a reason that can be named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hwgen.design import LOOP_ORDERS, AcceleratorDesign, DesignBatch
from hwgen.program import assemble
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.loader.cost import ImageSize
from model.space import TransformerDesign
from sim import Workload
from sim.assembly import program
from sim.closed_form import Population
from sim.homes import Constants
from sim.lanes import LaneTimes
from sim.placement import place
from sim.proof import done_in_rtl, have_rtl
from sim.schedule import NO_IMAGE, Plan, schedule
from sim.weights import WeightPlaces

MODEL = TransformerDesign.load({
    "layers": [{"hidden": 32, "heads": ["sa_sdp"] * 2, "feed_forward": [40]},
               {"hidden": 24, "heads": ["sa_sdp"] * 2, "feed_forward": [20]},
               {"hidden": 12, "heads": ["sa_sdp"], "feed_forward": [8]}],
    "labels": 3})
"""Two heads of 16 and of 12 elements, one of 12, and projections."""


def design(**changes: Any) -> AcceleratorDesign:
    return AcceleratorDesign.load({
        **AcceleratorDesign.load("small").model_dump(), "pes": 1, "tile_b": 1, "tile_x": 4,
        "tile_y": 4, "window": 8, "k_segment": 16, "macs_per_lane": 2, "fifo_depth": 4,
        "lanes_per_pe": 2, "softmax_per_pe": 2, "activation_buffer_kib": 16,
        "weight_buffer_kib": 16, "mask_buffer_kib": 16, **changes})


def workload(density: float = 0.5, batch: int = 2) -> Workload:
    return Workload(MODEL, 7, density, batch_size=batch)


def images(plan: Plan) -> list[ImageSize]:
    """All that comes of a plan's weight."""
    if plan.image == NO_IMAGE:
        return []
    return [plan.block_image(block) for block in plan.blocks()] if plan.streams else [plan.image]


def reasons_of_design(made: AcceleratorDesign) -> Iterator[str]:
    if made.pes != 1:
        yield "several PEs"
    if made.tile_x & made.tile_x - 1:
        yield "tile_x"
    if made.k_segment % made.window:
        yield "segments of no whole windows"
    if made.window * made.bits < made.accumulator_bits:
        yield "a sum does not fit a line"
    if not 1 <= made.memory.latency_cycles <= 4096:
        yield "latency"


def reasons(plan: Plan, following: Plan | None) -> Iterator[str]:
    """What the page says that is modelled alone, of a design that the RTL can be made of."""
    operation, made = plan.task.operation, plan.design
    if operation.name == "embedding":
        yield "embedding"
    if operation.kind == "tanh":
        yield "tanh"
    if not all(plan.reads_resident) or not plan.write_resident:
        yield "activations stream"
    is_product = operation.kind == "product"
    if is_product and plan.spills and not plan.sums_resident:
        yield "sums stream"
    width = {0: 16, 1: 12}.get(operation.layer, 0)  # type: ignore[call-overload]
    if operation.name in ("score", "context") and width % made.window:
        yield "heads"
    line = made.window * made.bits
    # Biases lie together, as many as fit the width of a line: two words for each four lines of
    # weights, but eight at least.
    together = 1
    while 2 * together * (made.accumulator_bits - 1) <= line:
        together *= 2
    lines = made.mask_buffer_kib * 4096 // made.window
    room = {"lines": lines, "words": made.weight_buffer_kib * 8192 // line // 2 * 2,
            "biases": max(-(-lines // (2 * together)), 4)}
    for one in (plan, following):
        if one is None:
            continue
        part = 4 if one.streams else 2
        for size in images(one):
            taken = {"lines": size.lines, "words": size.groups * size.values, "biases": size.biases}
            if any(taken[name] > room[name] // 2 // (part // 2) for name in room):
                yield "block" if one.streams else "image"


def assembled(plan: Plan, following: Plan | None, work: Workload) -> None:
    """Make a program of one operation, where activations may take more than their declared bits."""
    plan = replace(plan, design=plan.design.model_copy(
        update={"activation_buffer_kib": 8 * plan.design.activation_buffer_kib}))
    placement = place([plan], work)
    after = None
    if following is not None and following.image != NO_IMAGE:
        places = WeightPlaces(AcceleratorSpec.of(plan.design).weights)
        if plan.image != NO_IMAGE:
            places.take(plan)
        after = places.take(following)
    constants = {plan.task.label: Constants(1, 1)}
    assemble(program([plan], placement.homes, constants, after))


@st.composite
def any_design(draw: st.DrawFn) -> AcceleratorDesign:
    def one_of(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    window = one_of(2, 4, 8, 8, 16)
    memory = {"type": "dram", "banks": 32, "ranks": 2, "channels": 1,
              "latency_cycles": one_of(1, 36, 36, 36, 4096, 0, 4097)}
    return design(
        pes=one_of(1, 1, 1, 1, 2), tile_b=one_of(1, 2), tile_x=one_of(2, 4, 4, 8, 6),
        lanes_per_pe=one_of(1, 2, 4, 16), window=window,
        k_segment=one_of(window, 2 * window, 2 * window, window + 2),
        activation_buffer_kib=one_of(2, 4, 8, 32, 32), weight_buffer_kib=one_of(1, 2, 4, 16),
        mask_buffer_kib=one_of(1, 2, 4, 16), loop_order=one_of(*LOOP_ORDERS), memory=memory)


def refusal(plan: Plan, following: Plan | None, work: Workload) -> str:
    """Why no program can be made of an operation; nothing if one can."""
    try:
        assembled(plan, following, work)
    except ValueError as error:
        return str(error)
    return ""


def proven_of(made: AcceleratorDesign, work: Workload) -> dict[str, bool]:
    designs = DesignBatch.of([made])
    done = done_in_rtl(Population(designs, work, LaneTimes(), 512, True))
    return {label: bool(known[0] and have_rtl(designs)[0]) for label, known in done.items()}


@settings(deadline=None, max_examples=40)
@given(any_design(), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.sampled_from([1, 2]))
def test_what_is_proven_is_what_a_program_can_be_made_of(
    made: AcceleratorDesign, density: float, batch: int
) -> None:
    work = workload(density, batch)
    proven, whole = proven_of(made, work), list(reasons_of_design(made))
    for plan, following in pairwise((*schedule(made, work).plans, None)):
        assert plan is not None
        label = plan.task.label
        found = whole or list(reasons(plan, following))
        assert proven[label] == (not found), (label, found)
        assert proven[label] == (not refusal(plan, following, work)), label


def test_what_is_against_operations() -> None:
    held, small = {"activation_buffer_kib": 64}, {"weight_buffer_kib": 1, "lanes_per_pe": 16}
    none = [label for label, known in proven_of(design(pes=2, **held), workload()).items() if known]
    assert none == []
    against = [label for label, known in proven_of(design(**held), workload()).items() if not known]
    # Heads of 12 elements are no lines of 8.
    assert against == ["embedding", "1.score", "1.context", "pooler_tanh", "classifier"]
    known = proven_of(design(loop_order="bikj", **held, **small), workload())
    # A context has no weight, but the one of the attention's output comes meanwhile.
    assert known["0.score"] and not known["0.attention_output"] and not known["0.context"]


def test_scale_and_offset_beyond_half_the_weight_buffer_are_not_proven() -> None:
    made = design(activation_buffer_kib=64, weight_buffer_kib=1)
    # Two rows of 104 elements, 13 lines each, where half of the buffer has 25 words.
    for hidden, fits in ((96, True), (104, False)):
        wide = TransformerDesign.load(
            {"layers": [{"hidden": hidden, "heads": ["sa_sdp"], "feed_forward": [8]}]})
        assert proven_of(made, Workload(wide, 7, 0.01, batch_size=1))["0.attention_norm"] == fits


FEW_WORDS = {"activation_buffer_kib": 64, "weight_buffer_kib": 1, "lanes_per_pe": 26,
             "k_segment": 8, "loop_order": "bikj"}


def test_biases_beyond_a_quarter_of_their_words_are_not_proven() -> None:
    model = TransformerDesign.load(
        {"layers": [{"hidden": 24, "heads": ["sa_sdp"], "feed_forward": [204]}]})
    work = Workload(model, 7, 0.1, batch_size=1)
    for kib, fits in ((1, False), (2, True)):
        made = design(**FEW_WORDS, mask_buffer_kib=kib)
        # 104 columns are 52 words of biases; 512 lines have 128, a quarter of which are 32.
        biases = AcceleratorSpec.of(made).weights.bias_words // 4
        assert (biases, proven_of(made, work)["0.feed_forward_0"]) == (32 * kib, fits)


def test_a_last_block_of_fewer_columns_can_need_more_words() -> None:
    model = TransformerDesign.load(
        {"layers": [{"hidden": 24, "heads": ["sa_sdp"], "feed_forward": [204]}]})
    made = design(**FEW_WORDS, mask_buffer_kib=2)
    # 104 and 100 columns of a line: twelve words each, in six groups of two and in five of three.
    for density, words, fits in ((0.1153, {12, 15}, False), (0.1, {12, 10}, True)):
        work = Workload(model, 7, density, batch_size=1)
        plan = next(
            one for one in schedule(made, work).plans if one.task.label == "0.feed_forward_0")
        assert plan.streams and {size.groups * size.values for size in images(plan)} == words
        assert made.weight_buffer_kib * 8192 // 160 // 4 == 12
        assert proven_of(made, work)["0.feed_forward_0"] == fits


def test_more_words_of_biases_than_a_descriptor_can_ask_for_are_not_proven() -> None:
    made = design(window=4, k_segment=8, mask_buffer_kib=64, weight_buffer_kib=256,
                  activation_buffer_kib=256).with_bits(12)
    spec = AcceleratorSpec.of(made).weights
    assert spec.biases_together == 1 and spec.bias_words // 2 > 4096  # the buffer has room
    for columns, fits in ((4092, True), (4096, False)):
        model = TransformerDesign.load(
            {"layers": [{"hidden": 4, "heads": ["sa_sdp"], "feed_forward": [columns]}]})
        work = Workload(model, 3, 0.1, batch_size=1)
        assert proven_of(made, work)["0.feed_forward_0"] == fits
