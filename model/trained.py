"""A trained model as a folder, and the one opening of the test split for it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from model.baseline import fit_baseline
from model.cache import write_json
from model.card import write_trained_card
from model.data import Split, Task, load_task, open_test
from model.flexibert import FlexiBertForSequenceClassification
from model.operations import GemmRole
from model.policy import PruningPolicy
from model.quiet import quiet
from model.recipe import Recipe
from model.space import TransformerDesign
from model.teacher import predict
from model.trace import SparsityTrace


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model that was trained and saved.

    Attributes
    ----------
    path
        Its folder: ``model.safetensors``, ``config.json`` and the tokenizer as Hugging Face saves
        them, ``README.md`` (the model card), ``inputs.json`` (all that the training depends on),
        ``training.json`` (what came out), ``trace.json`` (densities on the validation split),
        ``gradients.json`` (densities over the last steps of the training) and, after a whole
        training of a model that the accelerator runs, ``calibration.json``;
        ``thresholds.json`` where the policy asks for densities.
    design, policy, recipe, seed
        What was trained, and how.
    validation_accuracy, validation_n
        Share of correct answers on the validation split, and of how many.
    epochs, steps, seconds
        Of the training, what was taken over from a lower rung included.
    trace, gradients
        Measured densities, of inference and of training.
    inputs, about
        The contents of ``inputs.json`` and ``training.json``.
    """

    path: Path
    design: TransformerDesign
    policy: PruningPolicy
    recipe: Recipe
    seed: int
    validation_accuracy: float
    validation_n: int
    epochs: float
    steps: int
    seconds: float
    trace: SparsityTrace
    gradients: SparsityTrace
    inputs: dict[str, Any]
    about: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Load what `train` saved; weights are read when `model` is first asked for.

        Raises
        ------
        ValueError
            The folder holds no finished model.
        """
        folder = Path(path)
        if not (folder / "training.json").is_file():
            raise ValueError(f"{folder} holds no trained model: it has no training.json")
        inputs = _read(folder / "inputs.json", "design", "policy", "recipe", "seed", "task")
        about = _read(
            folder / "training.json",
            "validation_accuracy", "validation_n", "epochs", "steps", "seconds",
        )  # fmt: skip
        return cls(
            path=folder,
            design=TransformerDesign.load(inputs["design"]),
            policy=PruningPolicy.load(inputs["policy"]),
            recipe=Recipe.load(inputs["recipe"]),
            seed=inputs["seed"],
            validation_accuracy=about["validation_accuracy"],
            validation_n=about["validation_n"],
            epochs=about["epochs"],
            steps=about["steps"],
            seconds=about["seconds"],
            trace=SparsityTrace.load(folder / "trace.json"),
            gradients=SparsityTrace.load(folder / "gradients.json"),
            inputs=inputs,
            about=about,
        )

    @cached_property
    def model(self) -> FlexiBertForSequenceClassification:
        """The model, in evaluation mode."""
        with quiet():
            loaded = FlexiBertForSequenceClassification.from_pretrained(
                self.path, local_files_only=True
            )
        return loaded.eval()

    @cached_property
    def stages(self) -> dict[float, SparsityTrace]:
        """Densities by the share of the training at which they were recorded, in its order.

        They show how the density of a fixed threshold drifts, and how a target is kept.
        """
        paths = sorted(self.path.glob("gradients-*.json"))
        traces = [SparsityTrace.load(path) for path in paths]
        return {trace.training_share or 0.0: trace for trace in traces}

    @property
    def sequence_length(self) -> int:
        """Tokens at which texts are cut."""
        return int(self.inputs["task"]["sequence_length"])

    @property
    def densities(self) -> dict[str, float]:
        """Density by role: of inference, and GRAD_OUTPUT of training."""
        gradient = GemmRole.GRAD_OUTPUT.value
        return {**self.trace.by_role(), gradient: self.gradients.by_role()[gradient]}

    def correct(self, split: Split) -> np.ndarray:
        """Whether each example of a split is answered correctly, bool."""
        return predict(self.model, split, self.sequence_length).argmax(1) == split.labels


def _read(path: Path, *keys: str) -> dict[str, Any]:
    """An object of JSON that has these keys.

    Raises
    ------
    ValueError
        It is damaged; names the file and what is wrong.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}; train the model again") from None
    missing = [key for key in keys if not isinstance(found, dict) or key not in found]
    if missing:
        raise ValueError(f"{path} is damaged: it has no {missing[0]}; train the model again")
    return dict(found)


