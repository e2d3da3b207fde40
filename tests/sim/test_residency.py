"""What fits exactly is in the buffers, and a bit more is not, in walk and closed form."""

from __future__ import annotations

from typing import Any

import pytest

from hwgen.design import AcceleratorDesign, DesignBatch
from model.space import TransformerDesign
from sim import Workload
from sim.closed_form import Population
from sim.lanes import LaneTimes
from sim.schedule import Plan, schedule

MODEL = TransformerDesign.load(
    {"layers": [{"hidden": 64, "heads": ["sa_sdp"], "feed_forward": [32]}]})


def design(**changes: Any) -> AcceleratorDesign:
    return AcceleratorDesign.load({
        **AcceleratorDesign.load("small").model_dump(), "tile_x": 4, "tile_y": 4, "window": 8,
        "k_segment": 16, "macs_per_lane": 2, "fifo_depth": 4, "activation_buffer_kib": 64,
        "weight_buffer_kib": 64, "mask_buffer_kib": 64, **changes})


def operation(made: AcceleratorDesign, work: Workload, label: str) -> Plan:
    """Return a plan, with what the closed form says of where its tensors live."""
    plans = schedule(made, work).plans
    index = next(n for n, plan in enumerate(plans) if plan.task.label == label)
    plan = plans[index]
    population = Population(DesignBatch.of([made]), work, LaneTimes(), 512, True)
    home = population.homes[index]
    assert bool(home.streams[0]) == plan.streams
    assert bool(home.write[0]) == plan.write_resident
    if plan.task.operation.kind == "product" and plan.spills:
        assert bool(home.sums[0]) == plan.sums_resident
    return plan


def share(bits: int, elements: int) -> float:
    """Density of which `elements` values of 20 bits have that many bits."""
    return (bits - 0.5) / (20 * elements)


def densities(weights: float, activations: float) -> dict[str, float]:
    return {"WEIGHT": weights, **dict.fromkeys(("INPUT", "LEFT", "RIGHT"), activations)}


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_weights_values_take_half_the_weight_buffer(beyond: int) -> None:
    # 32 columns of 64 with biases of 51 bits, in half of 8192 bits.
    values = 4096 - 32 * 51 + beyond
    work = Workload(MODEL, 9, densities(share(values, 2048), 0.5), batch_size=1)
    plan = operation(design(weight_buffer_kib=1), work, "0.feed_forward_0")
    assert plan.streams == bool(beyond)
    assert plan.weight_values == 4096 + beyond


@pytest.mark.parametrize(("columns", "streams"), [(32, False), (33, True)])
def test_a_weights_masks_take_a_quarter_of_the_mask_buffer(columns: int, streams: bool) -> None:
    model = TransformerDesign.load(
        {"layers": [{"hidden": 64, "heads": ["sa_sdp"], "feed_forward": [columns]}]})
    plan = operation(
        design(mask_buffer_kib=1), Workload(model, 9, 0.5, batch_size=1), "0.feed_forward_0")
    # 64 · 32 masks of 8192.
    assert plan.streams == streams


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_tensors_values_take_all_of_the_activation_buffer(beyond: int) -> None:
    density = share(8192 + beyond, 30 * 64)
    work = Workload(MODEL, 30, densities(0.5, density), batch_size=1)
    plan = operation(design(activation_buffer_kib=1), work, "embedding")
    assert plan.write_resident == (not beyond)


@pytest.mark.parametrize(("rows", "resident"), [(64, True), (65, False)])
def test_a_tensors_masks_take_half_of_the_mask_buffer(rows: int, resident: bool) -> None:
    # 64 · 64 masks of 8192.
    work = Workload(MODEL, rows, 0.5, batch_size=1)
    assert operation(design(mask_buffer_kib=1), work, "embedding").write_resident == resident


@pytest.mark.parametrize("beyond", [0, 1])
def test_sums_take_what_tensors_leave(beyond: int) -> None:
    made = design(activation_buffer_kib=26, loop_order="kijb", lanes_per_pe=1, pes=1)
    length = 17
    bits = operation(made, Workload(MODEL, length, 0.5, batch_size=1), "0.query").sum_bits
    # The embedding and the query, of as many lines, leave the sums of all of a query's tiles.
    left = 26 * 8192 - bits
    density = share(left // 2 + beyond, length * 64)
    assert bits and left % 2 == 0 and 0 < density < 1
    work = Workload(MODEL, length, densities(0.5, density), batch_size=1)
    assert operation(made, work, "0.query").sums_resident == (not beyond)
