"""Profiling a model for its table of thresholds, before a training and on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.dynaprop import DynaProp
from model.operations import GemmRole
from model.policy import ACTIVATION_PLACES, GRADIENT_PLACES
from model.pruning import Measure, Rule
from model.thresholds import LEVELS, ThresholdRow, ThresholdTable

SAMPLE = 1 << 14
"""Entries of a tensor, at most, that are looked at in a pass: at a density of 0.5 its standard
deviation is 0.004 for one pass."""


class _Magnitudes:
    """Samples of one tensor's magnitudes over passes, each weighted by what it stands for."""

    def __init__(self) -> None:
        self.samples: list[np.ndarray] = []
        self.weights: list[float] = []

    def add(self, sample: np.ndarray, entries: int) -> None:
        self.samples.append(sample)
        self.weights.append(entries / len(sample))

    def row(self, layer: int | None, operation: str, role: GemmRole) -> ThresholdRow:
        values = np.concatenate(self.samples)
        weights = np.repeat(self.weights, [len(sample) for sample in self.samples])
        order = values.argsort(kind="stable")
        values, reached = values[order], weights[order].cumsum()
        zeros = float(reached[np.count_nonzero(values == 0) - 1]) if values[0] == 0 else 0.0
        # The entry that has this share of all below it; the smallest is never pruned.
        places = np.searchsorted(reached, np.multiply(LEVELS, reached[-1]), side="right")
        found = values[places.clip(max=len(values) - 1)]
        return ThresholdRow(
            layer=layer,
            operation=operation,
            role=role,
            zeros=zeros / float(reached[-1]),
            thresholds=(0.0, *found[1:].tolist()),
        )


