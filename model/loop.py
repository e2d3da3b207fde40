"""A training loop that a killed process takes up again, bit for bit."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from model.cache import atomic_path
from model.movement import MovementPruning, prune_gradients
from model.policy import MovementSchedule
from model.recipe import Schedule
from model.threshold_profiling import ThresholdRefresh
from model.thresholds import ThresholdTable

CHECKPOINT_SECONDS = 15.0
"""Time between two checkpoints; it changes what a kill costs, never a result."""

CHECKPOINT_COST = 0.75
"""Seconds that a checkpoint may take; the next of one that takes longer is as much later, so that
they never take more than a twentieth of a training."""


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes
    ----------
    phase
        What is being done, such as ``"training the teacher"``.
    fraction
        Share of the phase that is done, 0 to 1.
    seconds_left
        Estimate for the phase, from its steps so far; None before the first.
    step, steps
        Optimiser steps done and in all.
    loss
        Mean over the last steps.
    """

    phase: str
    fraction: float
    seconds_left: float | None
    step: int
    steps: int
    loss: float


ProgressCallback = Callable[[Progress], None]


@contextlib.contextmanager
def threads_of_torch(count: int) -> Iterator[None]:
    """Have PyTorch use so many threads for the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Optimizer:
    """AdamW for dense parameters; for the token embedding, Adam on the rows that a batch uses.

    A batch of 32 texts uses some 500 of 30,522 rows. The others' moments stay as they are (lazy
    Adam), and rows of tokens that the training split lacks keep their initial values for good,
    so checkpoints leave them out. Embedding rows have no weight decay.

    Parameters
    ----------
    model
        Its input embedding's gradient is made sparse.
    rows
        Sorted token ids of the training split.
    learning_rate, weight_decay, clip
        ``clip`` bounds the norm of the gradient of all parameters together.
    gradient_threshold
        Entries of the parameters' gradients below it become zero, after clipping.
    movement
        Prunes the weights of products, if not None.
    """

    betas = (0.9, 0.999)
    epsilon = 1e-8

    def __init__(
        self,
        model: nn.Module,
        rows: np.ndarray,
        learning_rate: float,
        weight_decay: float,
        clip: float,
        gradient_threshold: float = 0.0,
        movement: MovementSchedule | None = None,
    ) -> None:
        self.model = model
        self.gradient_threshold = gradient_threshold
        self.learning_rate = learning_rate
        self.clip = clip
        embedding = model.get_input_embeddings()
        embedding.sparse = True
        self.embedding: Tensor = embedding.weight
        device = self.embedding.device
        self.rows = torch.from_numpy(rows).to(device)
        self.moments = torch.zeros(2, len(rows), self.embedding.shape[1], device=device)
        self.counts = torch.zeros(len(rows), device=device)
        self.place = torch.full((self.embedding.shape[0],), -1, dtype=torch.int64, device=device)
        self.place[self.rows] = torch.arange(len(rows), device=device)
        dense = [(name, p) for name, p in model.named_parameters() if p is not self.embedding]
        self.dense = [p for _, p in dense]
        plain = [p for name, p in dense if p.ndim < 2 or "embedding" in name]
        decayed = [p for name, p in dense if p.ndim >= 2 and "embedding" not in name]
        self.adamw = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            fused=True,
        )
        self.movement = None
        if movement is not None:
            weights = (module.weight for module in model.products().values())
            self.movement = MovementPruning(weights, movement, self.adamw)

    def step(self, factor: float, number: int = 0) -> None:
        """Update all parameters with ``factor`` times the learning rate and drop the gradients.

        Parameters
        ----------
        number
            Of the step (from 0), for the schedule of movement pruning.
        """
        sparse = self.embedding.grad.coalesce()
        gradients = [p.grad for p in self.dense if p.grad is not None]
        norms = torch._foreach_norm([*gradients, sparse.values()])
        norm = float(torch.linalg.vector_norm(torch.stack(norms)))
        scale = min(1.0, self.clip / (norm + 1e-6)) if math.isfinite(norm) else math.nan
        if math.isnan(scale):
            raise FloatingPointError("the gradient is not finite; lower the learning rate")
        if scale < 1.0:
            torch._foreach_mul_(gradients, scale)
        values = sparse.values() * scale
        if self.gradient_threshold > 0:
            prune_gradients(self.dense, self.gradient_threshold)
            values *= values.abs() >= self.gradient_threshold
        if self.movement is not None:
            self.movement.before_optimizer()
        for group in self.adamw.param_groups:
            group["lr"] = self.learning_rate * factor
        self.adamw.step()
        self._step_rows(sparse.indices()[0], values, factor)
        if self.movement is not None:
            self.movement.after_optimizer(number + 1)
        self.adamw.zero_grad(set_to_none=True)
        self.embedding.grad = None

    @torch.no_grad()
    def _step_rows(self, tokens: Tensor, gradient: Tensor, factor: float) -> None:
        rows = self.place[tokens]
        count = self.counts[rows] + 1
        first = torch.lerp(gradient, self.moments[0, rows], self.betas[0])
        second = torch.lerp(gradient.square(), self.moments[1, rows], self.betas[1])
        self.counts[rows], self.moments[0, rows], self.moments[1, rows] = count, first, second
        unbiased = (1 - self.betas[1] ** count).sqrt_()[:, None]
        size = self.learning_rate * factor / (1 - self.betas[0] ** count)[:, None]
        change = first / (second.sqrt_() / unbiased + self.epsilon) * size
        self.embedding.data[tokens] -= change

    def tensors(self) -> dict[str, Tensor]:
        """All that changes in training: parameters and moments, by name."""
        kept = {
            f"parameter.{name}": p.detach()
            for name, p in self.model.named_parameters()
            if p is not self.embedding
        }
        kept["embedding.rows"] = self.embedding.detach()[self.rows]
        kept["embedding.moments"] = self.moments
        kept["embedding.counts"] = self.counts
        for index, state in self.adamw.state_dict()["state"].items():
            kept |= {f"adamw.{index}.{key}": value for key, value in state.items()}
        return kept

    def load(self, kept: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave, into a model initialised alike."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if parameter is not self.embedding:
                    parameter.copy_(kept[f"parameter.{name}"])
            self.embedding[self.rows] = kept["embedding.rows"].to(self.embedding.device)
        self.moments.copy_(kept["embedding.moments"])
        self.counts.copy_(kept["embedding.counts"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in kept.items():
            if name.startswith("adamw."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        groups = self.adamw.state_dict()["param_groups"]
        self.adamw.load_state_dict({"state": state, "param_groups": groups})


class Steps(Protocol):
    """What a loop asks of an optimiser."""

    model: nn.Module

    def step(self, factor: float, number: int) -> None:
        """Update the parameters with ``factor`` times the learning rate; drop the gradients.

        Parameters
        ----------
        number
            Of the step (from 0), for what changes over a training.
        """

    def tensors(self) -> dict[str, Tensor]:
        """All that changes in training, by name."""

    def load(self, kept: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave."""