@dataclass(frozen=True)
class FinalTest:
    """Accuracies on the test split, opened once for a model.

    Attributes
    ----------
    test_accuracy, baseline_test_accuracy
        Shares of correct answers of the model and of `model.baseline`.
    test_n
        Number of examples, the same ones for both.
    test_correct, baseline_correct
        Whether each example was answered correctly, for paired comparisons.
    """

    test_accuracy: float
    baseline_test_accuracy: float
    test_n: int
    test_correct: tuple[bool, ...]
    baseline_correct: tuple[bool, ...]


def task_of(trained: TrainedModel, task: Task | str | None = None) -> Task:
    """The task that a model was trained on.

    Raises
    ------
    ValueError
        ``task`` is given and is not the one, or not cut as the one, that it was trained on.
    """
    trained_on = trained.inputs["task"]
    opened = load_task(trained_on["name"]) if task is None else task
    opened = load_task(opened) if isinstance(opened, str) else opened
    if opened.split_hash != trained_on["split_hash"]:
        raise ValueError(
            f"{trained.path} was trained on {trained_on['name']} with splits"
            f" {trained_on['split_hash']}, not {opened.name} with {opened.split_hash}"
        )
    return opened


def final_test(trained: TrainedModel, task: Task | str | None = None) -> FinalTest:
    """Open the test split for a model, once, on record.

    The opening is appended to ``test_openings.json`` in the model's folder before the split is
    read; the result is kept in ``test.json`` and given again without another opening.

    Raises
    ------
    ValueError
        The task is not the one, or not cut as the one, that the model was trained on.
    """
    opened = task_of(trained, task)
    kept = trained.path / "test.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        lists = {key: tuple(found[key]) for key in ("test_correct", "baseline_correct")}
        return FinalTest(**{**found, **lists})
    baseline = fit_baseline(opened)
    split = open_test(opened, trained.path / "test_openings.json", f"final test of {trained.path}")
    answers = trained.correct(split)
    references = baseline.correct(split)
    result = FinalTest(
        float(answers.mean()), float(references.mean()), len(split),
        tuple(answers.tolist()), tuple(references.tolist()),
    )  # fmt: skip
    write_json(kept, {**vars(result)})
    write_trained_card(trained.path, trained.inputs, trained.about)
    return result


def summary(trained: TrainedModel, final: FinalTest | None = None) -> dict[str, Any]:
    """What ``transcode train --json`` prints; the test's figures are null without ``final``."""
    return {
        "validation_accuracy": trained.validation_accuracy,
        "validation_n": trained.validation_n,
        "test_accuracy": None if final is None else final.test_accuracy,
        "test_n": None if final is None else final.test_n,
        "baseline_test_accuracy": None if final is None else final.baseline_test_accuracy,
        "baseline_test_n": None if final is None else final.test_n,
        "densities": trained.densities,
        "seconds": trained.seconds,
        "model": str(trained.path),
        "design_hash": trained.design.design_hash,
        "task": trained.inputs["task"]["name"],
        "seed": trained.seed,
        "epochs": trained.epochs,
        "activation_threshold": trained.policy.activation_threshold,
        "gradient_threshold": trained.policy.gradient_threshold,
        "activation_density": trained.policy.activation_density,
        "gradient_density": trained.policy.gradient_density,
    }
