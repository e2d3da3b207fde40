"""Jobs of the units from a recorded pass: what units take, with the cycles that they predict."""

import importlib
from collections import Counter

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign
from hwgen.program import Job
from model.space import TransformerDesign
from sim import Workload
from sim.jobs import unit_jobs
from sim.random_masks import random_recording

MODEL = TransformerDesign.load(
    {"layers": [{"hidden": 85, "heads": ["sa_sdp"] * 2, "feed_forward": [50]}]}
)

WORKLOAD = Workload(MODEL, 13, 0.5, batch_size=3)


def design(**changes: object) -> AcceleratorDesign:
    return AcceleratorDesign.load(
        {
            **AcceleratorDesign.load("small").model_dump(),
            "tile_b": 2,
            "tile_x": 4,
            "tile_y": 8,
            "macs_per_lane": 4,
            "k_segment": 32,
            "window": 16,
            "fifo_depth": 48,
            **changes,
        }
    )


def jobs(made: AcceleratorDesign) -> list[Job]:
    recording = random_recording(
        WORKLOAD, made.bits, made.accumulator_bits, np.random.default_rng(5)
    )
    return unit_jobs(made, WORKLOAD, recording)


def test_three_jobs_of_each_unit() -> None:
    found = Counter(job.unit for job in jobs(design()))
    units = ("pre_sparsity", "mac_lane", "dynatran", "post_sparsity", "softmax", "layer_norm")
    assert found == dict.fromkeys(units, 3)
    names = [job.name for job in jobs(design()) if job.unit == "mac_lane"]
    assert [name.split(":")[0] for name in names] == ["first", "interior", "edge"]
    assert names[1].endswith("0.feed_forward_0"), "the one with a non-linearity"


@pytest.mark.parametrize("macs", [1, 4, 16])
def test_units_take_them_and_predict_the_same_cycles(macs: int) -> None:
    made = design(macs_per_lane=macs)
    for job in jobs(made):
        unit = importlib.import_module(f"hwgen.units.{job.unit}.jobs")
        spec, read = getattr(made, job.unit), Job.from_json(job.to_json())
        assert job.cycles == unit.predicted_cycles(spec, read), job.name
        unit.signals(spec, read)
        assert unit.stimulus(spec, read) and unit.expected(spec, read)


def test_the_edge_is_partial() -> None:
    by_name = {(job.unit, job.name.split(":")[0]): job for job in jobs(design())}
    dots = {
        name: job.shapes["dot_products"]
        for (unit, name), job in by_name.items()
        if unit == "pre_sparsity"
    }
    assert dots["first"] == [64, 32]
    assert dots["edge"][0] < 64 and dots["edge"][1] < 32


def test_a_lane_goes_on_from_the_segments_before() -> None:
    """What leaves one segment is what the next starts from; the last gives the whole product."""
    made = design()
    recording = random_recording(
        WORKLOAD, made.bits, made.accumulator_bits, np.random.default_rng(5)
    )
    edge = {
        job.unit: job for job in unit_jobs(made, WORKLOAD, recording) if job.name.startswith("edge")
    }
    product = next(
        one for one in recording.products if f"edge: 0.{one.operation}" == edge["mac_lane"].name
    )
    whole = product.left.astype(object) @ product.right.astype(object)
    if product.initial is not None:
        whole = whole + product.initial
    starts = [
        (extent - 1) // tile * tile for extent, tile in zip(whole.shape, (2, 4, 8), strict=True)
    ]
    tile = whole[starts[0] :, starts[1] :, starts[2] :]
    job = edge["mac_lane"]
    sums = [
        start + sum(a * b for a, b in zip(left, right, strict=True))
        for start, left, right in zip(
            job.operands["initial"].tolist(),
            job.operands["left"],
            job.operands["right"],
            strict=True,
        )
    ]
    assert sums == tile.reshape(-1).tolist()


def test_refuses_another_format() -> None:
    recording = random_recording(WORKLOAD, 16, 44, np.random.default_rng(5))
    with pytest.raises(ValueError, match="values of 16 bits, the design of 20"):
        unit_jobs(design(), WORKLOAD, recording)
