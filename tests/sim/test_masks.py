"""Mask mode: non-zeros and lane times of integer tensors."""

import dataclasses

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign
from hwgen.units.dynatran import cost as dynatran
from hwgen.units.lane import cost as lane
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity
from model.recording import Recording
from model.space import TransformerDesign
from sim import Workload
from sim.masks import RecordedMasks, window_counts
from sim.random_masks import random_recording
from sim.reference import walk
from sim.schedule import schedule

MODEL = TransformerDesign.load(
    {
        "layers": [
            {"hidden": 40, "heads": ["sa_sdp"] * 2, "feed_forward": [50]},
            {"hidden": 24, "heads": ["sa_sdp"], "feed_forward": [40]},
        ],
    }
)


def design(order: str = "ikbj") -> AcceleratorDesign:
    return AcceleratorDesign.load(
        {
            **AcceleratorDesign.load("small").model_dump(),
            "tile_b": 2,
            "tile_x": 8,
            "tile_y": 8,
            "pes": 1,
            "lanes_per_pe": 3,
            "macs_per_lane": 2,
            "k_segment": 16,
            "window": 8,
            "fifo_depth": 4,
            "loop_order": order,
        }
    )


def workload(density: float) -> Workload:
    return Workload(MODEL, 13, density, batch_size=3)


def record(density: float, seed: int = 0) -> Recording:
    made = design()
    return random_recording(
        workload(density), made.bits, made.accumulator_bits, np.random.default_rng(seed)
    )


@pytest.mark.parametrize("order", ["ikbj", "bijk", "kijb"])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_full_and_empty_masks_equal_density_mode(order: str, density: float) -> None:
    one = workload(density)
    masked = walk(design(order), one, RecordedMasks(record(density), one))
    expected = walk(design(order), one)
    assert isinstance(masked.latency_cycles, int)
    assert masked.latency_cycles == expected.latency_cycles
    assert masked.operation_cycles == expected.operation_cycles
    assert masked.bits == expected.bits
    for name, value in masked.work.items():
        assert value == pytest.approx(expected.work[name], rel=1e-12), name


def test_counts_what_the_tensors_hold() -> None:
    one, recording, made = workload(0.4), record(0.4), design()
    masked = walk(made, one, RecordedMasks(recording, one))
    products = {(one.layer, one.operation): one for one in recording.products}
    pairs = sum(
        int(((product.left != 0).astype(int) @ (product.right != 0).astype(int)).sum())
        for product in products.values()
    )
    assert masked.work["pairs"] == pairs
    resident = sum(
        np.count_nonzero(recording.tensors[plan.task.operation.writes])
        for plan in schedule(made, one).plans
        if plan.write_resident
    )
    sums = sum(bits for name, bits in masked.bits.items() if name == "activation_fill")
    # What is drained is filled again, once for each segment but the last.
    assert masked.bits["activation_write"] == resident * made.bits + sums


def test_lane_jobs_are_those_of_their_masks() -> None:
    one, made, rng = workload(0.5), design(), np.random.default_rng(3)
    masks = RecordedMasks(record(0.5), one)
    plan = next(plan for plan in schedule(made, one).plans if plan.task.label == "0.score")
    product = masks.product(plan.task.operation)
    jobs = masks.lane_jobs(plan, (16, 20))
    b, i, j = (int(rng.integers(n)) for n in jobs.periods.shape)
    periods = pairs = 0
    for at_b in range(2 * b, min(6, 2 * b + 2)):
        for at_i in range(8 * i, min(13, 8 * i + 8)):
            for at_j in range(8 * j, min(13, 8 * j + 8)):
                both = (product.left[at_b, at_i, 16:20] != 0) & (
                    product.right[at_b, 16:20, at_j] != 0
                )
                periods += int(pre_sparsity.periods(made.pre_sparsity, [[both.sum()]])[0])
                pairs += int(both.sum())
    assert jobs.periods[b, i, j] == periods and jobs.pairs[b, i, j] == pairs
    # The last segment's results go on: dynatran, post_sparsity.
    units = [
        lane.START,
        pre_sparsity.latency(made.pre_sparsity),
        mac_lane.latency(made.mac_lane),
        dynatran.latency(made.dynatran),
        post_sparsity.latency(made.post_sparsity),
    ]
    assert jobs.cycles[b, i, j] == periods + sum(units)
    before = masks.lane_jobs(plan, (0, 16))
    assert before.cycles[b, i, j] == before.periods[b, i, j] + sum(units[:3])


def test_window_counts() -> None:
    left, right = np.array([[1, 0, 2, 3, 4]]), np.array([[5, 0], [5, 5], [0, 5], [5, 5], [5, 0]])
    assert window_counts(left, right, 2).tolist() == [[[1, 1, 1], [0, 2, 0]]]


def test_mean_of_random_masks_is_near_density_mode() -> None:
    one = workload(0.5)
    expected = walk(design(), one).latency_cycles
    seen = [
        walk(design(), one, RecordedMasks(record(0.5, seed), one)).latency_cycles
        for seed in range(4)
    ]
    # Lanes share operands and the slowest is waited for: above, but not by much.
    assert 0 < np.mean(seen) / expected - 1 < 0.1


def test_refuses_other_recordings() -> None:
    recording = record(0.5)
    with pytest.raises(ValueError, match="another model"):
        RecordedMasks(recording, Workload("bert-tiny", 13, 0.5, batch_size=3))
    with pytest.raises(ValueError, match="sequence length 13, the workload 12"):
        RecordedMasks(recording, Workload(MODEL, 12, 0.5, batch_size=3))
    with pytest.raises(ValueError, match="batch_size=3"):
        RecordedMasks(recording, Workload(MODEL, 13, 0.5))
    partial = dataclasses.replace(recording, products=recording.products[1:])
    one = workload(0.5)
    with pytest.raises(ValueError, match="no operands of 0.query"):
        walk(design(), one, RecordedMasks(partial, one))