@dataclass
class Loop:
    """Steps of an optimiser over epochs of batches.

    Attributes
    ----------
    optimizer, schedule
        The model is the optimiser's.
    epoch
        Gives the batches of an epoch (from 0), the same ones each time it is asked.
    loss
        Mean loss of a batch.
    seed
        What dropout's random numbers derive from, with the step's number: a step depends on
        nothing but the state before it.
    checkpoint
        File that holds the state; its metadata holds the step and ``identity``.
    identity
        The inputs of the training, which tell its checkpoints from another's.
    thresholds
        Asked before each step; its table is saved with the state.
    """

    optimizer: Steps
    schedule: Schedule
    epoch: Callable[[int], list[np.ndarray]]
    loss: Callable[[np.ndarray], Tensor]
    seed: int
    checkpoint: Path
    identity: Mapping[str, Any]
    phase: str
    progress: ProgressCallback | None = None
    thresholds: ThresholdRefresh | None = None
    step: int = 0
    seconds: float = 0.0

    def restore(self, path: Path, identity: Mapping[str, Any], at_most: int) -> bool:
        """Take up a whole checkpoint of this identity of at most so many steps, if there is one."""
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["transcode"])
                if about["identity"] != json.loads(json.dumps(identity)):
                    return False
                if about["step"] > at_most:
                    return False
                kept = {name: file.get_tensor(name) for name in file.keys()}
        except (FileNotFoundError, SafetensorError):  # there is none, or not all of it
            return False
        self.optimizer.load(kept)
        self.step, self.seconds = about["step"], about["seconds"]
        if "thresholds" in about:
            self.optimizer.model.dynaprop.table = ThresholdTable.load(about["thresholds"])
        return True

    def save(self, path: Path, identity: Mapping[str, Any]) -> None:
        """Write a checkpoint, whole or not at all."""
        about = {"identity": identity, "step": self.step, "seconds": self.seconds}
        if self.thresholds is not None and (table := self.optimizer.model.dynaprop.table):
            about["thresholds"] = table.model_dump(mode="json")
        tensors = {name: t.contiguous() for name, t in self.optimizer.tensors().items()}
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata={"transcode": json.dumps(about)})

    def run(self, until: int, checkpoints: bool = True) -> None:
        """Train up to a step, with a checkpoint from time to time."""
        self.optimizer.model.train()
        batches: list[np.ndarray] = []
        epoch = -1
        per_epoch = len(self.epoch(0))
        begun, begun_step = time.monotonic(), self.step
        before, saved, patience = self.seconds, begun, CHECKPOINT_SECONDS
        recent: list[float] = []
        device = next(self.optimizer.model.parameters()).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            while self.step < until:
                if self.step // per_epoch != epoch:
                    epoch = self.step // per_epoch
                    batches = self.epoch(epoch)
                if self.thresholds is not None:
                    self.thresholds.before_step(self.step)
                torch.manual_seed(
                    np.random.SeedSequence([self.seed, self.step]).generate_state(1)[0]
                )
                loss = self.loss(batches[self.step % per_epoch])
                loss.backward()
                self.optimizer.step(self.schedule.factor(self.step), self.step)
                self.step += 1
                now = time.monotonic()
                self.seconds = before + now - begun
                recent = [*recent[-19:], loss.item()]
                if checkpoints and now - saved >= patience and self.step < until:
                    self.save(self.checkpoint, self.identity)
                    saved = time.monotonic()
                    patience = CHECKPOINT_SECONDS * max(1.0, (saved - now) / CHECKPOINT_COST)
                self._report((now - begun) / (self.step - begun_step), recent)

    def _report(self, seconds_a_step: float, recent: list[float]) -> None:
        if self.progress is not None:
            steps = self.schedule.steps
            left = (steps - self.step) * seconds_a_step
            mean = sum(recent) / len(recent)
            fraction = self.step / steps
            self.progress(Progress(self.phase, fraction, left, self.step, steps, mean))
