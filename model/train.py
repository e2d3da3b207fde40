"""Training of a small model with DynaProp, from projected embeddings and a teacher."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.cache import atomic_path, disk_errors, write_json
from model.card import write_trained_card
from model.data import Task
from model.density import DensityRecorder
from model.distillation import (
    UNLABELLED,
    distillation_loss,
    further_data,
    hidden_loss,
    transfer_texts,
)
from model.flexibert import FlexiBertForSequenceClassification
from model.job import Job
from model.loop import Loop, Optimizer, ProgressCallback, threads_of_torch
from model.policy import PruningPolicy
from model.quiet import quiet
from model.recipe import Recipe
from model.space import TransformerDesign
from model.teacher import (
    Teacher,
    TeacherRecipe,
    fast_tokenizer,
    fine_tuned_teacher,
    model_inputs,
    predict,
)
from model.threshold_profiling import ThresholdRefresh
from model.thresholds import thresholds_in_force
from model.tokens import Tokens, evaluation_batches, tokenize, training_batches
from model.trace import SparsityTrace
from model.trained import TrainedModel

PROFILED_TEXTS, PROFILED_BATCH = 128, 32
"""Texts of the training split that thresholds for densities are profiled on, and in which batches:
the recipe's size would do as well, since the table is of the global batch whatever is profiled."""

GRADIENT_STEPS = 32
"""The last steps of a training, over which the densities of gradients are measured."""

STAGE_STEPS = 4
"""Steps over which densities are recorded at a stage before."""


def train(
    design: TransformerDesign | dict[str, Any] | str | Path,
    task: Task | str,
    policy: PruningPolicy | dict[str, Any] | None = None,
    recipe: Recipe | None = None,
    seed: int = 0,
    out: str | Path = "model",
    resume: bool = True,
    progress: ProgressCallback | None = None,
    threads: int | None = None,
    start: TrainedModel | str | Path | None = None,
    trace_at: tuple[float, ...] = (),
    encoder: str | Path | None = None,
    device: str = "cpu",
) -> TrainedModel:
    """Train a model and save it with its traces.

    Parameters
    ----------
    design, task
        Names, files or objects. The classifier gets as many outputs as the task has classes; a
        `TransformerDesign` must have that many.
    policy
        Thresholds or target densities of DynaProp; `DEFAULT_POLICY` where None.
    recipe
        How to train; a `Recipe` of default values where None.
    seed
        Of initial weights, of the order of batches and of dropout.
    out
        Folder for the model. A finished one of the same inputs is loaded; an unfinished one is
        taken up at its last checkpoint unless ``resume`` is False.
    progress
        Called after each step.
    threads
        Of PyTorch while training; 1 where None, since results depend on it in their last bits.
    start
        The same training's lower rung (see `Recipe`), whose work is then not repeated.
    trace_at
        Shares of the training, such as (0.0, 0.25, 0.5, 0.75), at which densities are recorded over
        a few steps; the last steps are always. Not with ``start``, which has such steps behind it.
    encoder
        What the encoder's weights start from: ``"minilm"``, the folder of a Hugging Face BERT, or
        that of an encoder which `model.pretraining.pretrain` has saved (see `model.initial`).
    device
        PyTorch's name of the device that trains, such as ``"cuda:1"``. The saved model is the
        same, but for rounding, on each; only a CPU's is the same bit for bit each time.

    Returns
    -------
    TrainedModel
        Bit for bit the same however often it was killed and taken up, and with or without
        ``start``, on one machine with the same versions and threads.

    Raises
    ------
    ValueError
        The folder holds something else, ``start`` is another training, or design and task do
        not fit.
    """
    if trace_at and start is not None:
        raise ValueError("trace_at and start exclude each other; train without start")
    job = Job(design, task, policy, recipe, seed, threads, trace_at, encoder, device)
    return run(job, out, resume, progress, start)


def run(
    job: "Job",
    out: str | Path,
    resume: bool = True,
    progress: ProgressCallback | None = None,
    start: TrainedModel | str | Path | None = None,
) -> TrainedModel:
    """Do a training job; parameters, result and errors as of `train`."""
    folder = Path(out)
    if (finished := _check_folder(folder, job.inputs, resume)) is not None:
        return finished
    trunk = _trunk_of(start, job)
    lessons = _prepare_lessons(job, progress)
    with threads_of_torch(job.threads):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "inputs.json", job.inputs)
        model = job.initial_model().to(job.device)
        loop = _loop(job, model, lessons, folder, progress)
        gradients = _train(loop, job, trunk, folder)
        _finish(loop, job, model, gradients, lessons.teacher, folder)
    return TrainedModel.load(folder)


