"""From a pruned model to its cost: trace, integers in mask mode, jobs that replay them."""

from typing import Any

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign
from hwgen.units.dynatran.golden import prune
from model.recording import Recording
from model.space import TransformerDesign
from model.trace import SparsityTrace
from sim import Workload, evaluate
from sim.jobs import unit_jobs
from sim.masks import RecordedMasks
from sim.reference import walk
from sim.schedule import schedule

torch = pytest.importorskip("torch")

DESIGN = TransformerDesign.load(
    {
        "layers": [{"hidden": 40, "heads": ["sa_sdp"] * 2, "feed_forward": [48]}],
        "vocabulary": 100,
        "max_positions": 32,
    }
)
SMALL = AcceleratorDesign.load(
    AcceleratorDesign.load("small").model_dump() | {"tile_x": 8, "tile_y": 8, "loop_order": "ikjb"}
)
BATCH, LENGTH = 4, 19


@pytest.fixture(scope="module")
def recorded() -> tuple[SparsityTrace, Recording]:
    from model.calibration import calibrate
    from model.configuration import FlexiBertConfig
    from model.density import DensityRecorder
    from model.flexibert import FlexiBertForSequenceClassification
    from model.quantized import QuantizedModel

    torch.manual_seed(0)
    config = FlexiBertConfig.of(DESIGN, {"activation_threshold": 0.2}, initializer_range=0.3)
    model = FlexiBertForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([LENGTH, 12, 7, 3])
    batch: dict[str, Any] = {
        "input_ids": torch.randint(1, 100, (BATCH, LENGTH), generator=generator),
        "attention_mask": (torch.arange(LENGTH) < lengths[:, None]).long(),
    }
    recorder = DensityRecorder(DESIGN)
    model.dynaprop.recorder = recorder
    model(**batch)
    model.dynaprop.recorder = None
    weights = {name: module.weight for name, module in model.products().items()}
    trace = recorder.trace(
        weights, model.dynaprop.policy, weights_hash="w", task="t", split="s", stage="inference"
    )
    return trace, QuantizedModel(model, calibrate(model, [batch]), SMALL).record(**batch)


def test_a_recorded_trace_has_every_density(recorded: tuple[SparsityTrace, Recording]) -> None:
    workload = Workload(DESIGN, LENGTH, recorded[0])
    assert all(0 < task.write_density <= 1 for task in workload.tasks)
    assert any(task.write_density < 0.9 for task in workload.tasks)
    dense = evaluate(["edge"], Workload(DESIGN, LENGTH, 1.0))
    assert evaluate(["edge"], workload).energy_pj < dense.energy_pj


def test_mask_mode_counts_the_recorded_integers(recorded: tuple[SparsityTrace, Recording]) -> None:
    trace, recording = recorded
    workload = Workload(DESIGN, LENGTH, trace, batch_size=BATCH)
    walked = walk(SMALL, workload, RecordedMasks(recording, workload))
    assert isinstance(walked.latency_cycles, int)
    pairs = sum(
        int(((one.left != 0).astype(int) @ (one.right != 0).astype(int)).sum())
        for one in recording.products
    )
    assert walked.work["pairs"] == pairs


def test_replayed_tiles_are_what_the_model_stored(
    recorded: tuple[SparsityTrace, Recording],
) -> None:
    trace, recording = recorded
    workload = Workload(DESIGN, LENGTH, trace, batch_size=BATCH)
    plans = {plan.task.label: plan for plan in schedule(SMALL, workload).plans}
    jobs = unit_jobs(SMALL, workload, recording)
    pruned = {
        job.name: prune(
            job.operands["value"], job.operands["threshold"], job.operands["valid_mask"]
        )
        for job in jobs
        if job.unit == "dynatran"
    }
    compressed = [job for job in jobs if job.unit == "post_sparsity"]
    assert len(compressed) == 3
    for job in compressed:
        values = job.operands["value"]
        plan = plans[job.name.partition(": ")[2]]
        stored = recording.tensors[plan.task.label].reshape(*(plan.extents[one] for one in "bij"))
        tiles = [
            (tile.swapaxes(1, 2) if plan.task.transposed else tile).reshape(-1)
            for b in range(plan.extents["b"])
            for i in range(0, plan.extents["i"], 8)
            for j in range(0, plan.extents["j"], 8)
            for tile in (stored[b : b + 1, i : i + 8, j : j + 8],)
        ]
        assert np.count_nonzero(values)
        assert any(np.array_equal(tile, values) for tile in tiles), job.name
        assert np.array_equal(pruned[job.name][0].reshape(-1)[: len(values)], values)
