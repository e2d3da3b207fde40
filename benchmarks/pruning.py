"""What pruning costs a training step: thresholds, top-k, recording and profiling, side by side.

Steps (forward, backward, AdamW) of a design on random batches; the variants take turns, and the
median over rounds stands for each, beside the dense step's and the measured density. The recorder
looks on in every step of its row; a training turns it on in few (the last row's share says how
much a step of the whole costs more with 4 traced steps of 250, as for a stage of 1,000 steps).

    python benchmarks/pruning.py [--design bert-tiny] [--batch 32] [--length 64] [--rounds 15]
                                 [--threads 1] [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch

from model.configuration import FlexiBertConfig
from model.density import DensityRecorder
from model.flexibert import FlexiBertForSequenceClassification
from model.space import TransformerDesign
from model.threshold_profiling import profile

TARGETS = {
    "activation_density": 0.5, "gradient_density": 0.1, "gradients_off": ["classifier", "pooler"]
}  # fmt: skip
VARIANTS: dict[str, dict[str, Any]] = {
    "dense": {},
    "thresholds from a table": TARGETS,
    "top-k of rows": {**TARGETS, "selection": "top_k_row"},
    "top-k of tensors": {**TARGETS, "selection": "top_k_tensor"},
    "dense, recorded": {},
    "thresholds, recorded": TARGETS,
}
PROFILED_BATCHES, REFRESH_STEPS = 4, 100
TRACED, STAGE = 4, 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--design", default="bert-tiny")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    benchmark(given)


def batch(design: TransformerDesign, given: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Random tokens, labels and lengths from half of the longest on."""
    generator = torch.Generator().manual_seed(seed)
    shape = (given.batch, given.length)
    lengths = torch.randint(given.length // 2, given.length + 1, (given.batch, 1))
    made = {
        "input_ids": torch.randint(1, design.vocabulary, shape, generator=generator),
        "attention_mask": (torch.arange(given.length)[None] < lengths).long(),
        "labels": torch.randint(0, design.labels, (given.batch,), generator=generator),
    }
    return {name: value.to(given.device) for name, value in made.items()}


class Training:
    """Steps of one variant."""

    def __init__(self, name: str, design: TransformerDesign, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        config = FlexiBertConfig.of(design, VARIANTS[name], initializer_range=0.05)
        self.model = FlexiBertForSequenceClassification(config).to(given.device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.recorded = name.endswith("recorded")
        self.batches = [batch(design, given, seed) for seed in range(PROFILED_BATCHES)]
        self.profile_seconds: list[float] = []
        self.seconds: list[float] = []
        if self.model.dynaprop.policy.needs_table:
            self.refresh()
        self.density = self.measured_density()

    def refresh(self) -> None:
        """Profile the thresholds."""
        begun = now(self.model)
        self.model.dynaprop.table = profile(self.model, self.batches, self.loss)
        self.profile_seconds.append(now(self.model) - begun)

    def loss(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Mean loss of a batch."""
        loss: torch.Tensor = self.model(**inputs).loss
        return loss

    def measured_density(self) -> dict[str, float]:
        """Density by role over all batches."""
        recorder = DensityRecorder(self.model.design)
        self.model.dynaprop.recorder = recorder
        for inputs in self.batches:
            self.loss(inputs).backward()
        self.model.dynaprop.recorder = None
        self.optimizer.zero_grad()
        sums: dict[str, list[int]] = {}
        for key, counts in recorder.counts().items():
            total = sums.setdefault(key[2].value, [0, 0])
            total[0] += int(counts[0])
            total[1] += int(counts[2])
        return {role: nonzeros / entries for role, (nonzeros, entries) in sums.items()}

    def step(self, number: int) -> None:
        """Train a step, timed."""
        inputs = self.batches[number % len(self.batches)]
        recorder = DensityRecorder(self.model.design) if self.recorded else None
        self.model.dynaprop.recorder = recorder
        begun = now(self.model)
        self.loss(inputs).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds.append(now(self.model) - begun)


def now(model: torch.nn.Module) -> float:
    """Time, when everything that was asked for is done."""
    if next(model.parameters()).is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def benchmark(given: argparse.Namespace) -> None:
    design = TransformerDesign.load(given.design)
    trainings = {name: Training(name, design, given) for name in VARIANTS}
    for number in range(given.rounds + 2):  # two to warm up
        for training in trainings.values():
            training.step(number)
    table = trainings["thresholds from a table"]
    for _ in range(4):
        table.refresh()
    medians = {name: statistics.median(t.seconds[2:]) for name, t in trainings.items()}
    print(f"{given.design}, {given.batch} x {given.length}, {given.device}, torch",
          f"{torch.__version__}, {given.threads} thread(s), {given.rounds} rounds")  # fmt: skip
    for name, training in trainings.items():
        density = training.density
        print(
            f"{name:24} {1e3 * medians[name]:8.1f} ms  {medians[name] / medians['dense']:5.2f} x  "
            f"OUTPUT {density['OUTPUT']:.3f}  GRAD_OUTPUT {density['GRAD_OUTPUT']:.3f}"
        )
    plain, recorded = medians["thresholds from a table"], medians["thresholds, recorded"]
    refresh = statistics.median(table.profile_seconds[1:])
    print(f"profiling {PROFILED_BATCHES} batches: {1e3 * refresh:.0f} ms, every {REFRESH_STEPS}",
          f"steps {refresh / REFRESH_STEPS / plain:.1%} of their time")  # fmt: skip
    more = (recorded - plain) * TRACED / (STAGE * plain)
    print(f"a trace of {TRACED} steps in {STAGE}: {more:.1%} of their time")


if __name__ == "__main__":
    main()