def _check_folder(folder: Path, inputs: dict[str, Any], resume: bool) -> TrainedModel | None:
    """A finished model of these inputs; None where there is work to do."""
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not (folder / "inputs.json").is_file():
        raise ValueError(f"{folder} exists and holds no model of this program; name another folder")
    found = json.loads((folder / "inputs.json").read_text())
    wanted = json.loads(json.dumps(inputs))
    if found != wanted:
        key = next(k for k in {**found, **wanted} if found.get(k) != wanted.get(k))
        raise ValueError(
            f"{folder} holds a training of another {key}: {found.get(key)}, not"
            f" {wanted.get(key)}; name another folder"
        )
    if (folder / "training.json").is_file():
        return TrainedModel.load(folder)
    if not resume:
        shutil.rmtree(folder)
    return None


def _trunk_of(start: TrainedModel | str | Path | None, job: Job) -> Path | None:
    if start is None:
        return None
    lower = start if isinstance(start, TrainedModel) else TrainedModel.load(start)
    for key in ("design", "policy", "seed", "threads"):
        if lower.inputs[key] != job.inputs[key]:
            raise ValueError(
                f"{lower.path} cannot be continued: its {key} is {lower.inputs[key]}, not"
                f" {job.inputs[key]}"
            )
    trunk = lower.path / "trunk.safetensors"
    return trunk if trunk.exists() else None


@dataclass(frozen=True)
class _Lessons:
    """What a training learns from beside the labels.

    Attributes
    ----------
    further
        Texts without labels, after those of the training split.
    answers
        The teacher's logits of all these texts, float32 (texts, labels).
    """

    further: tuple[str, ...]
    teacher: Teacher | None = None
    answers: np.ndarray | None = None


def _prepare_lessons(job: Job, progress: ProgressCallback | None) -> _Lessons:
    further = transfer_texts(job.task, job.recipe.transfer_texts)
    if job.recipe.distillation == 0:
        return _Lessons(further)
    taught = TeacherRecipe(intermediate_task=job.recipe.intermediate_task)
    teacher = fine_tuned_teacher(job.task, taught, progress, job.device)
    return _Lessons(further, teacher, teacher.logits(job.task, progress, further, job.device))


def _loop(
    job: Job,
    model: FlexiBertForSequenceClassification,
    lessons: _Lessons,
    folder: Path,
    progress: ProgressCallback | None,
) -> Loop:
    recipe = job.recipe
    tokens = tokenize((*job.task.train.texts, *lessons.further), job.task.sequence_length)

    def epoch(number: int) -> list[np.ndarray]:
        rng = np.random.default_rng([job.seed, number])
        return training_batches(tokens.lengths, recipe.batch_size, rng)

    used = np.unique(tokens.ids)
    policy = job.policy
    optimizer = Optimizer(
        model, used, recipe.learning_rate, recipe.weight_decay, recipe.clip,
        policy.parameter_gradient_threshold, policy.movement,
    )  # fmt: skip
    schedule = recipe.schedule(len(epoch(0)))
    loss = _loss(job, model, lessons, tokens)
    profiled = list(evaluation_batches(tokens.lengths[:PROFILED_TEXTS], PROFILED_BATCH))
    thresholds = ThresholdRefresh(model, profiled, loss, recipe.batch_size, job.seed)
    return Loop(
        optimizer, schedule, epoch, loss, job.seed, folder / "checkpoint.safetensors",
        job.inputs, "training the model", progress, thresholds,
    )  # fmt: skip


def _loss(
    job: Job, model: FlexiBertForSequenceClassification, lessons: _Lessons, tokens: Tokens
) -> Callable[[np.ndarray], Tensor]:
    """Mean loss of the texts of these rows; those after the training split have no label."""
    recipe, forward = job.recipe, job.forward(model)
    unlabelled = np.full(len(lessons.further), UNLABELLED)
    labels = torch.from_numpy(np.append(job.task.train.labels, unlabelled)).to(job.device)
    answers, shown = None, None
    if lessons.answers is not None:
        answers = torch.from_numpy(lessons.answers).to(job.device)
    if lessons.teacher is not None and recipe.hidden_distillation > 0:
        shown = lessons.teacher.load().to(job.device)

    def loss(rows: np.ndarray) -> Tensor:
        inputs = model_inputs(tokens, rows, job.device)
        if shown is None:
            made = forward(**inputs)
        else:
            made = forward(**inputs, output_hidden_states=True)
        goal = None if answers is None else answers[rows]
        total = distillation_loss(
            made.logits, labels[rows], goal, recipe.distillation, recipe.temperature
        )
        if shown is None:
            return total
        with torch.no_grad():
            states = shown(**inputs, output_hidden_states=True).hidden_states
        valid = inputs["attention_mask"] != 0
        return total + recipe.hidden_distillation * hidden_loss(made.hidden_states, states, valid)

    return loss


