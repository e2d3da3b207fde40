"""Training of a small model with DynaProp, from projected embeddings and a teacher."""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from model.cache import atomic_path, disk_errors, write_json
from model.calibration import Calibration, calibrate
from model.card import write_trained_card
from model.data import Task, load_task
from model.density import DensityRecorder
from model.exponents import Method
from model.flexibert import (
    FlexiBertConfig,
    FlexiBertForSequenceClassification,
    FlexiBertModel,
)
from model.heads import DepthwiseConvolution, HeadLinear, QueryWeight
from model.loop import Loop, Optimizer, ProgressCallback, threads_of_torch
from model.operations import unmodelled_heads
from model.policy import PruningPolicy
from model.pretrained import projected_embeddings
from model.quiet import quiet
from model.recipe import Recipe
from model.space import TransformerDesign
from model.teacher import (
    PRETRAINED,
    Teacher,
    fast_tokenizer,
    fine_tuned_teacher,
    model_inputs,
    predict,
)
from model.threshold_profiling import ThresholdRefresh
from model.thresholds import thresholds_in_force
from model.tokens import VOCABULARY, evaluation_batches, tokenize, training_batches
from model.trace import SparsityTrace
from model.trained import TrainedModel

TRAINING_VERSION = 4
"""Part of what a training is known by; rises when this file changes what it gives."""

WEIGHT_GAIN = 0.6
"""Standard deviation of new weights times √inputs. BERT's deviation of 0.02 leaves layers of few
inputs so weak at first that thresholds prune most of what they give."""

CALIBRATION_TEXTS = 1024
"""Texts of the training split that exponents are calibrated on."""

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
        Folder of a model of the same layers, such as `model.pretraining.pretrain` saves, whose
        encoder's weights the training starts from.

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
    donor = None if encoder is None else _donor(encoder)
    job = Job(design, task, policy, recipe, seed, threads, trace_at, donor)
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
    teacher = None
    if job.recipe.distillation > 0:
        teacher = fine_tuned_teacher(job.task, progress=progress)
    targets = None if teacher is None else teacher.logits(job.task, progress)
    with threads_of_torch(job.threads):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "inputs.json", job.inputs)
        model = job.initial_model()
        loop = _loop(job, model, targets, folder, progress)
        gradients = _train(loop, job, trunk, folder)
        _finish(loop, job, model, gradients, teacher, folder)
    return TrainedModel.load(folder)


DEFAULT_POLICY = PruningPolicy(activation_threshold=0.01, gradient_threshold=1e-6)
"""Mild thresholds, chosen on the validation split of the movie sentences."""


class Job:
    """What a training is known by."""

    def __init__(
        self,
        design: Any,
        task: Task | str,
        policy: Any,
        recipe: Recipe | None,
        seed: int,
        threads: int | None,
        trace_at: tuple[float, ...] = (),
        donor: FlexiBertModel | None = None,
    ) -> None:
        self.task = load_task(task) if isinstance(task, str) else task
        self.design = TransformerDesign.load(design)
        if not isinstance(design, TransformerDesign):
            self.design = self.design.model_copy(update={"labels": self.task.labels})
        self.policy = DEFAULT_POLICY if policy is None else PruningPolicy.load(policy)
        self.recipe = recipe or Recipe()
        self.seed = seed
        self.threads = threads or 1
        self.trace_at = tuple(sorted(trace_at))
        self.donor = donor
        self._check(donor)
        self.inputs = {
            "design": self.design.model_dump(mode="json"),
            "task": self.task.describe(),
            "policy": self.policy.model_dump(mode="json"),
            "recipe": asdict(self.recipe),
            "seed": seed,
            "threads": self.threads,
            "pretrained": PRETRAINED,
            "training_version": TRAINING_VERSION,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        }
        if self.trace_at:
            self.inputs["trace_at"] = list(self.trace_at)
        if donor is not None:
            self.inputs["encoder"] = donor.weights_hash()

    def initial_model(self) -> FlexiBertForSequenceClassification:
        """The model before the first step."""
        model = initial_model(self.design, self.policy, self.task, self.recipe.dropout, self.seed)
        if self.donor is not None:
            model.encoder.load_state_dict(self.donor.state_dict())
        return model

    def forward(self, model: FlexiBertForSequenceClassification) -> Callable[..., Any]:
        """What gives the logits that are trained on, with the model's parameters."""
        return model

    def calibration(self, model: FlexiBertForSequenceClassification) -> Calibration | None:
        """Exponents that are saved with the trained model, if the accelerator runs it."""
        return None if unmodelled_heads(self.design) else calibrated(model, self.task)

    def _check(self, donor: FlexiBertModel | None) -> None:
        for share in self.trace_at:
            if not 0 <= share < 1:
                raise ValueError(f"trace_at must be at least 0 and below 1, not {share}")
        if self.design.labels != self.task.labels:
            raise ValueError(
                f"labels must be {self.task.labels}, the task's, not {self.design.labels}; change"
                f" the design with model_copy(update={{'labels': {self.task.labels}}})"
            )
        if self.design.vocabulary != VOCABULARY:
            raise ValueError(
                f"vocabulary must be {VOCABULARY}, the tokenizer's, not {self.design.vocabulary}"
            )
        if self.design.max_positions < self.task.sequence_length:
            raise ValueError(
                f"max_positions must be at least the task's sequence_length,"
                f" {self.task.sequence_length}, not {self.design.max_positions}"
            )
        if donor is not None:
            given, own = (d.model_dump(exclude={"labels"}) for d in (donor.design, self.design))
            for key in own:
                if given[key] != own[key]:
                    raise ValueError(
                        f"{key} of the encoder to start from must be the design's, {own[key]}, not"
                        f" {given[key]}; pre-train this design"
                    )

    @property
    def trunk_inputs(self) -> dict[str, Any]:
        """What trainings share up to the fall of the learning rate of the shorter."""
        recipe = asdict(replace(self.recipe, fraction=1.0))
        return {**self.inputs, "recipe": recipe, "part": "trunk"}


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


