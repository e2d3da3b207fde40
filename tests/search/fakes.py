"""A trainer and an evaluator that take no time, for tests of the search itself."""

import json
import os
import signal
import time
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from hwgen.design import DesignBatch
from model.space import TransformerDesign
from search import CoDesign
from search.problem import Costs
from search.training import TaskFacts, TrainingJob, TrainingResult, file_hash


@dataclass(frozen=True)
class FakeTrainer:
    """Says that larger models and longer trainings are better, with noise from the job's seed.

    `log` is a file that gets a line a training; `fail_every` makes that share of models fail;
    `kill_at` kills the process at that training; `die_for` kills it for that model.
    """

    log: str = ""
    fail_every: int = 0
    kill_at: int = 0
    die_for: str = ""
    seconds: float = 0.0
    accuracy: float | None = None

    @property
    def name(self) -> str:
        return "fake"

    def facts(self, task: str, sequence_length: int | None = None) -> TaskFacts:
        if task != "fake":
            raise ValueError(f"unknown task {task!r}")
        return TaskFacts(2, sequence_length or 64, 1600, "0" * 16)

    def prepare(self, task: str, sequence_length: int, progress) -> None:
        progress(0.5, "half of the teacher")

    def train(self, job: TrainingJob) -> TrainingResult:
        time.sleep(self.seconds)
        key = int(job.model.key, 16)
        if self.fail_every and key % self.fail_every == 0:
            raise RuntimeError("diverged")
        if self.die_for == job.model.key:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.log:
            with Path(self.log).open("a") as file:
                file.write(f"{job.model.key} {job.rung} {job.epochs} {job.seed}\n")
            if self.kill_at and len(Path(self.log).read_text().splitlines()) >= self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
        assert job.start is None or (job.start / "trace.json").exists()
        rng = np.random.default_rng([job.seed, job.rung])
        size = sum(layer.hidden * sum(layer.feed_forward) for layer in job.model.design.layers)
        accuracy = 0.6 + 0.05 * np.log10(size / 1e4) + 0.02 * job.epochs - 0.2 * (
            job.model.activation_threshold) + rng.normal(0, 0.01)  # fmt: skip
        job.out.mkdir(parents=True, exist_ok=True)
        density = float(np.clip(0.9 - 2 * job.model.activation_threshold, 0.1, 1))
        (job.out / "trace.json").write_text(json.dumps({"density": density}))
        (job.out / "trunk").write_text("large")
        return TrainingResult(
            accuracy=float(accuracy if self.accuracy is None else self.accuracy),
            examples=1600,
            densities={"INPUT": density},
            trace_hash=file_hash(job.out / "trace.json"),
        )

    def test(self, job: TrainingJob) -> tuple[float, int]:
        return self.train(job).accuracy - 0.01, 1601

    def tidy(self, folder: Path) -> None:
        (folder / "trunk").unlink(missing_ok=True)


@dataclass(frozen=True)
class FakeEvaluator:
    """Costs with the trade-offs of real ones; `poison` gives NaN for that many PEs."""

    poison: int = -1
    calls: str = ""

    @property
    def name(self) -> str:
        return "fake"

    def costs(self, designs: DesignBatch, model: TransformerDesign, folder: Path) -> Costs:
        density = json.loads((folder / "trace.json").read_text())["density"]
        work = density * sum(
            layer.hidden * (layer.hidden + sum(layer.feed_forward)) for layer in model.layers
        )
        lanes = designs.lanes.astype(float) * designs.macs_per_lane
        order = 1 + (np.char.find(designs.loop_order, "k") / 10)
        buffers = (
            designs.activation_buffer_kib + designs.weight_buffer_kib + designs.mask_buffer_kib
        )
        latency = work * order / lanes + 100
        area = 1e5 * designs.pes + 1e4 * lanes + 100.0 * buffers + 1e4 * designs.softmax_per_pe
        energy = work * order * 10 + latency * area * 1e-4
        energy = np.where(designs.pes == self.poison, np.nan, energy)
        seconds = latency / 700e6
        costs = Costs(latency, energy, area, energy / seconds * 1e-9, latency * designs.batch_size,
                      seconds, energy / 3, buffers.astype(float))  # fmt: skip
        assert {len(getattr(costs, f.name)) for f in fields(costs)} == {len(designs)}
        return costs

    def report(
        self, designs: DesignBatch, model: TransformerDesign, folder: Path
    ) -> SimpleNamespace:
        costs = self.costs(designs, model, folder)
        totals = {"latency": costs.latency_cycles, "energy": costs.energy_pj_per_sequence,
                  "area": costs.area_um2}  # fmt: skip

        def breakdown(quantity: str, by: str = "component") -> dict[str, np.ndarray]:
            return {"0.query": totals[quantity] * 0.75, "0.attention_norm": totals[quantity] * 0.25}

        proven = {"0.query": True, "0.attention_norm": False}
        return SimpleNamespace(breakdown=breakdown, proven=proven, not_priced=("nothing <b>",))


def search(folder, evaluations=60, run=None, **settings):
    made = {"trainer": FakeTrainer(), "evaluator": FakeEvaluator(), "sweep": 1000, "seed": 1}
    return CoDesign("fake", "demo", **{**made, **settings}).run(
        folder, evaluations, workers=0, **(run or {})
    )
