"""Thresholds for densities: a table made by profiling a model, saved with it and refreshed.

The table holds, for each (layer, operation, role), quantiles of the magnitudes of what is stored
(OUTPUT) and of the gradients that enter products (GRAD_OUTPUT), over all entries of real positions:
zeros by themselves are among them, so a quantile is the threshold for a density of all real
entries. Gradients are those of the mean loss over the global batch, unscaled, whatever the size of
the batches that are profiled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor
from transformers.utils import cached_file

from hwgen.configuration import Frozen, explain
from model.dynaprop import DynaProp, Measure, Rule
from model.operations import GemmRole
from model.policy import ACTIVATION_PLACES, GRADIENT_PLACES
from model.space import TransformerDesign

FILE_NAME = "thresholds.json"
"""Where a model's folder holds its table."""

LEVELS = (*(n / 64 for n in range(64)), *(1 - 2.0**-n for n in range(7, 13)), 1.0)
"""Sparsities at which the table holds thresholds, dense where few entries are left; between them
thresholds are interpolated linearly."""

SAMPLE = 1 << 14
"""Entries of a tensor, at most, that are looked at in a pass: at a density of 0.5 its standard
deviation is 0.004 for one pass."""


class ThresholdRow(Frozen):
    """Magnitudes of one tensor before its pruning.

    Parameters
    ----------
    layer : index of the layer, None for embedding, pooler and classifier
    operation : what writes the tensor, or the product that the gradient enters
    role : OUTPUT or GRAD_OUTPUT
    zeros : share that is zero by itself
    thresholds : what share `LEVELS` of all real entries lies below; 0 at 0
    """

    layer: int | None
    operation: str
    role: GemmRole = Field(strict=False)
    zeros: float = Field(ge=0, le=1)
    thresholds: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.thresholds) != len(LEVELS):
            raise ValueError(
                f"thresholds must have {len(LEVELS)} entries, not {len(self.thresholds)}"
            )
        if self.thresholds[0] != 0 or np.any(np.diff(self.thresholds) < 0):
            raise ValueError("thresholds must rise from 0")
        return self

    @property
    def curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Sparsities, from that of zeros by themselves on, and their thresholds."""
        beyond = np.asarray(LEVELS) > self.zeros
        return (
            np.append(self.zeros, np.asarray(LEVELS)[beyond]),
            np.append(0.0, np.asarray(self.thresholds)[beyond]),
        )


class ThresholdTable(Frozen):
    """Thresholds for densities, as profiled.

    Parameters
    ----------
    schema_version : version of these fields
    design_hash : architecture that was profiled
    batch_size : sequences in the global batch over whose mean loss gradients are meant
    step : training step before which it was made, None outside training
    rows : one for each (layer, operation, role)
    """

    schema_version: Literal[1] = 1
    design_hash: str
    batch_size: int = Field(ge=1)
    step: int | None = Field(default=None, ge=0)
    rows: tuple[ThresholdRow, ...]

    @cached_property
    def _by_place(self) -> dict[tuple[int | None, str, GemmRole], ThresholdRow]:
        return {(row.layer, row.operation, row.role): row for row in self.rows}

    @property
    def places(self) -> Iterable[tuple[int | None, str, GemmRole]]:
        """Layer, operation and role of the tensors that are known."""
        return self._by_place

    def row(self, layer: int | None, operation: str, role: GemmRole | str) -> ThresholdRow:
        """Return what is known of a tensor.

        Raises
        ------
        ValueError
            If nothing is.
        """
        try:
            return self._by_place[layer, operation, GemmRole(role)]
        except KeyError:
            where = "" if layer is None else f" of layer {layer}"
            raise ValueError(
                f"the table has no thresholds of {operation}{where} in the role {role}; profile "
                "the model again, with a loss if gradients are wanted"
            ) from None

    def threshold(
        self, layer: int | None, operation: str, role: GemmRole | str, density: float
    ) -> float:
        """Return τ that leaves this share of all real entries; 0 where zeros alone suffice.

        Raises
        ------
        ValueError
            If the density is not above 0 and at most 1, or the tensor is unknown.
        """
        if not 0 < density <= 1:
            raise ValueError(f"density must be above 0 and at most 1, not {density}")
        row = self.row(layer, operation, role)
        return float(np.interp(1 - density, *row.curve))

    def density(
        self, layer: int | None, operation: str, role: GemmRole | str, threshold: float
    ) -> float:
        """Return the share of all real entries that a threshold leaves: how a fixed τ drifts."""
        sparsities, thresholds = self.row(layer, operation, role).curve
        thresholds, first = np.unique(thresholds, return_index=True)  # what equals τ stays
        return 1 - float(np.interp(threshold, thresholds, sparsities[first]))

    def check(self, design: TransformerDesign) -> None:
        """Check that the table is of a model of this design.

        Raises
        ------
        ValueError
            If it is of another one.
        """
        if design.design_hash != self.design_hash:
            raise ValueError(
                f"the thresholds are of design {self.design_hash}, not of {design.design_hash}; "
                "profile this model"
            )

    @classmethod
    def load(cls, source: ThresholdTable | Mapping[str, Any] | str | Path) -> ThresholdTable:
        """Load a table from a JSON file, a mapping, or itself.

        Raises
        ------
        ValueError
            If it is no table, or one of another version; the message names the key.
        FileNotFoundError
            If there is no such file.
        """
        if isinstance(source, cls):
            return source
        data: Any = source
        if isinstance(source, (str, Path)):
            try:
                data = json.loads(Path(source).read_text())
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{source}: not a table of thresholds: {error}") from None
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ValueError(f"table of thresholds: {explain(error)}") from None

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, a line a row."""
        fields = self.model_dump(mode="json")
        rows = ",\n  ".join(json.dumps(row) for row in fields.pop("rows"))
        Path(path).write_text(f'{json.dumps(fields)[:-1]}, "rows": [\n  {rows}\n]}}\n')


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


def thresholds_in_force(model: Any) -> dict[str, float]:
    """Thresholds that a model's table gives now, by tensor and role as a trace names them."""
    dynaprop: DynaProp = model.dynaprop
    if dynaprop.table is None or not dynaprop.policy.needs_table:
        return {}
    return {
        f"{'' if row.layer is None else f'{row.layer}.'}{row.operation}.{row.role}": (
            dynaprop.threshold(row.layer, row.operation, row.role)
        )
        for row in dynaprop.table.rows
    }


class SavesThresholds:
    """Part of a Hugging Face model: its table of thresholds is saved and loaded with it."""

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """Save as Hugging Face does, and thresholds.json where the model has a table."""
        super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        table = self.dynaprop.table  # type: ignore[attr-defined]
        if table is not None and kwargs.get("is_main_process", True):
            table.save(Path(save_directory) / FILE_NAME)

    @classmethod
    def from_pretrained(cls, source: Any, *args: Any, **kwargs: Any) -> Any:
        """Load as Hugging Face does, and thresholds.json where the policy needs a table."""
        made = super().from_pretrained(source, *args, **kwargs)  # type: ignore[misc]
        model = made[0] if isinstance(made, tuple) else made
        if model.dynaprop.policy.needs_table:
            where = ("cache_dir", "local_files_only", "token", "revision", "subfolder")
            try:
                path = cached_file(
                    source, FILE_NAME, **{key: kwargs[key] for key in where if key in kwargs}
                )
            except OSError:  # none was saved; the model says so where one is needed
                return made
            model.dynaprop.table = ThresholdTable.load(path)
            model.dynaprop.table.check(model.design)
        return made
