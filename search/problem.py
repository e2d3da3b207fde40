"""Evaluating pairs: training what is missing, costing it, archiving both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pymoo.core.problem import Problem

from hwgen.design import AcceleratorDesign, DesignBatch
from model.space import TransformerDesign
from search.archive import Archive, Evaluation, Training
from search.objectives import (
    OBJECTIVES,
    Measured,
    boxes,
    minimised,
    non_dominated,
    violations,
)
from search.space import Candidate, Codec, Genome, ModelPoint, accelerator_key
from search.training import Outcome, TrainingJob, WorkerPool, derived_seed


@dataclass(frozen=True)
class Costs:
    """What a model costs on each of several designs; arrays of shape (designs,).

    The fields are those of Measured without accuracy.
    """

    latency_cycles_per_sequence: np.ndarray
    energy_pj_per_sequence: np.ndarray
    area_um2: np.ndarray
    power_mw: np.ndarray
    latency_cycles: np.ndarray
    latency_seconds: np.ndarray
    leakage_pj_per_sequence: np.ndarray
    buffer_kib: np.ndarray

    def measured(self, index: int, accuracy: float) -> Measured:
        """The figures of one design with a model's accuracy."""
        costs = {f.name: float(getattr(self, f.name)[index]) for f in fields(self)}
        return Measured(accuracy=accuracy, **costs)

    def wrong(self) -> list[str | None]:
        """For each design the first figure that is not a finite number of at least 0, or None."""
        made: list[str | None] = [None] * len(self.area_um2)
        for field in reversed(fields(self)):
            values = np.asarray(getattr(self, field.name))
            for index in np.flatnonzero(~(np.isfinite(values) & (values >= 0))):
                made[index] = field.name
        return made

    def excess(self, constraints: dict[str, float]) -> np.ndarray:
        """Largest relative excess over the limits on costs, at most 0 where all are kept."""
        worst = np.zeros(len(self.area_um2))
        for name, limit in constraints.items():
            if name != "accuracy":
                worst = np.maximum(worst, (getattr(self, name) - limit) / limit)
        return worst


class Evaluator(Protocol):
    """Something that says what a trained model costs on accelerators."""

    @property
    def name(self) -> str:
        """Name and settings, kept with the run."""
        ...

    def costs(self, designs: DesignBatch, model: TransformerDesign, folder: Path) -> Costs:
        """Cost a model on designs, with the trace that lies in its folder."""
        ...

    def report(self, designs: DesignBatch, model: TransformerDesign, folder: Path) -> Any:
        """Break the same costs down; has `breakdown`, `proven` and `not_priced` of sim.Report."""
        ...


Pair = tuple[Candidate, Genome | None]


