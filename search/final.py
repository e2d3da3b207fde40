"""The one opening of the test split, for the final report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from search.objectives import Scale, wilson
from search.problem import software_version
from search.run import Pair, Run
from search.space import ModelPoint
from search.trainer import DynaPropTrainer
from search.training import Trainer, TrainingJob, WorkerPool, derived_seed, run_test

MOST_MEMBERS = 12
"""Members of the front for which the test split is opened, at most."""

OPENING = "final/opening"


@dataclass(frozen=True)
class FinalResult:
    """What the test split said.

    Parameters
    ----------
    when : of the opening, UTC
    seeds : new seeds a model was trained with; 0 for the search's own training
    members : ids of the pairs
    accuracies : on the test split, of each seed, by model key
    examples : number of examples of the test split
    """

    when: str
    seeds: int
    members: list[str]
    accuracies: dict[str, list[float]]
    examples: int

    def interval(self, accuracy: float) -> tuple[float, float]:
        """Wilson's 95 % interval of one accuracy."""
        return wilson(accuracy, self.examples)


def chosen_members(run: Run) -> list[Pair]:
    """Members of the front that contribute most hypervolume, at most MOST_MEMBERS."""
    objectives = run.front.objectives
    contributions = Scale.of(objectives).contributions(objectives)
    order = np.argsort(-contributions, kind="stable")[:MOST_MEMBERS]
    return [run.front[int(index)] for index in sorted(order)]


def read_final(run: Run) -> FinalResult | None:
    """What an earlier opening found, or None where there was none or it was not completed."""
    opening = run.archive.fact(OPENING)
    if opening is None:
        return None
    accuracies: dict[str, list[float]] = {}
    examples = 0
    for model in opening["models"]:
        for index in range(max(1, opening["seeds"])):
            found = run.archive.fact(f"final/{model}/{index}")
            if found is None:
                return None
            if found["error"] is None:
                accuracies.setdefault(model, []).append(found["accuracy"])
                examples = found["examples"]
    if not accuracies:
        return None
    return FinalResult(opening["when"], opening["seeds"], opening["members"], accuracies, examples)


def open_test_split(
    run: Run,
    seeds: int,
    workers: int | None = None,
    trainer: Trainer | None = None,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> FinalResult:
    """Open the test split for members of the front, on record; once for a run.

    The opening is archived before the split is read. An interrupted one goes on.

    Raises
    ------
    ValueError
        If it was opened before with another number of seeds, if the search is not finished, or
        if no model could be tested.
    """
    if seeds < 0:
        raise ValueError(f"seeds must be at least 0, not {seeds}")
    if not run.finished:
        raise ValueError(
            f"{run.path}: the search is not finished, and the test split is opened only once; "
            "finish the search first"
        )
    trainer = trainer or DynaPropTrainer()
    if trainer.name != run.config["trainer"]:
        raise ValueError(
            f"trainer must be the search's, {run.config['trainer']}, not {trainer.name}"
        )
    opening = run.archive.fact(OPENING)
    if opening is None:
        members = chosen_members(run)
        opening = {
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": software_version(),
            "split_hash": run.config["split_hash"],
            "seeds": seeds,
            "members": [pair.id for pair in members],
            "models": list(dict.fromkeys(pair.training.model for pair in members)),
        }
        run.archive.set_fact(OPENING, opening)
    if opening["seeds"] != seeds:
        raise ValueError(
            f"{run.path}: the test split was opened on {opening['when']} with seeds = "
            f"{opening['seeds']}; it is opened once, so ask for the same"
        )
    jobs = _jobs(run, opening)
    names = {str(job.out): name for name, job in jobs.items()}
    progress(0.0, f"training {len(jobs)} models anew")
    with WorkerPool(trainer, workers) as pool:
        for done, (job, outcome) in enumerate(pool.run(list(jobs.values()), run_test), start=1):
            progress(done / len(jobs), f"tested {done} of {len(jobs)} models")
            accuracy, examples = outcome.result or (None, None)
            run.archive.set_fact(
                names[str(job.out)],
                {"accuracy": accuracy, "examples": examples, "seed": job.seed,
                 "error": outcome.error},
            )  # fmt: skip
    result = read_final(run)
    if result is None:
        errors = [run.archive.fact(f"final/{m}/0")["error"] for m in opening["models"]]
        raise ValueError(f"no model could be tested; the first failure: {errors[0]}")
    return result


def _jobs(run: Run, opening: dict[str, Any]) -> dict[str, TrainingJob]:
    """What is left to do, by the name of the fact that keeps its result."""
    made = {}
    pairs = {pair.training.model: pair for pair in run.front}
    for model in opening["models"]:
        for index in range(max(1, opening["seeds"])):
            name = f"final/{model}/{index}"
            if run.archive.fact(name) is None:
                made[name] = _job(run, pairs[model], index if opening["seeds"] else None)
    return made


def _job(run: Run, pair: Pair, index: int | None) -> TrainingJob:
    """Train a pair's model with a new seed, or, where `index` is None, take it as it is."""
    training, key = pair.training, pair.training.model
    out = pair.path if index is None else run.path / "final" / f"{key}-{index}"
    out.parent.mkdir(parents=True, exist_ok=True)
    seed = training.seed
    if index is not None:
        seed = derived_seed(run.config["seed"], "final", index, key)
    return TrainingJob(
        task=run.config["task"],
        model=ModelPoint(pair.model, pair.activation_threshold, pair.gradient_threshold),
        rung=training.rung,
        epochs=training.epochs,
        total_epochs=run.space.rung_epochs[-1],
        seed=seed,
        sequence_length=run.config["sequence_length"],
        out=out,
        start=None,
    )
