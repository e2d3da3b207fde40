"""Which tensors are pruned, and with which threshold: plain data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from hwgen.configuration import Frozen, explain
from model.operations import GemmRole

ACTIVATION_PLACES = (
    "embedding",
    "query",
    "key",
    "value",
    "query_weighted",
    "score",
    "attention_softmax",
    "transform",
    "key_depthwise",
    "key_convolution",
    "kernel_query",
    "kernel",
    "context",
    "attention_output",
    "attention_norm",
    "feed_forward_0",
    "feed_forward_1",
    "feed_forward_2",
    "feed_forward_3",
    "feed_forward_norm",
    "projection",
    "pooler",
    "pooler_tanh",
)
"""Operations whose stored result τ_I is compared with; the logits are not stored, and those of a
dynamic kernel are no operand of a product."""

_NO_PRODUCT = ("embedding", "attention_softmax", "kernel_query", "kernel", "pooler_tanh")

GRADIENT_PLACES = tuple(
    name
    for name in (*ACTIVATION_PLACES, "kernel_logits", "classifier")
    if name not in _NO_PRODUCT and not name.endswith("_norm")
)
"""Products: τ_T is compared with the gradient that enters each."""


class PruningTarget(NamedTuple):
    """What is asked of one tensor.

    Attributes
    ----------
    threshold : τ, where no density is asked for
    density : share of all real entries to keep, zeros by themselves among the others; or None
    """

    threshold: float = 0.0
    density: float | None = None

    def at(self, fraction: float) -> PruningTarget:
        """The target on the way up: this share of the threshold, or of the sparsity."""
        if self.density is None:
            return PruningTarget(self.threshold * fraction)
        return PruningTarget(density=1 - fraction * (1 - self.density))


class Ramp(Frozen):
    """How thresholds and sparsities rise, linearly, from nothing to what the policy asks for.

    Parameters
    ----------
    start : optimiser steps without pruning
    steps : optimiser steps of the rise
    """

    start: int = Field(default=0, ge=0)
    steps: int = Field(ge=1)

    def fraction(self, step: int | None) -> float:
        """Share of the target in a step (from 0); all of it where None, as in inference."""
        return 1.0 if step is None else min(1.0, max(0.0, (step - self.start) / self.steps))


class MovementSchedule(Frozen):
    """Density of weights over a movement pruning: a cubic fall (Sanh et al. 2020, section 4).

    Parameters
    ----------
    density : share of each weight matrix that is kept in the end
    start : optimiser steps before the first weight is pruned, while scores gather
    steps : optimiser steps of the fall
    """

    density: float = Field(gt=0, le=1, strict=False)
    start: int = Field(default=0, ge=0)
    steps: int = Field(ge=1)

    def at(self, step: int) -> float:
        """Density after so many optimiser steps: d + (1 − d) · (1 − t)³, t from 0 to 1."""
        left = 1 - min(1.0, max(0.0, (step - self.start) / self.steps))
        return self.density + (1 - self.density) * left**3


Density = Field(default=None, gt=0, le=1, allow_inf_nan=False, strict=False)


class ThresholdOverride(Frozen):
    """Another threshold or target density for some tensors; one of the two.

    Parameters
    ----------
    threshold : what the magnitude must reach to be kept
    density : share of all real entries to keep
    layer : index of the layer, or None for every place that is in a layer or in none
    operation : name of the operation, or None for all
    role : OUTPUT for activations, GRAD_OUTPUT for gradients
    """

    threshold: float | None = Field(default=None, ge=0, allow_inf_nan=False, strict=False)
    density: float | None = Density
    layer: int | None = Field(default=None, ge=0)
    operation: str | None = None
    role: GemmRole = Field(default=GemmRole.OUTPUT, strict=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.threshold is None) == (self.density is None):
            raise ValueError(
                f"an override has either a threshold or a density, not {self.threshold} and "
                f"{self.density}"
            )
        if self.role not in (GemmRole.OUTPUT, GemmRole.GRAD_OUTPUT):
            raise ValueError(
                f"role must be OUTPUT or GRAD_OUTPUT, not {self.role}: a tensor has one "
                "threshold, applied when it is written"
            )
        if self.operation is not None:
            places = ACTIVATION_PLACES if self.role is GemmRole.OUTPUT else GRADIENT_PLACES
            _check_place(self.operation, places)
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        return {k: v for k, v in made.items() if v is not None or k in ("layer", "operation")}

    @property
    def target(self) -> PruningTarget:
        """What is asked of the tensors that fit."""
        return PruningTarget(self.threshold or 0.0, self.density)


LATER_FIELDS = (
    "activation_density",
    "gradient_density",
    "selection",
    "ramp",
    "refresh_steps",
    "parameter_gradient_threshold",
    "movement",
)
"""Fields that are written only where they are set: what was saved without them stays the same."""


class PruningPolicy(Frozen):
    """What DynaProp prunes: each stored tensor has one threshold, applied once, when it is written.

    A threshold is given, or found in a profiled table (`model.thresholds`) for a density. A target
    density is of all real entries, zeros by themselves included, never of the remaining non-zeros.

    Parameters
    ----------
    activation_threshold : τ_I, of the forward pass in training and inference
    gradient_threshold : τ_T, of the gradient of the mean loss over the global batch, unscaled
    activation_density, gradient_density : target densities, each instead of the threshold
    activations_off : operations whose result is not pruned; scores by default, since what becomes
        zero there still takes part in the softmax
    gradients_off : products whose entering gradient is not pruned
    overrides : other thresholds for some layers, operations and roles; the last that fits counts
    prune_residual : whether the residual branch reads what is stored, or what it was before pruning
    selection : how a target density is met: by "threshold", or for comparison by keeping the k
        largest magnitudes of each row ("top_k_row") or tensor ("top_k_tensor"), in each pass
    ramp : how thresholds and sparsities rise in training; at once where None
    refresh_steps : training steps after which the table is profiled again
    parameter_gradient_threshold : prunes the gradients of parameters after clipping, before the
        optimiser, as the published code does; 0 leaves them
    movement : density of the weights of products in training, by movement pruning
    """

    activation_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False, strict=False)
    gradient_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False, strict=False)
    activations_off: tuple[str, ...] = ("score",)
    gradients_off: tuple[str, ...] = ()
    overrides: tuple[ThresholdOverride, ...] = ()
    prune_residual: bool = True
    activation_density: float | None = Density
    gradient_density: float | None = Density
    selection: Literal["threshold", "top_k_row", "top_k_tensor"] = "threshold"
    ramp: Ramp | None = None
    refresh_steps: int = Field(default=100, ge=1)
    parameter_gradient_threshold: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, strict=False
    )
    movement: MovementSchedule | None = None

    @field_validator("activations_off")
    @classmethod
    def _check_activations(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _check_place(name, ACTIVATION_PLACES)
        return names

    @field_validator("gradients_off")
    @classmethod
    def _check_gradients(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            _check_place(name, GRADIENT_PLACES)
        return names

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind in ("activation", "gradient"):
            threshold = getattr(self, f"{kind}_threshold")
            density = getattr(self, f"{kind}_density")
            if threshold > 0 and density is not None:
                raise ValueError(
                    f"give either {kind}_threshold or {kind}_density, not {threshold} and {density}"
                )
        given = [self.activation_threshold, self.gradient_threshold]
        given += [item.threshold or 0.0 for item in self.overrides]
        if self.selection != "threshold" and max(given) > 0:
            raise ValueError(
                f"{self.selection} keeps a share and knows no threshold, not {max(given)}; give "
                "densities, or selection threshold"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        made: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        unset = {k for k in LATER_FIELDS if getattr(self, k) == fields[k].default}
        return {k: v for k, v in made.items() if k not in unset}

    @classmethod
    def load(cls, source: PruningPolicy | Mapping[str, Any] | None) -> PruningPolicy:
        """Make a policy of a mapping, of itself, or of nothing (which prunes nothing).

        Raises
        ------
        ValueError
            If a key is unknown or a value is outside its range; the message names both.
        """
        if isinstance(source, cls):
            return source
        try:
            return cls.model_validate(source or {})
        except ValidationError as error:
            raise ValueError(f"pruning policy: {explain(error)}") from None

    def target(self, layer: int | None, operation: str, role: GemmRole) -> PruningTarget:
        """What is asked of an operation's result (OUTPUT) or entering gradient (GRAD_OUTPUT)."""
        output = role is GemmRole.OUTPUT
        places, off = (
            (ACTIVATION_PLACES, self.activations_off)
            if output
            else (GRADIENT_PLACES, self.gradients_off)
        )
        if operation in off or operation not in places:
            return PruningTarget()
        found = (
            PruningTarget(self.activation_threshold, self.activation_density)
            if output
            else PruningTarget(self.gradient_threshold, self.gradient_density)
        )
        for item in self.overrides:
            if (
                item.role is role
                and item.layer in (None, layer)
                and item.operation in (None, operation)
            ):
                found = item.target
        return found

    @property
    def needs_table(self) -> bool:
        """Whether some threshold has to be found for a density."""
        densities = [self.activation_density, self.gradient_density]
        densities += [item.density for item in self.overrides]
        return self.selection == "threshold" and any(d is not None for d in densities)

    def activation(self, layer: int | None, operation: str) -> float:
        """Given threshold of an operation's stored result, in full.

        Raises
        ------
        ValueError
            If a density is asked for: the model's table knows the threshold.
        """
        return self._threshold(layer, operation, GemmRole.OUTPUT)

    def gradient(self, layer: int | None, operation: str) -> float:
        """Given threshold of the gradient that enters a product; see `activation`."""
        return self._threshold(layer, operation, GemmRole.GRAD_OUTPUT)

    def _threshold(self, layer: int | None, operation: str, role: GemmRole) -> float:
        found = self.target(layer, operation, role)
        if found.density is not None:
            raise ValueError(
                f"the policy gives {operation} ({role}) no threshold but the density "
                f"{found.density}; ask the model: model.dynaprop.threshold(layer, operation, role)"
            )
        return found.threshold


def _check_place(name: str, places: tuple[str, ...]) -> None:
    if name not in places:
        near = difflib.get_close_matches(name, places, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown place {name!r}; {hint}known: {', '.join(places)}")