class PairEvaluator:
    """Trains, costs and archives; what the archive holds is never done again.

    Parameters
    ----------
    folder : the run's folder; models lie in folder/models
    archive : where everything is kept
    pool : where models are trained
    evaluator : what costs them
    task, seed, sequence_length, total_epochs : of the search
    progress : called with the epochs of each training that is done, and a sentence
    """

    def __init__(
        self,
        folder: Path,
        archive: Archive,
        pool: WorkerPool,
        evaluator: Evaluator,
        *,
        task: str,
        seed: int,
        sequence_length: int,
        total_epochs: float,
        progress: Callable[[float, str], None],
    ) -> None:
        self.folder = folder
        self.archive = archive
        self.pool = pool
        self.evaluator = evaluator
        self.task, self.seed, self.sequence_length = task, seed, sequence_length
        self.total_epochs = total_epochs
        self.progress = progress
        self.trainings = {(t.model, t.rung): t for t in archive.trainings()}
        self.models: dict[str, ModelPoint] = {t.model: _point(t) for t in self.trainings.values()}
        self._evaluations = {(e.model, e.rung, e.accelerator): e for e in archive.evaluations()}

    def trained(self, rung: int) -> dict[str, Training]:
        """Models that were trained at a rung, by key, in the order of keys."""
        found = ((k, t) for (k, r), t in sorted(self.trainings.items()) if r == rung and t.ok)
        return dict(found)

    def evaluations(self, rung: int) -> list[Evaluation]:
        """What was evaluated at a rung so far, in order."""
        found = [e for e in self._evaluations.values() if e.rung == rung and e.ok]
        return sorted(found, key=lambda e: e.position)

    def model_folder(self, model: str, rung: int) -> Path:
        """Where a trained model lies."""
        return self.folder / "models" / f"{model}-r{rung}"

    def train(self, models: Iterable[ModelPoint], rung: int, epochs: float) -> None:
        """Train the models that are not trained at this rung, each once."""
        wanted = {model.key: model for model in models}
        self.models |= wanted
        missing = [m for key, m in wanted.items() if (key, rung) not in self.trainings]
        jobs = [self._job(model, rung, epochs) for model in missing]
        for job, outcome in self.pool.run(jobs):
            training = self._training(job, outcome)
            self.archive.add_training(training)
            self.trainings[training.model, training.rung] = training
            verdict = f"{training.accuracy:.1%}" if training.ok else f"failed: {training.error}"
            self.progress(epochs, f"rung {rung}: trained {training.model[:6]}, {verdict}")

    def _job(self, model: ModelPoint, rung: int, epochs: float) -> TrainingJob:
        begun = (model.key, rung - 1) in self.trainings
        start = self.model_folder(model.key, rung - 1) if begun else None
        return TrainingJob(
            task=self.task,
            model=model,
            rung=rung,
            epochs=epochs,
            total_epochs=self.total_epochs,
            seed=derived_seed(self.seed, model.key),
            sequence_length=self.sequence_length,
            out=self.model_folder(model.key, rung),
            start=start,
        )

    def _training(self, job: TrainingJob, outcome: Outcome) -> Training:
        result = outcome.result
        found: dict[str, Any] = {}
        if result is not None:
            found = {
                "accuracy": result.accuracy,
                "examples": result.examples,
                "trace_hash": result.trace_hash,
                "densities": dict(result.densities),
                "folder": job.out.relative_to(self.folder).as_posix(),
            }
        return Training(
            model=job.model.key,
            rung=job.rung,
            design=job.model.design.model_dump(mode="json"),
            activation_threshold=job.model.activation_threshold,
            gradient_threshold=job.model.gradient_threshold,
            epochs=job.epochs,
            seed=job.seed,
            version=software_version(),
            status="failed" if outcome.error else "ok",
            error=outcome.error,
            seconds=outcome.seconds,
            **found,
        )

    def costs(self, model: str, rung: int, designs: DesignBatch) -> Costs:
        """Cost a trained model on designs, without archiving."""
        folder = self.model_folder(model, rung)
        return self.evaluator.costs(designs, self.models[model].design, folder)

    def evaluate(self, pairs: Sequence[Pair], rung: int, source: str) -> list[Evaluation]:
        """Cost pairs whose models were trained at a rung; archive what is new, in this order."""
        keys = [(c.model.key, rung, accelerator_key(c.accelerator)) for c, _ in pairs]
        missing: dict[tuple[str, int, str], Pair] = {}
        for key, pair in zip(keys, pairs, strict=True):
            if key not in self._evaluations:
                missing.setdefault(key, pair)
        made: dict[tuple[str, int, str], Evaluation] = {}
        for model in dict.fromkeys(key[0] for key in missing):
            group = {key: pair for key, pair in missing.items() if key[0] == model}
            made |= self._evaluate_model(model, rung, group, source)
        first = len(self._evaluations)
        ordered = [replace(made[key], position=first + index) for index, key in enumerate(missing)]
        self.archive.add_evaluations(ordered)
        self._evaluations |= {(e.model, e.rung, e.accelerator): e for e in ordered}
        return [self._evaluations[key] for key in keys]

    def _evaluate_model(
        self, model: str, rung: int, group: dict[tuple[str, int, str], Pair], source: str
    ) -> dict[tuple[str, int, str], Evaluation]:
        training = self.trainings[model, rung]
        designs = [candidate.accelerator for candidate, _ in group.values()]
        error, costs = training.error, None
        if training.ok:
            try:
                costs = self.costs(model, rung, DesignBatch.of(designs))
            except (ValueError, ArithmeticError) as reason:
                error = f"{type(reason).__name__}: {reason}"
        wrong = [None] * len(group) if costs is None else costs.wrong()
        made = {}
        for index, (key, (candidate, genome)) in enumerate(group.items()):
            measured, why = None, error
            if costs is not None and wrong[index] is None:
                assert training.accuracy is not None
                measured = costs.measured(index, training.accuracy)
            elif costs is not None:
                why = f"{wrong[index]} is not a finite number of at least 0"
            made[key] = Evaluation(
                model=model,
                rung=rung,
                accelerator=key[2],
                source=source,
                genome=None if genome is None else genome.tolist(),
                design=candidate.accelerator.model_dump(mode="json"),
                seed=training.seed,
                version=software_version(),
                trace_hash=training.trace_hash,
                status="ok" if measured else "failed",
                error=None if measured else why,
                measured=measured,
            )
        return made

    def candidate(self, evaluation: Evaluation) -> Candidate:
        """The pair of an evaluation."""
        accelerator = AcceleratorDesign.load(evaluation.design)
        return Candidate(self.models[evaluation.model], accelerator)

    def examples(self, rung: int) -> int:
        """Number of examples behind the accuracies of a rung."""
        return max((t.examples or 1 for t in self.trained(rung).values()), default=1)


