"""Products of encoders walked step by step on one processing element, in mask mode."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.units.lane import cost as lane
from model.operations import Operation
from model.recording import RecordedProduct, Recording
from model.space import TransformerDesign, operations
from sim.masks import RecordedMasks
from sim.reference import DeclaredDensities, walk_program
from sim.schedule import NO_IMAGE, Plan, Program
from sim.workload import Task

Densities = tuple[float, float]
"""Shares of the left and of the right operand that are not zero."""

DENSE: Densities = (1.0, 1.0)

BASE = "edge"
"""The design whose processing element is looked at."""

LOSSES = (
    "effectual",
    "too few pairs",
    "slowest lane",
    "pipeline",
    "other engines",
    "steps without a wave",
    "step constant",
)
"""What a product's cycles go to. `effectual` are those that its pairs would take if every
multiplier had one in each cycle; with `too few pairs` they are those that a lane takes on average,
and with `slowest lane` those of the slowest of each wave."""


def processing_element(**changes: Any) -> AcceleratorDesign:
    """Return one PE of the base design; window, k_segment and FIFO follow the design's defaults."""
    base = AcceleratorDesign.load(BASE).model_dump()
    kept = {name: value for name, value in base.items()
            if name not in ("window", "k_segment", "fifo_depth")}
    return AcceleratorDesign.load({**kept, "pes": 1, "batch_size": 1, **changes})


@dataclass(frozen=True)
class Product:
    """A product of encoder layers, of one sequence.

    Parameters
    ----------
    extents : B, I, J, K; heads are in B
    has_weight : whether the right operand is a weight, which has no b
    names : operations of this shape
    occurrences : how often each model has it
    """

    extents: tuple[int, int, int, int]
    has_weight: bool
    names: tuple[str, ...]
    occurrences: tuple[tuple[str, int], ...]

    @property
    def length(self) -> int:
        """Elements of a dot product."""
        return self.extents[3]

    @property
    def label(self) -> str:
        """Extents, and whose they are."""
        return "×".join(map(str, self.extents)) + " " + ", ".join(self.names)

    def times(self, model: str) -> int:
        """How often a model has it."""
        return dict(self.occurrences).get(model, 0)

    def plan(self, design: AcceleratorDesign, densities: Densities) -> Plan:
        """Cut the product into waves; all tensors are in the buffers."""
        b, _, j, k = self.extents
        heads, reads = (1, ("left",)) if self.has_weight else (b, ("left", "right"))
        operation = Operation("product", None, "product", heads, self.has_weight, False,
                              "sequence", k, j, reads, "product")
        right = densities[1] if self.has_weight else math.nan
        task = Task(operation, densities[:len(reads)], right, 1.0)
        extents = dict(zip("bijk", self.extents, strict=True))
        return Plan(design, task, extents, (True,) * len(reads), True, True, 0, 0, True, NO_IMAGE)


def products(models: Iterable[str], sequence_length: int) -> list[Product]:
    """List the distinct products of all layers, the shortest dot products first.

    What `value` writes transposed is as many pieces, so that it is no shape of its own.
    """
    names: dict[Any, dict[str, None]] = defaultdict(dict)
    counts: dict[Any, Counter[str]] = defaultdict(Counter)
    for model in models:
        for operation in operations(TransformerDesign.load(model)):
            if operation.kind == "product" and operation.layer is not None:
                key = operation.extents(1, sequence_length), operation.has_weight
                names[key][operation.name] = None
                counts[key][model] += 1
    found = [Product(*key, tuple(names[key]), tuple(counts[key].items())) for key in names]
    return sorted(found, key=lambda one: (one.length, one.has_weight, math.prod(one.extents)))


def masks(product: Product, densities: Densities, seed: int, recording: int
          ) -> tuple[np.ndarray, np.ndarray]:
    """Draw where the operands are not zero, independently: shapes [B, I, K] and [(B,) K, J]."""
    b, i, j, k = product.extents
    rng = np.random.default_rng([seed, recording, *product.extents, product.has_weight])
    left = rng.random((b, i, k)) < densities[0]
    right = rng.random((k, j) if product.has_weight else (b, k, j)) < densities[1]
    return left, right


def _workload(product: Product) -> Any:
    b, i, *_ = product.extents
    return SimpleNamespace(
        model=SimpleNamespace(design_hash=""), sequence_length=i, batch_size=b)


