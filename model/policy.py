"""Which tensors are pruned, and with which threshold: plain data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

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


class ThresholdOverride(Frozen):
    """Another threshold for some tensors.

    Parameters
    ----------
    threshold : what the magnitude must reach to be kept
    layer : index of the layer, or None for every place that is in a layer or in none
    operation : name of the operation, or None for all
    role : OUTPUT for activations, GRAD_OUTPUT for gradients
    """

    threshold: float = Field(ge=0, allow_inf_nan=False, strict=False)
    layer: int | None = Field(default=None, ge=0)
    operation: str | None = None
    role: GemmRole = Field(default=GemmRole.OUTPUT, strict=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.role not in (GemmRole.OUTPUT, GemmRole.GRAD_OUTPUT):
            raise ValueError(
                f"role must be OUTPUT or GRAD_OUTPUT, not {self.role}: a tensor has one "
                "threshold, applied when it is written"
            )
        if self.operation is not None:
            places = ACTIVATION_PLACES if self.role is GemmRole.OUTPUT else GRADIENT_PLACES
            _check_place(self.operation, places)
        return self


class PruningPolicy(Frozen):
    """Thresholds of DynaProp: each stored tensor has one, applied once, when it is written.

    Parameters
    ----------
    activation_threshold : τ_I, of the forward pass in training and inference
    gradient_threshold : τ_T, of the gradient of the mean loss over the global batch, unscaled
    activations_off : operations whose result is not pruned; scores by default, since what becomes
        zero there still takes part in the softmax
    gradients_off : products whose entering gradient is not pruned
    overrides : other thresholds for some layers, operations and roles; the last that fits counts
    prune_residual : whether the residual branch reads what is stored, or what it was before pruning
    """

    activation_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False, strict=False)
    gradient_threshold: float = Field(default=0.0, ge=0, allow_inf_nan=False, strict=False)
    activations_off: tuple[str, ...] = ("score",)
    gradients_off: tuple[str, ...] = ()
    overrides: tuple[ThresholdOverride, ...] = ()
    prune_residual: bool = True

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

    def activation(self, layer: int | None, operation: str) -> float:
        """Threshold of an operation's stored result."""
        if operation in self.activations_off or operation not in ACTIVATION_PLACES:
            return 0.0
        return self._threshold(layer, operation, GemmRole.OUTPUT, self.activation_threshold)

    def gradient(self, layer: int | None, operation: str) -> float:
        """Threshold of the gradient that enters a product."""
        if operation in self.gradients_off or operation not in GRADIENT_PLACES:
            return 0.0
        return self._threshold(layer, operation, GemmRole.GRAD_OUTPUT, self.gradient_threshold)

    def _threshold(self, layer: int | None, operation: str, role: GemmRole, usual: float) -> float:
        for item in self.overrides:
            if (
                item.role is role
                and item.layer in (None, layer)
                and item.operation in (None, operation)
            ):
                usual = item.threshold
        return usual


def _check_place(name: str, places: tuple[str, ...]) -> None:
    if name not in places:
        near = difflib.get_close_matches(name, places, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"unknown place {name!r}; {hint}known: {', '.join(places)}")
