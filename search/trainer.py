"""DynaProp training as the trainer of a search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.training import TaskFacts, TrainingJob, TrainingResult, file_hash

if TYPE_CHECKING:
    from model.data import Task
    from model.trained import TrainedModel


@dataclass(frozen=True)
class DynaPropTrainer:
    """Trains with pruned activations and gradients, from a teacher; the densities are measured.

    PyTorch is imported when the first model is trained, so that a search's process stays light.
    """

    @property
    def name(self) -> str:
        """Name and settings."""
        return "dynaprop"

    def facts(self, task: str, sequence_length: int | None = None) -> TaskFacts:
        """Return the facts of a task."""
        loaded = _task(task, sequence_length)
        return TaskFacts(
            loaded.labels, loaded.sequence_length, len(loaded.validation), loaded.split_hash
        )

    def prepare(self, task: str, sequence_length: int) -> None:
        """Fine-tune the teacher and keep its logits, unless that was done before."""
        from model.teacher import fine_tuned_teacher

        loaded = _task(task, sequence_length)
        fine_tuned_teacher(loaded).logits(loaded)

    def train(self, job: TrainingJob) -> TrainingResult:
        """Train a model, going on from the rung below."""
        trained = _train(job)
        return TrainingResult(
            accuracy=trained.validation_accuracy,
            examples=trained.validation_n,
            densities=trained.densities,
            trace_hash=file_hash(trained.path / "trace.json"),
        )

    def test(self, job: TrainingJob) -> tuple[float, int]:
        """Train, then open the test split, which is recorded beside the model too."""
        from model.trained import final_test

        result = final_test(_train(job), _task(job.task, job.sequence_length))
        return result.test_accuracy, result.test_n

    def tidy(self, folder: Path) -> None:
        """Remove the state that a higher rung would go on from."""
        (folder / "trunk.safetensors").unlink(missing_ok=True)


@lru_cache(maxsize=4)
def _task(name: str, sequence_length: int | None) -> Task:
    from model.data import load_task

    return load_task(name, sequence_length)


def _train(job: TrainingJob) -> TrainedModel:
    from model.policy import PruningPolicy
    from model.recipe import Recipe
    from model.train import train

    point = job.model
    policy = PruningPolicy(
        activation_threshold=point.activation_threshold,
        gradient_threshold=point.gradient_threshold,
    )
    settings: dict[str, Any] = {"epochs": job.total_epochs}
    recipe = Recipe(**settings).rung(job.epochs / job.total_epochs)
    task = _task(job.task, job.sequence_length)
    return train(point.design, task, policy, recipe, job.seed, job.out, start=job.start)