class _Profiler:
    """Measures what a model computes, and prunes by what it measures in the same pass."""

    def __init__(self, dynaprop: DynaProp, seed: int) -> None:
        self.dynaprop = dynaprop
        self.rng = np.random.default_rng(seed)
        self.places: dict[tuple[int | None, str, GemmRole], _Magnitudes] = {}
        self.sequences = 0

    def start(self, valid_mask: Tensor) -> None:
        """Begin a pass over sequences whose real positions are given, [batch, sequence]."""
        self.sequences = len(valid_mask)

    def measure(self, layer: int | None, operation: str, role: GemmRole) -> Measure | None:
        """Return what looks at a tensor's values and answers with its rule; None for no place."""
        places = ACTIVATION_PLACES if role is GemmRole.OUTPUT else GRADIENT_PLACES
        if operation not in places:
            return None
        return partial(self._look, (layer, operation, role))

    def _look(
        self,
        key: tuple[int | None, str, GemmRole],
        values: Tensor,
        valid_mask: Tensor | None,
    ) -> Rule:
        sample, entries = self._sample(values.detach(), valid_mask)
        scale = self.dynaprop.gradient_scale if key[2] is GemmRole.GRAD_OUTPUT else 1.0
        sample /= scale
        self.places.setdefault(key, _Magnitudes()).add(sample, entries)
        target = self.dynaprop.target(*key)
        if target.density is None or self.dynaprop.policy.selection != "threshold":
            return self.dynaprop.rule(*key)
        place = int((1 - target.density) * len(sample) + 1e-9)
        return float(np.partition(sample, place)[place])

    def _sample(self, values: Tensor, valid_mask: Tensor | None) -> tuple[np.ndarray, int]:
        """Magnitudes at real entries, at most SAMPLE of them, and how many there are."""
        mask = torch.ones((), device=values.device) if valid_mask is None else valid_mask
        entries = int(mask.sum()) * (values.numel() // mask.numel())
        mask = mask.expand(values.shape)
        if entries <= SAMPLE:
            chosen = values[mask != 0]
        else:  # draw from all entries, and leave those that are not real
            draws = round(1.1 * SAMPLE * values.numel() / entries)
            places = np.unravel_index(self.rng.integers(values.numel(), size=draws), values.shape)
            drawn = tuple(torch.from_numpy(axis).to(values.device) for axis in places)
            chosen = values[drawn][mask[drawn] != 0][:SAMPLE]
        wide = torch.float64 if chosen.dtype == torch.float64 else torch.float32
        return chosen.abs().to("cpu", wide).numpy().copy(), entries

    def rows(self) -> tuple[ThresholdRow, ...]:
        """Return what was measured."""
        return tuple(found.row(*key) for key, found in self.places.items())


def profile(
    model: Any,
    batches: Iterable[Any],
    loss: Callable[[Any], Tensor] | None = None,
    *,
    batch_size: int | None = None,
    seed: int = 0,
) -> ThresholdTable:
    """Make the table of a model's thresholds from calibration data.

    Each pass prunes as the policy asks, at its present place on the ramp: to a density by what is
    measured in this pass, so that tensors are seen as the pruning before them leaves them. The
    model's mode (dropout or none) is left as it is. Neither parameters, their gradients nor global
    random numbers change, and the result depends on nothing but the arguments.

    Parameters
    ----------
    model : a FlexiBERT model
    batches : calibration data, from the training split; mappings of the model's inputs, or
        whatever `loss` takes
    loss : mean loss of a batch; without one no gradients are measured
    batch_size : sequences in the global batch of the training; the first batch's where None
    seed : of what is sampled, and of dropout
    """
    dynaprop: DynaProp = model.dynaprop
    profiler = _Profiler(dynaprop, seed)
    parameters = [p for p in model.parameters() if p.requires_grad]
    devices = [model.device] if model.device.type == "cuda" else []
    recorder, dynaprop.recorder, dynaprop.profiler = dynaprop.recorder, None, profiler
    try:
        # What measures cannot be compiled; a compiled encoder runs as it is written meanwhile.
        with torch.random.fork_rng(devices=devices), torch.compiler.set_stance("force_eager"):
            torch.manual_seed(seed)
            for batch in batches:
                with torch.set_grad_enabled(loss is not None):
                    made = model(**batch) if loss is None else loss(batch)
                batch_size = batch_size or profiler.sequences
                if loss is not None:
                    share = profiler.sequences / batch_size * dynaprop.gradient_scale
                    # Not backward(), which would add to gradients and wake what waits for them.
                    torch.autograd.grad(made * share, parameters, allow_unused=True)
    finally:
        dynaprop.recorder, dynaprop.profiler = recorder, None
    if batch_size is None:
        raise ValueError("there is nothing to profile: batches is empty")
    return ThresholdTable(
        design_hash=model.design.design_hash,
        batch_size=batch_size,
        step=dynaprop.step,
        rows=profiler.rows(),
    )


class ThresholdRefresh:
    """Keeps a training on its policy: its place on the ramp, and a table that is not too old.

    Parameters
    ----------
    model : a FlexiBERT model
    batches : calibration data
    loss : mean loss of a batch
    batch_size : sequences in the global batch
    seed : of sampling and dropout, with the step
    """

    def __init__(
        self,
        model: Any,
        batches: list[Any],
        loss: Callable[[Any], Tensor],
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.batches = batches
        self.loss = loss
        self.batch_size = batch_size
        self.seed = seed

    def before_step(self, step: int) -> bool:
        """Prepare a training step (from 0); whether a new table was made."""
        dynaprop: DynaProp = self.model.dynaprop
        dynaprop.step = step
        if not dynaprop.policy.needs_table:
            return False
        if dynaprop.table is not None and step % dynaprop.policy.refresh_steps:
            return False
        self._refresh(step)
        return True

    def after_training(self, step: int) -> None:
        """Leave the ramp, and make the table that is saved: of the model in evaluation mode."""
        self.model.dynaprop.step = None
        if self.model.dynaprop.policy.needs_table:
            training = self.model.training
            self.model.eval()
            self._refresh(step)
            self.model.train(training)

    def _refresh(self, step: int) -> None:
        seed = int(np.random.SeedSequence([self.seed, step]).generate_state(1)[0])
        self.model.dynaprop.table = profile(
            self.model, self.batches, self.loss, batch_size=self.batch_size, seed=seed
        )
