"""Thresholds for densities: the table that `model.threshold_profiling` makes, saved with a model.

The table holds, for each (layer, operation, role), quantiles of the magnitudes of what is stored
(OUTPUT) and of the gradients that enter products (GRAD_OUTPUT), over all entries of real positions:
zeros by themselves are among them, so a quantile is the threshold for a density of all real
entries. Gradients are those of the mean loss over the global batch, unscaled, whatever the size of
the batches that are profiled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from transformers.utils import cached_file

from hwgen.configuration import Frozen, Stored
from model.dynaprop import DynaProp
from model.operations import GemmRole
from model.space import TransformerDesign

FILE_NAME = "thresholds.json"
"""Where a model's folder holds its table."""

LEVELS = (*(n / 64 for n in range(64)), *(1 - 2.0**-n for n in range(7, 13)), 1.0)
"""Sparsities at which the table holds thresholds, dense where few entries are left; between them
thresholds are interpolated linearly."""


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


class ThresholdTable(Stored):
    """Thresholds for densities, as profiled.

    Parameters
    ----------
    schema_version : version of these fields
    design_hash : architecture that was profiled
    batch_size : sequences in the global batch over whose mean loss gradients are meant
    step : training step before which it was made, None outside training
    rows : one for each (layer, operation, role)
    """

    kind: ClassVar[str] = "table of thresholds"

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

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, a line a row."""
        fields = self.model_dump(mode="json")
        rows = ",\n  ".join(json.dumps(row) for row in fields.pop("rows"))
        Path(path).write_text(f'{json.dumps(fields)[:-1]}, "rows": [\n  {rows}\n]}}\n')


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
