"""Models at a given sparsity, training steps of them, and their times side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from model.configuration import FlexiBertConfig
from model.dynaprop import DynaProp
from model.flexibert import FlexiBertForSequenceClassification
from model.policy import GRADIENT_PLACES

ACTIVATIONS, GRADIENTS = 0.5, 0.9
"""Sparsities that the published simulator assumes."""
SAMPLE = 2**20

Batch = Mapping[str, Tensor]


def make_model(design: str, device: str, dtype: torch.dtype) -> FlexiBertForSequenceClassification:
    """Make a model with random weights, in training, without dropout."""
    torch.manual_seed(0)
    config = FlexiBertConfig.of(design, hidden_dropout=0.0, attention_dropout=0.0)
    return FlexiBertForSequenceClassification(config).to(device, dtype).train()


def make_batch(count: int, length: int, device: str, shortest: int | None = None) -> dict[str, Any]:
    """Random sequences, all of a length, or of lengths from the shortest up."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1000, 30000, (count, length), generator=generator)
    lengths = torch.randint(shortest or length, length + 1, (count, 1), generator=generator)
    mask = (torch.arange(length) < lengths).long()
    labels = torch.randint(0, 2, (count,), generator=generator)
    made = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: value.to(device) for name, value in made.items()}


class Quantiles:
    """A recorder that reads the threshold of a sparsity off every tensor of a pass."""

    def __init__(self, activations: float, gradients: float) -> None:
        self.shares = {"OUTPUT": activations, "GRAD_OUTPUT": gradients}
        self.found: dict[tuple[str, str], list[float]] = {}

    def start(self, valid_mask: Tensor) -> Quantiles:
        """Look at every pass."""
        return self

    def look(self, values: Tensor, operation: str, role: str, mask: Tensor | None) -> None:
        """Read the threshold off a sample of the real entries."""
        values = values.detach()
        if mask is not None:
            values = values[mask.expand(values.shape)]
        magnitudes = values.abs().flatten().float()
        magnitudes = magnitudes[:: -(-len(magnitudes) // SAMPLE)]
        found = magnitudes.quantile(self.shares[role]).item()
        self.found.setdefault((operation, role), []).append(found)

    def note_activation(
        self, before: Tensor, after: Tensor, layer: Any, operation: str, mask: Tensor | None
    ) -> None:
        """Look at what was stored."""
        self.look(before, operation, "OUTPUT", mask)

    def note_operand(self, values: Tensor, layer: Any, operation: str) -> None:
        """Is stored elsewhere, and read there."""

    def note_product(self, result: Tensor, layer: Any, operation: str, mask: Any) -> None:
        """Is read when it is stored."""

    def gradient_note(
        self, layer: Any, operation: str, mask: Tensor | None
    ) -> Callable[[Tensor, Tensor], None]:
        """Look at the gradient that enters a product."""
        return lambda before, after: self.look(before, operation, "GRAD_OUTPUT", mask)


def policy_at(
    model: FlexiBertForSequenceClassification,
    batch: Batch,
    activations: float = ACTIVATIONS,
    gradients: float = GRADIENTS,
    off: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Thresholds, one an operation and role, at which a model has these sparsities.

    Pruning moves what comes after it, so they are read three times.
    """
    policy: dict[str, Any] = {}
    off = (*off, "score")
    for _ in range(3):
        recorder = Quantiles(activations, gradients)
        model.dynaprop.recorder = recorder
        model(**batch).loss.backward()
        model.dynaprop.recorder = None
        model.zero_grad()
        overrides = [
            {"operation": operation, "role": role, "threshold": statistics.median(found)}
            for (operation, role), found in recorder.found.items()
            if operation not in off and operation != "classifier"
            if role == "OUTPUT" or operation in GRADIENT_PLACES
        ]
        policy = {
            "overrides": overrides,
            "activations_off": [name for name in off if name != "classifier"],
            "gradients_off": [name for name in off if name in GRADIENT_PLACES],
        }
        model.set_policy(policy)
    return policy


class Zeros(Quantiles):
    """A recorder that counts zeros after pruning."""

    def __init__(self) -> None:
        self.counts = {"OUTPUT": [0, 0], "GRAD_OUTPUT": [0, 0]}

    def start(self, valid_mask: Tensor) -> Zeros:
        """Look at every pass."""
        return self

    def count(self, after: Tensor, role: str, mask: Tensor | None) -> None:
        """Count the real entries."""
        after = after.detach() if mask is None else after.detach()[mask.expand(after.shape)]
        self.counts[role][0] += int((after == 0).sum())
        self.counts[role][1] += after.numel()

    def note_activation(
        self, before: Tensor, after: Tensor, layer: Any, operation: str, mask: Tensor | None
    ) -> None:
        """Look at what was stored."""
        if operation not in ("score", "classifier"):
            self.count(after, "OUTPUT", mask)

    def gradient_note(
        self, layer: Any, operation: str, mask: Tensor | None
    ) -> Callable[[Tensor, Tensor], None]:
        """Look at the gradient that enters a product."""
        return lambda before, after: self.count(after, "GRAD_OUTPUT", mask)


def sparsities(model: FlexiBertForSequenceClassification, batch: Batch) -> dict[str, float]:
    """Share of zeros of all stored activations, and of the gradients that enter products."""
    recorder = model.dynaprop.recorder = Zeros()
    model(**batch).loss.backward()
    model.dynaprop.recorder = None
    model.zero_grad()
    return {role: zero / all_ for role, (zero, all_) in recorder.counts.items()}


class TopK(DynaProp):
    """Keeps the largest of every row, as many as the sparsity leaves, at DynaProp's places."""

    def __init__(self, pruned: DynaProp, sparsity: float) -> None:
        super().__init__(pruned.policy)
        self.sparsity = sparsity

    def store(
        self, values: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None
    ) -> Tensor:
        """Prune an operation\'s result as it is written."""
        if self.policy.activation(layer, operation) == 0:
            return values
        return top_k(values, self.sparsity)


def use_top_k(model: FlexiBertForSequenceClassification, sparsity: float) -> None:
    """Let a model prune by top-k where its policy has a threshold."""
    pruner = TopK(model.dynaprop, sparsity)
    for module in model.modules():
        if hasattr(module, "pruner"):
            module.pruner = pruner


def top_k(values: Tensor, sparsity: float) -> Tensor:
    """Make all but the largest magnitudes of each row zero."""
    kept = values.abs().topk(round(values.shape[-1] * (1 - sparsity)), sorted=False).indices
    return torch.zeros_like(values).scatter_(-1, kept, values.gather(-1, kept))


def alternate(
    runs: Mapping[str, Callable[[], object]],
    rounds: int,
    synchronise: Callable[[], None] = lambda: None,
    warm_up: int = 3,
) -> dict[str, float]:
    """Median seconds of each, run in turn so that what else the machine does meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(warm_up + rounds):
        for name, run in runs.items():
            synchronise()
            begun = time.perf_counter()
            run()
            synchronise()
            if number >= warm_up:
                seconds[name].append(time.perf_counter() - begun)
    return {name: statistics.median(found) for name, found in seconds.items()}
