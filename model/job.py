"""What a training is known by, checked."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from model.calibration import Calibration, calibrate
from model.data import Task, load_task
from model.exponents import Method
from model.flexibert import FlexiBertForSequenceClassification
from model.initial import initial_encoder, initial_model
from model.operations import unmodelled_heads
from model.policy import PruningPolicy
from model.recipe import Recipe
from model.space import TransformerDesign
from model.teacher import PRETRAINED, model_inputs, on_device
from model.tokens import VOCABULARY, evaluation_batches, tokenize

TRAINING_VERSION = 4
"""Part of what a training is known by; rises when its code changes what it gives."""

DEFAULT_POLICY = PruningPolicy(activation_threshold=0.01, gradient_threshold=1e-6)
"""Mild thresholds, chosen on the validation split of the movie sentences."""

CALIBRATION_TEXTS = 1024
"""Texts of the training split that exponents are calibrated on."""


def check_device(device: str) -> None:
    """Refuse what PyTorch cannot train on here.

    Raises
    ------
    ValueError
        PyTorch knows no such device, or this machine has none.
    """
    here = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    try:
        named = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be one of {', '.join(here)}, not {device!r}") from None
    if named.type == "cuda" and not (named.index or 0) < torch.cuda.device_count():
        raise ValueError(f"device must be one of {', '.join(here)}, not {device!r}")


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
        encoder: str | Path | None = None,
        device: str = "cpu",
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
        self.device = device
        self._check()
        self.encoder = (
            None if encoder is None else initial_encoder(encoder, self.design, self.seed)
        )
        self.inputs = {
            "design": self.design.model_dump(mode="json"),
            "task": self.task.describe(),
            "policy": self.policy.model_dump(mode="json"),
            "recipe": self.recipe.describe(),
            "seed": seed,
            "threads": self.threads,
            "pretrained": PRETRAINED,
            "training_version": TRAINING_VERSION,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            **on_device(device),
        }
        if self.trace_at:
            self.inputs["trace_at"] = list(self.trace_at)
        if self.encoder is not None:
            self.inputs["encoder"] = self.encoder.weights_hash()

    def initial_model(self) -> FlexiBertForSequenceClassification:
        """The model before the first step."""
        return initial_model(
            self.design, self.policy, self.task, self.recipe.dropout, self.seed, self.encoder
        )

    def forward(self, model: FlexiBertForSequenceClassification) -> Callable[..., Any]:
        """What gives the logits that are trained on, with the model's parameters."""
        return model

    def calibration(self, model: FlexiBertForSequenceClassification) -> Calibration | None:
        """Exponents that are saved with the trained model, if the accelerator runs it."""
        return None if unmodelled_heads(self.design) else calibrated(model, self.task)

    def _check(self) -> None:
        check_device(self.device)
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

    @property
    def trunk_inputs(self) -> dict[str, Any]:
        """What trainings share up to the fall of the learning rate of the shorter."""
        recipe = replace(self.recipe, fraction=1.0).describe()
        return {**self.inputs, "recipe": recipe, "part": "trunk"}


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
