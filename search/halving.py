"""Successive halving over models, and the best accelerators for those of the top rung.

1. Rung 0: NSGA-II over pairs (`nsga2`). Each model with its thresholds is trained once, for the
   epochs of rung 0, and meets several accelerators.
2. Promotion: every model of a rung is costed on the rung's good accelerators, so that models are
   compared on equal terms. Models are taken in the order in which they add hypervolume to those
   before them, over pairs of this rung alone; accuracies of different rungs are never compared.
   About a third goes up in all, at least `MIN_PROMOTED`, and is trained further.
3. Top rung: for each model the accelerators are swept (`sweep`), and its best ones make pairs.
4. The front holds pairs of the top rung only. While it has fewer than `MIN_FRONT_MODELS`
   different models, the next model of the order is promoted; after some of these in vain, new
   models are trained that cost less than all on the front, where accuracy cannot keep them off.

Every step depends only on the search's settings and on what is in the archive, so a search that
was interrupted repeats its steps, finds in the archive what is done, and goes on to the same end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from model.space import operations
from search.archive import Archive, Evaluation
from search.nsga2 import EvolutionPlan, evolve
from search.objectives import LIMITS, Scale, boxes, minimised, non_dominated, spread
from search.operators import random_genome
from search.problem import PairEvaluator, PairProblem, feasible, front
from search.space import Candidate, Codec, Genome, ModelPoint
from search.sweep import best_accelerators
from search.training import derived_seed

MIN_PROMOTED = 5
MIN_FRONT_MODELS = 4

MAX_LIFTED = 3
"""Further models that are promoted for the front's sake before new ones are made."""

MAX_ADDED = 6
"""New models that are made for the front's sake."""

DRAWN = 512
"""Random models among which a new one is chosen."""

REDUCTION = 3
"""Models of rung 0 for each model of the top rung, where there are many."""

COMMON_ACCELERATORS = 24
"""Accelerators on which the models of a rung are compared."""

KEPT = 12
"""Pairs that are archived of each sweep."""

FIDELITIES = (1.0, 0.8, 0.6, 0.45, 0.35)
"""Shares of the epochs above rung 0 that a time budget may choose."""

MIN_MODELS = 12
"""Models that a time budget leaves at rung 0."""


@dataclass
class Clock:
    """Time that a search has used, earlier sessions included, and what it may use."""

    budget: float | None
    before: float
    started: float

    def elapsed(self) -> float:
        """Seconds used so far."""
        return self.before + time.monotonic() - self.started

    def left(self) -> float:
        """Seconds left of the budget, less a tenth for sweeps."""
        assert self.budget is not None
        return 0.9 * self.budget - self.elapsed()


