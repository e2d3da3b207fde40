"""ELECTOR against the reference walk, on random designs that cover what can differ."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hwgen.design import LOOP_ORDERS, AcceleratorDesign, DesignBatch
from hwgen.technology.constants import Technology
from model.space import TransformerDesign
from sim import Workload, evaluate
from sim.closed_form import Population, task_sums
from sim.dataflow import product_steps
from sim.images import lines_per_cycle, memory_rate
from sim.lanes import LaneTimes
from sim.reference import Walk, walk
from sim.reference_energy import energy_pj
from sim.schedule import Plan, schedule
from sim.tiling import loop_dimensions, tile_product

MODEL = TransformerDesign.load(
    {
        "layers": [
            # Two heads of 42.
            {"hidden": 85, "heads": ["sa_sdp"] * 2, "feed_forward": [70, 33]},
            {"hidden": 24, "heads": ["sa_sdp"], "feed_forward": [40]},
        ],
        "labels": 3,
    }
)

DENSITIES: tuple[Any, ...] = (
    0.0,
    1.0,
    {"INPUT": 0.37, "WEIGHT": 1.0, "LEFT": 0.61, "RIGHT": 0.23, "OUTPUT": 0.9},
    {"INPUT": 0.5, "WEIGHT": 0.71, "LEFT": 0.08, "RIGHT": 0.5},
)

WHOLE = ("bits.", "blocks.", "results", "row_elements", "softmax_elements", "layer_norm_elements")
"""Sums that are whole numbers and must agree exactly."""


def random_design(rng: np.random.Generator, order: str, **fixed: Any) -> AcceleratorDesign:
    """Draw a design, most of them too small for the model."""
    macs = int(rng.choice([1, 2, 4, 16]))
    memories = [("dram", 32, 2, 1), ("rram", 4, 2, 8), ("hbm", 32, 1, 4)]
    kind, banks, ranks, channels = memories[rng.integers(3)]
    values = {
        "tile_b": rng.choice([1, 2, 4]),
        "tile_x": rng.choice([4, 8, 16]),
        "tile_y": rng.choice([4, 8, 16]),
        "nonlinearity": "gelu",
        "pes": rng.choice([1, 2, 3, 8, 32]),
        "lanes_per_pe": rng.choice([1, 3, 4]),
        "macs_per_lane": macs,
        "softmax_per_pe": rng.choice([1, 2, 3]),
        "batch_size": rng.choice([1, 2, 5]),
        "activation_buffer_kib": rng.choice([1, 4, 16, 64, 512]),
        "weight_buffer_kib": rng.choice([2, 16, 64, 256]),
        "mask_buffer_kib": rng.choice([1, 2, 8, 64]),
        "memory": {"type": kind, "banks": banks, "ranks": ranks, "channels": channels},
        "loop_order": order,
        "k_segment": macs * rng.choice([4, 8, 24]),
        "window": macs * rng.choice([1, 4]),
        "stochastic_rounding": bool(rng.integers(2)),
        **fixed,
    }
    return AcceleratorDesign.load(
        {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in values.items()
        }
    )


def streaming_bins(plan: Plan) -> Iterator[str]:
    """What a plan covers whose weight comes block by block."""
    design, steps, loops = plan.design, list(plan.steps()), [*plan.design.loop_order]
    blocks = [(block.j, block.k) for block in plan.blocks()]
    copied = [(step.copy.j, step.copy.k) for step in steps if step.copy is not None]
    if not copied:
        yield "one block of weights"
        return
    yield f"blocks of weights in order {design.loop_order}"
    if len(copied) + 1 > len(set(blocks)):
        yield "blocks of weights come again"
    if len(copied) + 1 < plan.waves:
        yield "blocks of weights stay"
    if plan.extents["k"] % design.k_segment:
        yield "blocks of partial segments"
        if math.ceil(plan.extents["k"] % design.k_segment / design.window) < plan.block_lines:
            yield "blocks with lines that hold nothing"
    if plan.extents["j"] % (plan.unroll["j"] * design.tile_y):
        yield "blocks of fewer columns"
    loops = [letter for letter in loops if plan.trips[letter] > 1]
    if loops[-1] != design.loop_order[-1]:
        yield "blocks of weights, no trips inside"
    if plan.trips[loops[-1]] > 5:
        yield "blocks of weights, many trips inside"
    if plan.load.all_slots:
        yield "blocks of weights come beside the next image"
    for block in plan.blocks():
        image = plan.block_image(block)
        yield "blocks with idle slots" if image.all_slots > image.words else "blocks that are full"


def bins(plan: Plan, following: Plan | None, workload: Workload) -> Iterator[str]:
    """What a plan covers."""
    design, operation = plan.design, plan.task.operation
    port = lines_per_cycle(design) * design.window * design.bits
    yield "main memory waits for the port" if memory_rate(design) == (port, 1) else "port waits"
    if following is not None and following.streams:
        yield "the next weights stream"
    if plan.streams:
        yield from streaming_bins(plan)
    if operation.kind != "product":
        yield "softmax rows" if operation.kind == "softmax" else operation.kind
        if plan.extents["i"] % plan.rows_per_wave:
            yield "partial wave of rows"
        if operation.name == "embedding" and workload.sequence_length < min(
            plan.rows_per_wave, plan.extents["i"]
        ):
            yield "wave of more rows than positions"
        return
    yield f"order {design.loop_order}"
    for letter in "bijk":
        if plan.extents[letter] > plan.tiles[letter] and plan.extents[letter] % plan.tiles[letter]:
            yield f"partial {letter}"
        if plan.trips[letter] > 4:
            yield f"many trips along {letter}"
    if plan.task.transposed:
        yield "transposed result"
    if plan.extents["k"] % design.window and design.k_segment > design.window:
        yield "several lines of a row, the last partial"
    if plan.spills:
        if plan.used_lanes_per_pe > 1:
            yield "several lanes of a PE spill"
        yield "sums spill to the buffer" if plan.sums_resident else "sums spill to main memory"
    elif plan.trips["k"] > 1:
        yield "sums stay"
    if operation.has_weight:
        yield "weights prefetched" if plan.prefetched else "weights stream"
    yield "activations stay" if plan.reads_resident[0] else "activations stream"
    yield "result stays" if plan.write_resident else "result streams"
    elements = plan.extents["b"] * plan.extents["i"] * plan.extents["j"]
    if plan.task.write_density * elements * design.bits > design.activation_buffer_kib * 8192:
        yield "tensor larger than a buffer"
    if operation.name == "score" and plan.extents["k"] == 42:
        yield "heads of 42"
    for density in (0.0, 1.0):
        if plan.task.read_densities[0] == density:
            yield f"density {density:g}"


BINS = {
    *(f"blocks of weights in order {order}" for order in LOOP_ORDERS),
    "one block of weights",
    "blocks of weights come again",
    "blocks of weights stay",
    "blocks of partial segments",
    "blocks with lines that hold nothing",
    "blocks of fewer columns",
    "blocks of weights, no trips inside",
    "blocks of weights, many trips inside",
    "blocks of weights come beside the next image",
    "blocks with idle slots",
    "blocks that are full",
    "main memory waits for the port",
    "port waits",
    "the next weights stream",
    *(f"order {order}" for order in LOOP_ORDERS),
    *(f"partial {letter}" for letter in "bijk"),
    *(f"many trips along {letter}" for letter in "bijk"),
    "softmax rows",
    "add_norm",
    "tanh",
    "partial wave of rows",
    "wave of more rows than positions",
    "sums spill to the buffer",
    "sums spill to main memory",
    "sums stay",
    "weights prefetched",
    "weights stream",
    "activations stay",
    "activations stream",
    "result stays",
    "result streams",
    "tensor larger than a buffer",
    "heads of 42",
    "density 0",
    "density 1",
    "transposed result",
    "several lines of a row, the last partial",
    "several lanes of a PE spill",
}


def in_buffers(plan: Plan) -> bool:
    """Whether the buffers hold all that a plan reads and writes but its weight."""
    spills = plan.task.operation.kind == "product" and plan.spills
    sums = plan.sums_resident or not spills
    return all(plan.reads_resident) and plan.write_resident and sums


def compare(sums: dict[str, float], walked: Walk) -> None:
    """Compare everything that both have counted."""
    for name, found in sums.items():
        kind, _, rest = name.partition(".")
        if name.endswith("_beats"):
            continue
        tables = {"bits": walked.bits, "blocks": walked.blocks, "stall": walked.stalls}
        wanted = (
            walked.latency_cycles
            if name == "cycles"
            else tables[kind][rest]
            if kind in tables
            else walked.work[name]
        )
        if name.startswith(WHOLE):
            assert found == wanted, name
        else:
            assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9), name


def test_equals_the_walk_over_steps() -> None:
    rng = np.random.default_rng(11)
    covered: set[str] = set()
    for number, densities in enumerate(DENSITIES):
        batch = None if number % 2 else 3
        workload = Workload(MODEL, 21, densities, batch_size=batch)
        orders = (LOOP_ORDERS * 3)[18 * number : 18 * number + 18]
        designs = [random_design(rng, order) for order in orders]
        population = Population(DesignBatch.of(designs), workload, LaneTimes(), 512, True)
        totals: dict[str, np.ndarray] = {}
        for _, sums in task_sums(population):
            for name, values in sums.items():
                totals[name] = totals.get(name, 0) + values
        for index, design in enumerate(designs):
            compare(
                {name: values[index] for name, values in totals.items()}, walk(design, workload)
            )
            plans = schedule(design, workload).plans
            after = [*plans[1:], None]
            for plan, following, home in zip(plans, after, population.homes, strict=True):
                covered.update(bins(plan, following, workload))
                assert home.in_buffers[index] == in_buffers(plan)
    assert sorted(BINS - covered) == [], "no case of these"
    assert sorted(covered - BINS) == []


def test_weights_that_stream_cost_other_designs_no_classes() -> None:
    rng = np.random.default_rng(15)
    designs = DesignBatch.of([random_design(rng, order, pes=1) for order in LOOP_ORDERS])
    tiling = tile_product(designs, loop_dimensions(designs), (1, 21, 70, 85))
    none = np.zeros(len(designs), dtype=bool)
    some = np.arange(len(designs)) % 2 == 0
    listed = [product_steps(tiling, False, streams) for streams in (none, some)]
    before, after = (np.diff(steps.starts, append=len(steps.design)) for steps in listed)
    assert np.array_equal(before[~some], after[~some])
    assert (after[some] > before[some]).any() and (after <= 1.25 * before).all()
    assert listed[0].copies is None
    for steps in listed:
        waves = np.add.reduceat(steps.count, steps.starts)
        assert np.array_equal(waves, tiling.waves + 2)


def test_energies_equal_the_walk() -> None:
    rng = np.random.default_rng(12)
    technology = Technology.load("acceltran-14nm")
    workload = Workload(MODEL, 13, DENSITIES[2])
    designs = []
    for order in LOOP_ORDERS:
        tile, macs = int(rng.choice([8, 16, 32])), int(rng.choice([1, 16]))
        designs.append(
            random_design(
                rng,
                order,
                tile_x=tile,
                tile_y=tile,
                macs_per_lane=macs,
                k_segment=4 * macs,
                window=4 * macs,
                clock_mhz=float(rng.choice([350, 700])),
            )
        )
    report = evaluate(designs, workload, technology)
    parts = report.breakdown("energy")
    for index, design in enumerate(designs):
        walked = walk(design, workload)
        wanted = energy_pj(walked, design, technology)
        assert {name: parts[name][index] for name in parts} == pytest.approx(wanted, rel=1e-9)
        assert report.energy_pj[index] == pytest.approx(sum(wanted.values()), rel=1e-9)
        assert report.latency_cycles[index] == pytest.approx(walked.latency_cycles, rel=1e-9)
        by_operation = report.breakdown("latency", "operation")
        found = {name: values[index] for name, values in by_operation.items()}
        assert found == pytest.approx(walked.operation_cycles, rel=1e-9)


@pytest.mark.usefixtures("points_of_every_unit")
@pytest.mark.parametrize("name", ["nangate45", "nangate45-to-7nm"])
def test_energies_of_synthesised_units_equal_the_walk(name: str) -> None:
    rng = np.random.default_rng(14)
    technology = Technology.load(name)
    workload = Workload(MODEL, 13, DENSITIES[2])
    designs = [
        random_design(
            rng, order, tile_x=8, tile_y=int(rng.choice([8, 16, 32])), macs_per_lane=macs,
            k_segment=4 * macs, window=4 * macs, fifo_depth=macs,
            clock_mhz=float(rng.choice([350, 700])),
            stochastic_rounding=bool(rng.integers(2)))
        for order, macs in zip(LOOP_ORDERS, rng.choice([4, 8, 16], 24).tolist(), strict=True)
    ]
    report = evaluate(designs, workload, technology)
    parts = report.breakdown("energy")
    for index, design in enumerate(designs):
        wanted = energy_pj(walk(design, workload), design, technology)
        assert {part: parts[part][index] for part in parts} == pytest.approx(wanted, rel=1e-9)
        assert report.energy_pj[index] == pytest.approx(sum(wanted.values()), rel=1e-9)
    assert (report.area_um2 > 0).all()


def test_a_population_equals_its_designs_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(13)
    designs = [
        random_design(rng, order, tile_x=8, tile_y=8, macs_per_lane=1, k_segment=8, window=4)
        for order in LOOP_ORDERS
    ]
    workload = Workload(MODEL, 13, 0.4)
    whole = evaluate(designs, workload)
    monkeypatch.setattr("sim.elector.CHUNK_DESIGNS", 10)
    monkeypatch.setattr("sim.elector.CHUNK_STEPS", 300)
    monkeypatch.setattr("sim.elector.DETAILED_DESIGNS", 5)
    cut = evaluate(designs, workload)
    assert cut.kept is None
    assert cut.latency_cycles == pytest.approx(whole.latency_cycles, rel=1e-12)
    assert cut.energy_pj == pytest.approx(whole.energy_pj, rel=1e-12)
    for quantity in ("latency", "energy"):
        for by in ("component", "operation"):
            one, other = cut.breakdown(quantity, by), whole.breakdown(quantity, by)
            assert list(one) == list(other)
            for name, values in one.items():
                assert values == pytest.approx(other[name], rel=1e-9, abs=1e-6)
    alone = evaluate([designs[7]], workload)
    assert alone.energy_pj[0] == pytest.approx(whole.energy_pj[7], rel=1e-12)
