"""DynaProp training as the trainer of a search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from model.recipe import Recipe
from search.training import TaskFacts, TrainingJob, TrainingResult, file_hash

if TYPE_CHECKING:
    from pathlib import Path

    from model.data import Task
    from model.trained import TrainedModel


@dataclass(frozen=True)
class DynaPropTrainer:
    """Trains with pruned activations and gradients, from a teacher; the densities are measured.

    PyTorch is imported when the first model is trained, so that a search's process stays light.

    Parameters
    ----------
    recipe : how to train; its epochs and fraction are replaced by those of the rungs
    """

    recipe: Recipe = field(default_factory=Recipe)

    @property
    def name(self) -> str:
        """Name, and the settings that differ from the usual ones."""
        usual, chosen = asdict(Recipe()), asdict(self.recipe)
        other = [f"{key}={value}" for key, value in chosen.items() if value != usual[key]]
        return " ".join(["dynaprop", *other])

    def facts(self, task: str, sequence_length: int | None = None) -> TaskFacts:
        """Return the facts of a task."""
        loaded = _task(task, sequence_length)
        return TaskFacts(
            loaded.labels, loaded.sequence_length, len(loaded.validation), loaded.split_hash
        )

    def prepare(
        self, task: str, sequence_length: int, progress: Callable[[float, str], None]
    ) -> None:
        """Fine-tune the teacher and keep its logits, unless that was done before."""
        if self.recipe.distillation == 0:
            return
        from model.distillation import transfer_texts
        from model.teacher import TeacherRecipe, fine_tuned_teacher

        loaded = _task(task, sequence_length)
        fine_tuned_teacher(
            loaded,
            TeacherRecipe(intermediate_task=self.recipe.intermediate_task),
            lambda now: progress(0.8 * now.fraction, now.phase),
        ).logits(
            loaded,
            lambda now: progress(0.8 + 0.2 * now.fraction, now.phase),
            transfer_texts(loaded, self.recipe.transfer_texts),
        )

    def train(self, job: TrainingJob) -> TrainingResult:
        """Train a model, going on from the rung below; above rung 0 it is calibrated, too."""
        trained = self._train(job)
        if job.rung > 0:
            _calibrate(trained, _task(job.task, job.sequence_length))
        return TrainingResult(
            accuracy=trained.validation_accuracy,
            examples=trained.validation_n,
            densities=trained.densities,
            trace_hash=file_hash(trained.path / "trace.json"),
        )

    def test(self, job: TrainingJob) -> tuple[float, int]:
        """Train, then open the test split, which is recorded beside the model too."""
        from model.trained import final_test

        result = final_test(self._train(job), _task(job.task, job.sequence_length))
        return result.test_accuracy, result.test_n

    def tidy(self, folder: Path) -> None:
        """Remove the state that a higher rung would go on from."""
        (folder / "trunk.safetensors").unlink(missing_ok=True)

    def _train(self, job: TrainingJob) -> TrainedModel:
        from model.policy import PruningPolicy
        from model.train import train

        policy = PruningPolicy(
            activation_threshold=job.model.activation_threshold,
            gradient_threshold=job.model.gradient_threshold,
        )
        recipe = replace(self.recipe, epochs=job.total_epochs).rung(job.epochs / job.total_epochs)
        task = _task(job.task, job.sequence_length)
        start = job.start if job.start is not None and job.start.is_dir() else None
        return train(job.model.design, task, policy, recipe, job.seed, job.out, start=start)


@lru_cache(maxsize=4)
def _task(name: str, sequence_length: int | None) -> Task:
    from model.data import load_task

    return load_task(name, sequence_length)


def _calibrate(trained: TrainedModel, task: Task) -> None:
    """Give every stored tensor its exponent, unless the training was whole and has done so."""
    from model.calibration import FILE_NAME
    from model.job import calibrated

    if not (trained.path / FILE_NAME).is_file():
        calibrated(trained.model, task).save(trained.path)