class SuccessiveHalving:
    """One search, from the first population to the front."""

    def __init__(
        self,
        codec: Codec,
        pairs: PairEvaluator,
        constraints: dict[str, float],
        plan: EvolutionPlan,
        clock: Clock,
        sweep: int,
    ) -> None:
        self.codec, self.pairs, self.constraints = codec, pairs, constraints
        self.plan, self.clock, self.sweep = plan, clock, sweep
        self.archive: Archive = pairs.archive
        self.notes: list[str] = []
        self.rungs = codec.space.rung_epochs

    @property
    def top(self) -> int:
        """The highest rung."""
        return len(self.rungs) - 1

    def run(self) -> list[str]:
        """Search; returns what a user should know, in sentences.

        Raises
        ------
        ValueError
            If nothing could be trained or evaluated, or no pair keeps the constraints.
        """
        problem = PairProblem(self.codec, self.pairs, self.constraints, self.rungs[0])
        seed = derived_seed(self.pairs.seed, "evolution")
        early = evolve(problem, self.plan, seed, self._models_left)
        if early:
            self.notes.append(early)
        if not self.pairs.evaluations(0):
            raise ValueError(self._failures())
        epochs, counts = self._fidelity()
        top, waiting = self._climb(epochs, counts)
        for model in top:
            self._sweep(model, self.top, self.sweep)
        self._complete(waiting, epochs)
        self._conclude()
        return self.notes

    def _complete(self, waiting: list[tuple[str, int]], epochs: Sequence[float]) -> None:
        """Bring `MIN_FRONT_MODELS` different models onto the front, if that can be done."""
        for model, rung in waiting[:MAX_LIFTED]:
            if len(self._front_models()) >= MIN_FRONT_MODELS:
                return
            if self._lift(model, rung, epochs):
                self._sweep(model, self.top, self.sweep)
        for number in range(MAX_ADDED):
            if len(self._front_models()) >= MIN_FRONT_MODELS:
                return
            point = self._cheaper(number)
            if point is None:
                return
            self.pairs.train([point], self.top, epochs[self.top])
            if self.pairs.trainings[point.key, self.top].ok:
                self._sweep(point.key, self.top, self.sweep)

    def _cheaper(self, number: int) -> ModelPoint | None:
        """The largest of some random models that have less work than any on the front."""
        name = f"added/{number}"
        genes = self.archive.fact(name)
        if genes is None:
            models = self._front_models() or set(self.pairs.trained(self.top))
            bound = min(self._work(self.pairs.models[model]) for model in models)
            rng = np.random.default_rng(derived_seed(self.pairs.seed, "added", number))
            drawn = [random_genome(self.codec, rng) for _ in range(DRAWN)]
            work = [self._work(self.codec.decode_model(genome)) for genome in drawn]
            fitting = [index for index in range(DRAWN) if work[index] < bound]
            best = max(fitting, key=lambda index: work[index], default=None)
            genes = [] if best is None else drawn[best].tolist()
            self.archive.set_fact(name, genes)
        return self.codec.decode_model(np.asarray(genes, dtype=np.int64)) if genes else None

    def _work(self, point: ModelPoint) -> int:
        """Products of one sequence, zeros included."""
        return sum(
            math.prod(operation.extents(1, self.pairs.sequence_length))
            for operation in operations(point.design)
            if operation.kind == "product"
        )

    def _front(self) -> list[Evaluation]:
        return front(feasible(self.pairs.evaluations(self.top), self.constraints, accuracy=True))

    def _front_models(self) -> set[str]:
        return {evaluation.model for evaluation in self._front()}

    def _failures(self) -> str:
        errors = [t.error for t in self.archive.trainings() if t.error]
        errors += [e.error for e in self.archive.evaluations() if e.error]
        return f"no pair could be evaluated; the first of {len(errors)} failures: {errors[0]}"

    def _climb(
        self, epochs: Sequence[float], counts: Sequence[int]
    ) -> tuple[list[str], list[tuple[str, int]]]:
        """Promote rung by rung; returns the models of the top rung, and who waits below it."""
        waiting: list[tuple[str, int]] = []
        order = self._order(0)
        for rung in range(1, self.top + 1):
            up, stay = order[: counts[rung]], order[counts[rung] :]
            waiting = [(model, rung - 1) for model in stay] + waiting
            self.pairs.train([self.pairs.models[m] for m in up], rung, epochs[rung])
            order = [m for m in up if self.pairs.trainings[m, rung].ok]
            if rung < self.top and order:
                order = self._order(rung)
        return order, waiting

    def _lift(self, model: str, rung: int, epochs: Sequence[float]) -> bool:
        """Train one model from its rung up to the top; whether that worked."""
        for higher in range(rung + 1, self.top + 1):
            self.pairs.train([self.pairs.models[model]], higher, epochs[higher])
            if not self.pairs.trainings[model, higher].ok:
                return False
        return True

    def _order(self, rung: int) -> list[str]:
        """Models of a rung that can keep the limits on costs, the most promising first."""
        self._compare(rung)
        for model in self._groups(rung, keeping=False):
            if self.constraints and model not in self._groups(rung):
                self._sweep(model, rung, max(1, self.sweep // 4))
        groups = self._groups(rung)
        if not groups:
            raise ValueError(self._infeasible())
        examples = self.pairs.examples(rung)
        points = [boxes(_objectives(kept), examples) for kept in groups.values()]
        points = [p[non_dominated(p)] for p in points]
        models = list(groups)
        return [models[index] for index in spread(points, len(models))]

    def _groups(self, rung: int, keeping: bool = True) -> dict[str, list[Evaluation]]:
        """Pairs of a rung by model, in the order of models; only those that keep the limits."""
        found = self.pairs.evaluations(rung)
        if keeping:
            found = feasible(found, self.constraints, accuracy=False)
        groups: dict[str, list[Evaluation]] = {}
        for evaluation in sorted(found, key=lambda e: (e.model, e.position)):
            groups.setdefault(evaluation.model, []).append(evaluation)
        return groups

    def _compare(self, rung: int) -> None:
        """Cost every model of a rung on the evolution's good accelerators."""
        evolved = [e for e in self.pairs.evaluations(0) if e.source == "evolution"]
        found = feasible(evolved, self.constraints, False) or evolved
        points = boxes(_objectives(found), self.pairs.examples(0))
        best = non_dominated(points)
        if len(best) > COMMON_ACCELERATORS:
            best = best[spread([points[i : i + 1] for i in best], COMMON_ACCELERATORS)]
        accelerators = [self.pairs.candidate(found[index]).accelerator for index in sorted(best)]
        compared: list[tuple[Candidate, Genome | None]] = []
        for model in self.pairs.trained(rung):
            point = self.pairs.models[model]
            for accelerator in accelerators:
                fitting = accelerator.model_copy(update={"nonlinearity": point.design.activation})
                compared.append((Candidate(point, fitting), None))
        self.pairs.evaluate(compared, rung, "comparison")

    def _sweep(self, model: str, rung: int, count: int) -> None:
        """Find a model's best accelerators and archive them as pairs."""
        name = f"sweep/{rung}/{model}"
        found = self.archive.fact(name)
        if found is None:
            self.pairs.progress(0.0, f"sweeping accelerators for {model[:6]}")
            found = self._swept(model, rung, count)
            self.archive.set_fact(name, found)
        if found["error"]:
            self._note(f"no accelerator could be costed for {model[:6]}: {found['error']}")
        point, space = self.pairs.models[model], self.codec.space.accelerator
        swept: list[tuple[Candidate, Genome | None]] = [
            (Candidate(point, space.design(row)), None) for row in found["genes"]
        ]
        self.pairs.evaluate(swept, rung, "sweep")

    def _swept(self, model: str, rung: int, count: int) -> dict[str, Any]:
        try:
            genes, costed, exact = best_accelerators(
                self.codec,
                self.pairs.models[model].design.activation,
                lambda designs: self.pairs.costs(model, rung, designs),
                self.constraints,
                count=count,
                keep=KEPT,
                rng=np.random.default_rng(derived_seed(self.pairs.seed, "sweep", rung, model)),
            )
        except (ValueError, ArithmeticError) as error:
            return {"genes": [], "costed": 0, "exact": False, "error": str(error)}
        return {"genes": genes.tolist(), "costed": costed, "exact": exact, "error": None}

    def _conclude(self) -> None:
        members = self._front()
        models = len({e.model for e in members})
        if not members and self.constraints:
            raise ValueError(self._infeasible())
        if not members:
            raise ValueError(
                f"no model of the top rung could be trained and costed; {'; '.join(self.notes)}"
            )
        if models < MIN_FRONT_MODELS:
            self.notes.append(
                f"the front holds {models} models, not {MIN_FRONT_MODELS}: all "
                f"{len(self.pairs.trained(self.top))} that were trained to the top rung are judged"
            )
        scales = {
            str(rung): asdict(Scale.of(_objectives(found)))
            for rung in range(self.top + 1)
            if (found := self.pairs.evaluations(rung))
        }
        self.archive.set_fact("hypervolume_scales", scales)

    def _infeasible(self) -> str:
        """Name the limits and what came nearest to each."""
        found = [e.measured for e in self.archive.evaluations() if e.measured]
        accuracies = [t.accuracy for t in self.pairs.trained(self.top).values() if t.accuracy]
        parts = []
        for name, limit in self.constraints.items():
            values = accuracies if name == "accuracy" else [getattr(m, name) for m in found]
            best = max(values, default=None) if name == "accuracy" else min(values)
            nearest = "" if best is None else f" (nearest: {best:.4g})"
            parts.append(f"{name} {LIMITS[name]} {limit:g}{nearest}")
        return f"no evaluated pair keeps all constraints: {'; '.join(parts)}"

    def _models_left(self, planned: int) -> int:
        """Models that rung 0 may still train: as planned, or fewer in a time budget."""
        if self.clock.budget is None:
            return planned
        name = f"budget/models/{planned}"
        left = self.archive.fact(name)
        if left is None:
            workers = max(1, self.pairs.pool.workers)
            share = 0.4 * self.clock.budget - self.clock.elapsed()
            affordable = int(share * workers / self._seconds())
            trained = self.plan.models - planned
            left = min(planned, max(affordable, MIN_MODELS - trained, 0))
            self.archive.set_fact(name, left)
        if left < planned:
            self._note("the time budget lowered the number of models at rung 0")
        return int(left)

    def _fidelity(self) -> tuple[list[float], list[int]]:
        """Epochs and number of models of each rung: as planned, or less in a time budget."""
        if self.clock.budget is None:
            return list(self.rungs), self._counts(MIN_PROMOTED)
        found = self.archive.fact("budget/fidelity")
        if found is None:
            found = self._affordable()
            self.archive.set_fact("budget/fidelity", found)
        if found["epochs"] != list(self.rungs) or found["least"] != MIN_PROMOTED:
            epochs = ", ".join(f"{value:.2g}" for value in found["epochs"])
            self._note(f"the time budget lowered the epochs of the rungs to {epochs}")
        return found["epochs"], self._counts(found["least"])

    def _affordable(self) -> dict[str, Any]:
        """The highest fidelity that fits into the time left, or the lowest there is."""
        workers = max(1, self.pairs.pool.workers)
        an_epoch = 1.25 * self._seconds() / self.rungs[0]  # promoted models tend to be larger
        for fidelity in FIDELITIES:
            above = [max(e * fidelity, 1.25 * self.rungs[0]) for e in self.rungs[1:]]
            for least in (MIN_PROMOTED, MIN_FRONT_MODELS):
                counts = self._counts(least)[1:]
                epochs = sum(n * e for n, e in zip(counts, above, strict=True))
                if epochs * an_epoch / workers <= self.clock.left():
                    return {"epochs": [self.rungs[0], *above], "least": least}
        return {"epochs": [self.rungs[0], *above], "least": MIN_FRONT_MODELS}

    def _counts(self, least: int) -> list[int]:
        """Number of models of each rung, in geometric steps from rung 0 to the top."""
        first = len(self.pairs.trained(0))
        last = min(first, max(least, math.ceil(first / REDUCTION**self.top)))
        steps = [(last / first) ** (rung / self.top) for rung in range(self.top + 1)]
        return [max(last, round(first * step)) for step in steps]

    def _seconds(self) -> float:
        """Mean seconds of a training at rung 0."""
        seconds = [t.seconds for t in self.pairs.trained(0).values()]
        return max(1e-3, sum(seconds) / max(1, len(seconds)))

    def _note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)


def _objectives(evaluations: Sequence[Evaluation]) -> np.ndarray:
    return minimised([e.measured for e in evaluations if e.measured is not None])