@cache
def software_version() -> str:
    """Version of the software, which every row of an archive names."""
    try:
        return version("transcode-codesign")
    except PackageNotFoundError:
        return "not installed"


def _point(training: Training) -> ModelPoint:
    return ModelPoint(
        TransformerDesign.load(training.design),
        training.activation_threshold,
        training.gradient_threshold,
    )


def feasible(
    evaluations: Sequence[Evaluation], constraints: dict[str, float], accuracy: bool
) -> list[Evaluation]:
    """Those that have figures and keep all limits."""
    return [
        e
        for e in evaluations
        if e.measured is not None
        and all(v <= 0 for v in violations(e.measured, constraints, accuracy))
    ]


def front(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Those that no other dominates."""
    if not evaluations:
        return []
    objectives = minimised([e.measured for e in evaluations if e.measured is not None])
    return [evaluations[index] for index in non_dominated(objectives)]


class PairProblem(Problem):
    """Pairs at the lowest rung as a pymoo problem over canonical genomes.

    Objectives are ε-boxed; a failed training or evaluation is infeasible, worse than any limit.
    """

    FAILED = 1e6

    def __init__(
        self, codec: Codec, pairs: PairEvaluator, constraints: dict[str, float], epochs: float
    ) -> None:
        super().__init__(
            n_var=codec.genes,
            n_obj=len(OBJECTIVES),
            n_ieq_constr=1 + len(constraints),
            xl=np.zeros(codec.genes, dtype=np.int64),
            xu=codec.sizes - 1,
            vtype=int,
        )
        self.codec, self.pairs, self.constraints, self.epochs = codec, pairs, constraints, epochs

    def _evaluate(self, X, out, *args, **kwargs):  # type: ignore[no-untyped-def]  # noqa: N803
        genomes = np.asarray(X, dtype=np.int64)
        candidates = [self.codec.decode(genome) for genome in genomes]
        self.pairs.train([candidate.model for candidate in candidates], 0, self.epochs)
        pairs = list(zip(candidates, genomes, strict=True))
        evaluations = self.pairs.evaluate(pairs, 0, "evolution")
        worst = Measured(0.0, *[math.exp(80.0)] * (len(fields(Measured)) - 1))
        objectives = minimised([e.measured or worst for e in evaluations])
        out["F"] = boxes(objectives, self.pairs.examples(0))
        if np.isnan(out["F"]).any():
            raise ValueError("an objective is NaN")
        out["G"] = np.array([self._limits(e) for e in evaluations])

    def _limits(self, evaluation: Evaluation) -> list[float]:
        if evaluation.measured is None:
            return [self.FAILED] * (1 + len(self.constraints))
        return [0.0, *violations(evaluation.measured, self.constraints, accuracy=False)]
