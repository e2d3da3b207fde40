"""Models at a given sparsity, training steps of them, and their times side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertForSequenceClassification
from model.policy import GRADIENT_PLACES
from model.space import TransformerDesign
from model.threshold_profiling import profile

ACTIVATIONS, GRADIENTS = 0.5, 0.9
"""Sparsities that the published simulator assumes."""

Batch = Mapping[str, Tensor]


def make_model(
    design: str | TransformerDesign, device: str, dtype: torch.dtype
) -> FlexiBertForSequenceClassification:
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


def prune_model(
    model: FlexiBertForSequenceClassification,
    batch: Batch,
    off: tuple[str, ...] = (),
    selection: str = "threshold",
) -> None:
    """Let a model prune to ACTIVATIONS and GRADIENTS at all places but those that are off."""
    gradients_off = [name for name in off if name in GRADIENT_PLACES]
    model.set_policy(
        {
            "activation_density": 1 - ACTIVATIONS,
            "gradient_density": 1 - GRADIENTS,
            "activations_off": ["score", *(name for name in off if name != "score")],
            "gradients_off": ["classifier", "pooler", *gradients_off],
            "selection": selection,
        }
    )
    if selection == "threshold":
        model.dynaprop.table = profile(model, [batch], lambda given: model(**given).loss)


class Zeros:
    """A recorder that counts zeros after pruning."""

    def __init__(self) -> None:
        self.counts = {"activations": [0, 0], "gradients": [0, 0]}

    def start(self, valid_mask: Tensor) -> Zeros:
        """Look at every pass."""
        return self

    def count(self, after: Tensor, what: str, mask: Tensor | None) -> None:
        """Count the real entries."""
        after = after.detach() if mask is None else after.detach()[mask.expand(after.shape)]
        self.counts[what][0] += int((after == 0).sum())
        self.counts[what][1] += after.numel()

    def note_activation(
        self, before: Tensor, after: Tensor, layer: Any, operation: str, mask: Any, *rest: Any
    ) -> None:
        """Look at what was stored."""
        if operation not in ("score", "classifier"):
            self.count(after, "activations", mask)

    def note_operand(self, *arguments: Any) -> None:
        """Is stored elsewhere, and counted there."""

    def note_product(self, *arguments: Any) -> None:
        """Is counted when it is stored."""

    def gradient_note(
        self, layer: Any, operation: str, mask: Tensor | None, *rest: Any
    ) -> Callable[[Tensor, Tensor], None]:
        """Look at the gradient that enters a product."""
        return lambda before, after: self.count(after, "gradients", mask)


def sparsities(model: FlexiBertForSequenceClassification, batch: Batch) -> dict[str, float]:
    """Share of zeros of all stored activations, and of the gradients that enter products."""
    recorder = model.dynaprop.recorder = Zeros()
    model(**batch).loss.backward()
    model.dynaprop.recorder = None
    model.zero_grad()
    return {what: zero / every for what, (zero, every) in recorder.counts.items()}


def top_k(values: Tensor, sparsity: float) -> Tensor:
    """Make all but the largest magnitudes of each row zero, with nothing but torch.topk."""
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