def _train(loop: Loop, job: Job, trunk: Path | None, folder: Path) -> DensityRecorder:
    """Run a training from wherever it stands; the densities of its last steps' gradients."""
    schedule, model = loop.schedule, loop.optimizer.model
    own = folder / "trunk.safetensors"
    measured_from = max(schedule.steps - GRADIENT_STEPS, 0)
    restored = loop.restore(loop.checkpoint, job.inputs, at_most=measured_from)
    for path in (own, trunk):
        if not restored and path is not None:
            restored = loop.restore(path, job.trunk_inputs, at_most=schedule.decay_start)
    if loop.step < schedule.decay_start:
        _run_and_trace(loop, job, schedule.decay_start, folder)
    if job.recipe.fraction < 1 and not own.exists():
        loop.save(own, job.trunk_inputs)
    _run_and_trace(loop, job, measured_from, folder)
    with _recorded(model, job.task.sequence_length) as recorder:
        loop.run(schedule.steps, checkpoints=False)
    return recorder


def _run_and_trace(loop: Loop, job: Job, until: int, folder: Path) -> None:
    """Run up to a step, and record at the stages on the way; none is cut by a checkpoint."""
    for share in job.trace_at:
        begin = round(share * loop.schedule.steps)
        if not loop.step <= begin < until:
            continue
        loop.run(begin)
        model = loop.optimizer.model
        with _recorded(model, job.task.sequence_length) as recorder:
            loop.run(min(begin + STAGE_STEPS, until), checkpoints=False)
        trace = _trace(recorder, model, job, "train", "training", share)
        with atomic_path(folder / f"gradients-{share:.3f}.json") as path:
            trace.save(path)
    loop.run(until)


@contextlib.contextmanager
def _recorded(model: Any, sequence_length: int) -> Iterator[DensityRecorder]:
    recorder = DensityRecorder(model.design)
    model.dynaprop.recorder = recorder
    try:
        yield recorder
    finally:
        model.dynaprop.recorder = None
    recorder.sequence_length = sequence_length


def _finish(
    loop: Loop,
    job: Job,
    model: FlexiBertForSequenceClassification,
    gradients: DensityRecorder,
    teacher: Teacher | None,
    folder: Path,
) -> None:
    """Measure the trained model on the validation split and save everything."""
    task = job.task
    traced = partial(_trace, model=model, job=job)
    traced(gradients, split="train", stage="training").save(folder / "gradients.json")
    if loop.thresholds is not None:
        loop.thresholds.after_training(loop.step)
    model.eval()
    with _recorded(model, task.sequence_length) as recorder:
        logits = predict(model, task.validation, task.sequence_length)
    traced(recorder, split="validation", stage="inference").save(folder / "trace.json")
    model.cpu()
    model.config.id2label = dict(enumerate(task.label_names))
    model.config.label2id = {name: label for label, name in enumerate(task.label_names)}
    with quiet(), disk_errors():
        model.save_pretrained(folder)
        fast_tokenizer(task.sequence_length).save_pretrained(folder)
    if job.recipe.fraction == 1 and (calibration := job.calibration(model)) is not None:
        calibration.save(folder)
    about = {
        "validation_accuracy": float((logits.argmax(1) == task.validation.labels).mean()),
        "validation_n": len(task.validation),
        "epochs": job.recipe.trained_epochs,
        "steps": loop.schedule.steps,
        "seconds": loop.seconds,
        "weights_hash": model.weights_hash(),
        "further_data": further_data(job.recipe.transfer_texts, job.recipe.intermediate_task),
        "teacher": None
        if teacher is None
        else {"key": teacher.key, "validation_accuracy": teacher.validation_accuracy},
    }
    with disk_errors():
        write_trained_card(folder, job.inputs, about)
    write_json(folder / "training.json", about)
    loop.checkpoint.unlink(missing_ok=True)


def _trace(
    recorder: DensityRecorder,
    model: FlexiBertForSequenceClassification,
    job: Job,
    split: str,
    stage: Any,
    training_share: float | None = None,
) -> SparsityTrace:
    weights = {name: module.weight for name, module in model.products().items()}
    return recorder.trace(
        weights,
        job.policy,
        weights_hash=model.weights_hash(),
        task=job.task.name,
        split=split,
        stage=stage,
        training_share=training_share,
        thresholds=thresholds_in_force(model),
    )