def _donor(folder: str | Path) -> FlexiBertModel:
    if not (Path(folder) / "model.safetensors").is_file():
        raise ValueError(
            f"{folder} holds no model to start from: it has no model.safetensors; make one with"
            " transcode pretrain"
        )
    with quiet():
        return FlexiBertModel.from_pretrained(folder, local_files_only=True)


def initial_model(
    design: TransformerDesign, policy: PruningPolicy, task: Task, dropout: float, seed: int
) -> FlexiBertForSequenceClassification:
    """A model before its training: projected pretrained embeddings, everything else random.

    The random weights derive from the seed alone; global random numbers are left as they were.
    """
    config = FlexiBertConfig.of(design, policy, hidden_dropout=dropout, attention_dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlexiBertForSequenceClassification(config)
        for module in model.modules():
            if isinstance(module, (nn.Linear, HeadLinear, DepthwiseConvolution)):
                if not isinstance(module, QueryWeight):
                    nn.init.normal_(module.weight, std=WEIGHT_GAIN / module.in_features**0.5)
    tokens = tokenize(task.train.texts, task.sequence_length)
    counts = np.bincount(tokens.ids[tokens.ids > 0], minlength=VOCABULARY)
    tables = projected_embeddings(design.layers[0].hidden, counts)
    embeddings = model.encoder.embeddings
    with torch.no_grad():
        embeddings.word.weight.copy_(tables["word"])
        embeddings.position.weight.copy_(tables["position"][: design.max_positions])
        embeddings.token_type.weight.copy_(tables["type"])
    return model


def distillation_loss(
    logits: Tensor, labels: Tensor, targets: Tensor | None, weight: float, temperature: float
) -> Tensor:
    """Mean loss of a batch: cross-entropy with the labels, and with a teacher's soft answers."""
    hard = nn.functional.cross_entropy(logits, labels)
    if targets is None:
        return hard
    soft = nn.functional.kl_div(
        nn.functional.log_softmax(logits / temperature, -1),
        nn.functional.log_softmax(targets / temperature, -1),
        log_target=True,
        reduction="batchmean",
    )
    return weight * temperature**2 * soft + (1 - weight) * hard


def _loop(
    job: Job,
    model: FlexiBertForSequenceClassification,
    targets: np.ndarray | None,
    folder: Path,
    progress: ProgressCallback | None,
) -> Loop:
    recipe, forward = job.recipe, job.forward(model)
    tokens = tokenize(job.task.train.texts, job.task.sequence_length)
    labels = torch.from_numpy(job.task.train.labels.copy())
    taught = None if targets is None else torch.from_numpy(targets)

    def epoch(number: int) -> list[np.ndarray]:
        rng = np.random.default_rng([job.seed, number])
        return training_batches(tokens.lengths, recipe.batch_size, rng)

    def loss(rows: np.ndarray) -> Tensor:
        logits = forward(**model_inputs(tokens, rows)).logits
        goal = None if taught is None else taught[rows]
        return distillation_loss(
            logits, labels[rows], goal, recipe.distillation, recipe.temperature
        )

    used = np.unique(tokens.ids)
    policy = job.policy
    optimizer = Optimizer(
        model, used, recipe.learning_rate, recipe.weight_decay, recipe.clip,
        policy.parameter_gradient_threshold, policy.movement,
    )  # fmt: skip
    schedule = recipe.schedule(len(epoch(0)))
    profiled = list(evaluation_batches(tokens.lengths[:PROFILED_TEXTS], PROFILED_BATCH))
    thresholds = ThresholdRefresh(model, profiled, loss, recipe.batch_size, job.seed)
    return Loop(
        optimizer, schedule, epoch, loss, job.seed, folder / "checkpoint.safetensors",
        job.inputs, "training the model", progress, thresholds,
    )  # fmt: skip


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
        "teacher": None
        if teacher is None
        else {"key": teacher.key, "validation_accuracy": teacher.validation_accuracy},
    }
    with disk_errors():
        write_trained_card(folder, job.inputs, about)
    write_json(folder / "training.json", about)
    loop.checkpoint.unlink(missing_ok=True)


def calibrated(
    model: FlexiBertForSequenceClassification,
    task: Task,
    bits: int = 20,
    method: Method = "max",
    channels: bool = False,
) -> Calibration:
    """Exponents of all tensors, from texts of the training split; options as of `calibrate`."""
    tokens = tokenize(task.train.texts[:CALIBRATION_TEXTS], task.sequence_length)
    batches = (model_inputs(tokens, rows) for rows in evaluation_batches(tokens.lengths))
    return calibrate(
        model, batches, bits=bits, split="train", method=method, channels=channels
    )


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