@cache
def _recorded(product: Product, densities: Densities, seed: int, recording: int) -> RecordedMasks:
    """Masks as mask mode takes them; made once, for the walks of many designs."""
    left, right = masks(product, densities, seed, recording)
    b, i, j, _ = product.extents
    recorded = RecordedProduct(None, "product", left, right, None, 0, False, {}, 0)
    # How dense a result is does not change how many pieces it has.
    result = np.zeros((b, i, j), dtype=bool)
    made = Recording("", "", 0, 0, np.ones((b, i), dtype=bool), (recorded,), (),
                     {"product": result})
    return RecordedMasks(made, _workload(product))


@dataclass(frozen=True)
class Run:
    """One product on one design, means over recordings.

    Parameters
    ----------
    cycles : of all steps, the configuration included
    lane_cycles : of the lanes' engine, which works while a wave is computed
    pairs : whose factors are both not zero
    expected_cycles : of all steps in density mode, for which the masks are independent
    multipliers : of the design
    losses : cycles by what they go to, as in LOSSES
    waits : cycles by the engine that was the longest of its step, without the step constant
    """

    cycles: float
    lane_cycles: float
    pairs: float
    expected_cycles: float
    multipliers: int
    losses: dict[str, float] = field(hash=False)
    waits: dict[str, float] = field(hash=False)

    @property
    def share(self) -> float:
        """Share of the multiplier-cycles of all steps that do effectual work."""
        return self.pairs / (self.cycles * self.multipliers)

    @property
    def lane_share(self) -> float:
        """The same of the cycles in which a wave is computed."""
        return self.pairs / (self.lane_cycles * self.multipliers)


class Runs:
    """Walks of products, each made once.

    Parameters
    ----------
    seed, recordings : of the masks, and how many are drawn for each product
    """

    def __init__(self, seed: int, recordings: int) -> None:
        self.seed, self.recordings = seed, recordings
        self._known: dict[Any, Run] = {}

    def run(self, design: AcceleratorDesign, product: Product, densities: Densities) -> Run:
        """Walk a product."""
        # A dot product of one segment does not ask how long another could be.
        segment = min(design.k_segment, product.length)
        key = (design.model_copy(update={"k_segment": segment}).sha256, product, densities)
        if key not in self._known:
            self._known[key] = self._walk(design, product, densities)
        return self._known[key]

    def speed_up(self, design: AcceleratorDesign, product: Product, densities: Densities) -> float:
        """Cycles of all steps of the dense product over those at given densities."""
        return (self.run(design, product, DENSE).cycles
                / self.run(design, product, densities).cycles)

    def _walk(self, design: AcceleratorDesign, product: Product, densities: Densities) -> Run:
        count = 1 if densities == DENSE else self.recordings
        walks = [_steps(design, product, densities,
                        _recorded(product, densities, self.seed, recording))
                 for recording in range(count)]
        expected = _steps(design, product, densities, DeclaredDensities())
        return Run(
            *(math.fsum(walk[name] for walk in walks) / count
              for name in ("cycles", "lane_cycles", "pairs")),
            expected["cycles"],
            design.lanes * design.macs_per_lane,
            _mean([walk["losses"] for walk in walks]),
            _mean([walk["waits"] for walk in walks]),
        )


def _mean(counted: list[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for each in counted for name in each)
    return {name: math.fsum(each.get(name, 0) for each in counted) / len(counted)
            for name in names}


def _steps(design: AcceleratorDesign, product: Product, densities: Densities, values: Any
           ) -> dict[str, Any]:
    """Walk a product once and say where its cycles go."""
    plan = product.plan(design, densities)
    walk = walk_program(
        design, Program(NO_IMAGE, (plan,)), _workload(product), values, keep_steps=True)
    times = walk.steps[1:]
    waits: Counter[str] = Counter()
    lanes = pipeline = others = without = 0.0
    for step, time in zip(plan.steps(), times, strict=True):
        longest = max(time.cycles, key=lambda name: time.cycles[name])
        waits[longest] += time.cycles[longest]
        if step.compute is None:
            without += time.cycles[longest]
            continue
        lanes += time.cycles["lanes"]
        others += time.cycles[longest] - time.cycles["lanes"]
        pipeline += lane.cycles(plan.units, 0, step.compute.k[1] == product.length)
    cycles = math.fsum(time.total for time in times)
    effectual = walk.work["pairs"] / (design.lanes * design.macs_per_lane)
    busy = walk.work["lane_cycles"] / design.lanes
    losses = (effectual, busy - effectual, lanes - pipeline - busy, pipeline, others, without,
              cycles - lanes - others - without)
    return {"cycles": cycles, "lane_cycles": lanes, "pairs": float(walk.work["pairs"]),
            "losses": dict(zip(LOSSES, losses, strict=True)), "waits": dict(waits)}
