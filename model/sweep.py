"""A trained model pruned harder at inference, without retraining: accuracy against sparsity."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from model.cache import write_json
from model.data import Task
from model.density import DensityRecorder
from model.flexibert import FlexiBertForSequenceClassification
from model.loop import threads_of_torch
from model.operations import GemmRole
from model.policy import PruningPolicy
from model.teacher import model_inputs, predict
from model.threshold_profiling import profile
from model.tokens import evaluation_batches, tokenize
from model.trained import TrainedModel, task_of

SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of zeros that are asked of each place, by thresholds and by top-k."""

THRESHOLDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Values of one τ for all places, as published."""

PROFILED_TEXTS, PROFILED_BATCH = 512, 64
"""Texts of the training split that thresholds are profiled on, and in which batches."""

FILE_NAME = "sweep.json"
"""Where a model's folder keeps its sweep."""


@dataclass(frozen=True)
class SweepPoint:
    """One way to prune the activations of a trained model.

    Attributes
    ----------
    method
        ``"threshold"``: a profiled threshold a place; ``"one_threshold"``: τ for all places;
        ``"top_k_row"``: the largest magnitudes of each row.
    asked
        The sparsity that was asked of each place, or τ.
    sparsity
        Measured: zeros over all real entries of all that is stored, places that are not pruned
        included.
    accuracy
        Share of correct answers.
    """

    method: str
    asked: float
    sparsity: float
    accuracy: float


def sweep(
    trained: TrainedModel,
    task: Task | None = None,
    sparsities: tuple[float, ...] = SPARSITIES,
    thresholds: tuple[float, ...] = THRESHOLDS,
    progress: Callable[[float], None] | None = None,
) -> tuple[SweepPoint, ...]:
    """Accuracy on the validation split against measured sparsity of activations.

    Thresholds by place are profiled on texts of the training split, each place as the pruning
    before it leaves it. All methods prune at the places at which the model's policy lets
    activations be pruned. The points are kept in the model's folder and given again from there.

    Parameters
    ----------
    trained
        The model; its weights and its own policy stay as they are.
    task
        The one that it was trained on, loaded by name where None.
    sparsities, thresholds
        What is asked: see `SweepPoint`.
    progress
        Called with the share that is done.

    Raises
    ------
    ValueError
        The task is another one, or a sparsity is not at least 0 and below 1.
    """
    for value in sparsities:
        if not 0 <= value < 1:
            raise ValueError(f"sparsities must be at least 0 and below 1, not {value}")
    about: dict[str, Any] = {
        "weights_hash": trained.about["weights_hash"],
        "sparsities": list(sparsities),
        "thresholds": list(thresholds),
        "profiled_texts": PROFILED_TEXTS,
    }
    path = trained.path / FILE_NAME
    if path.is_file() and (kept := json.loads(path.read_text())).items() >= about.items():
        return tuple(SweepPoint(**point) for point in kept["points"])
    opened = task_of(trained, task)
    settings = list(_settings(trained.policy, sparsities, thresholds))
    model = trained.model
    policy, table = model.dynaprop.policy, model.dynaprop.table
    points = []
    try:
        for done, (method, asked, chosen) in enumerate(settings, 1):
            with threads_of_torch(1):  # as in training: the last bits depend on it
                found = _measured(model, chosen, trained, opened)
            points.append(SweepPoint(method, asked, *found))
            if progress is not None:
                progress(done / len(settings))
    finally:
        model.dynaprop.table = None
        model.dynaprop.policy, model.dynaprop.table = policy, table
    write_json(path, {**about, "points": [asdict(point) for point in points]})
    return tuple(points)


def _settings(
    own: PruningPolicy, sparsities: tuple[float, ...], thresholds: tuple[float, ...]
) -> Iterator[tuple[str, float, PruningPolicy]]:
    """Method, what is asked, and the policy that asks for it."""
    places = {"activations_off": own.activations_off, "prune_residual": own.prune_residual}
    for selection in ("threshold", "top_k_row"):
        for value in sparsities:
            density = {"activation_density": 1 - value, "selection": selection}
            yield selection, value, PruningPolicy.load({**places, **density})
    for value in thresholds:
        yield "one_threshold", value, PruningPolicy.load({**places, "activation_threshold": value})


def _measured(
    model: FlexiBertForSequenceClassification,
    policy: PruningPolicy,
    trained: TrainedModel,
    task: Task,
) -> tuple[float, float]:
    """Sparsity of what is stored, and accuracy, under a policy."""
    dynaprop = model.dynaprop
    dynaprop.table = None
    dynaprop.policy = policy
    if policy.needs_table:
        tokens = tokenize(task.train.texts[:PROFILED_TEXTS], trained.sequence_length)
        batches = evaluation_batches(tokens.lengths, PROFILED_BATCH)
        dynaprop.table = profile(model, [model_inputs(tokens, rows) for rows in batches])
    recorder = DensityRecorder(model.design)
    dynaprop.recorder = recorder
    try:
        logits = predict(model, task.validation, trained.sequence_length)
    finally:
        dynaprop.recorder = None
    counts = [c for (_, _, role), c in recorder.counts().items() if role is GemmRole.OUTPUT]
    nonzeros, _, entries = sum(counts[1:], counts[0]).tolist()
    return 1 - nonzeros / entries, float((logits.argmax(1) == task.validation.labels).mean())
