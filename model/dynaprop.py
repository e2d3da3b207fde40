"""DynaProp: pruning of activations and gradients by thresholds, in training and inference."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from model.operations import GemmRole
from model.policy import PruningPolicy, PruningTarget
from model.pruning import Measure, Rule, apply_rule, prune_gradient
from model.top_k import TopK

Place = tuple[int | None, str, GemmRole]
"""Layer (None outside the layers), operation and role of a tensor."""


def tensor_name(layer: int | None, operation: str) -> str:
    """Name of what an operation writes, as in model.space.operations."""
    return operation if layer is None else f"{layer}.{operation}"


class Pass(Protocol):
    """What a recorder keeps of one forward pass and its backward pass."""

    def note_activation(
        self,
        before: Tensor,
        after: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> None:
        """Look at a tensor that is stored, unpruned and pruned."""

    def note_operand(
        self, values: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None = None
    ) -> None:
        """Look at the input of a product that reads part of a stored tensor, or several."""

    def note_product(
        self,
        result: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> None:
        """Look at the result of a product, before its non-linearity."""

    def gradient_note(
        self,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> Callable[[Tensor, Tensor], None] | None:
        """Return what to call with the gradient that enters a product, unpruned and pruned."""


class Recorder(Protocol):
    """Looks on while a model runs."""

    def start(self, valid_mask: Tensor) -> Pass:
        """Begin a pass over sequences whose real positions are given, [batch, sequence]."""


class Table(Protocol):
    """Knows thresholds for densities, as `model.thresholds.ThresholdTable` does."""

    @property
    def places(self) -> Iterable[Place]:
        """Layer, operation and role of the tensors that are known."""

    def threshold(self, layer: int | None, operation: str, role: GemmRole, density: float) -> float:
        """Return τ of a tensor for a density of all its real entries."""


class Profiler(Protocol):
    """Measures magnitudes while a model runs, as `model.threshold_profiling.profile` does."""

    def start(self, valid_mask: Tensor) -> None:
        """Begin a pass over sequences whose real positions are given, [batch, sequence]."""

    def measure(self, layer: int | None, operation: str, role: GemmRole) -> Measure | None:
        """Return what looks at a tensor's values and answers with its rule; None for no place."""


class DynaProp:
    """Applies a policy at the places of a model, and lets a recorder look on.

    Parameters
    ----------
    policy : thresholds and targets
    places : of a model that may be compiled, the tensors that are asked for

    Attributes
    ----------
    policy, table, step : what the thresholds follow from. The table answers where a density is
        asked for; the step (from 0, None outside training) places a training on the policy's ramp.
    gradient_scale : what the gradient is larger by than that of the mean loss over the global
        batch; τ_T is multiplied by it. The product of the loss scale and, under data parallelism
        that averages gradients, the number of processes; accumulation that divides the loss by its
        steps needs none, one that does not multiplies by them.
    recorder : looks on while it is set
    profiler : measures while it is set, and chooses thresholds by what it measures
    rounding : where it is set, called with what is about to be stored and its name, and with a
        product's result and that name + ".rounded"; what it returns takes their place
    """

    def __init__(self, policy: PruningPolicy, places: Iterable[Place] = ()) -> None:
        self._policy = policy
        self._places = tuple(places)
        self._table: Table | None = None
        self._step: int | None = None
        self._rules: dict[Place, Rule] = {}
        self._compiled: dict[Place, int | None] = {}
        self._thresholds = self._at_hand = torch.empty(0, device="cpu")
        self.gradient_scale = 1.0
        self.recorder: Recorder | None = None
        self.profiler: Profiler | None = None
        self.rounding: Callable[[Tensor, str], Tensor] | None = None
        self._pass: Pass | None = None
        self._prepare()

    @property
    def policy(self) -> PruningPolicy:
        """What is asked for."""
        return self._policy

    @policy.setter
    def policy(self, policy: PruningPolicy) -> None:
        self._policy = policy
        self._prepare()

    @property
    def table(self) -> Any:
        """The thresholds for densities, or None."""
        return self._table

    @table.setter
    def table(self, table: Table | None) -> None:
        self._table = table
        self._prepare()

    @property
    def step(self) -> int | None:
        """Training step; None outside training, where the ramp is over."""
        return self._step

    @step.setter
    def step(self, step: int | None) -> None:
        before, self._step = self._fraction, step
        if self._fraction != before:
            self._prepare()

    @property
    def _fraction(self) -> float:
        ramp = self._policy.ramp
        return 1.0 if ramp is None else ramp.fraction(self._step)

    def _prepare(self) -> None:
        """Forget rules; put thresholds where a compiled pass reads them, in one tensor.

        A number would be part of its graph, and so would be which of them are 0 now, the step and
        how many rules are known; with each the graph would be compiled anew.
        """
        self._rules, self._compiled = {}, {}
        if self._policy.selection != "threshold":
            return
        thresholds: list[Any] = []
        for place in self._places:
            threshold, density = self._policy.target(*place)
            if threshold == 0 and density in (None, 1):
                self._compiled[place] = None
            elif density is None or (self._table is not None and place in self._table.places):
                self._compiled[place] = len(thresholds)
                thresholds.append(self.rule(*place))
        # Hugging Face makes models that it loads with another device in force, one without data.
        device = self._thresholds.device
        self._thresholds = torch.tensor(thresholds, dtype=torch.float64, device=device)

    def rule(self, layer: int | None, operation: str, role: GemmRole) -> Rule:
        """How an operation's result (OUTPUT) or entering gradient (GRAD_OUTPUT) is pruned now.

        Raises
        ------
        ValueError
            If a density is asked for and there is no table.
        """
        key = (layer, operation, role)
        if torch.compiler.is_compiling():
            if key not in self._compiled:
                return self._find(layer, operation, role)
            index = self._compiled[key]
            return 0.0 if index is None else self._at_hand[index]
        if key not in self._rules:
            self._rules[key] = self._find(layer, operation, role)
        return self._rules[key]

    def target(self, layer: int | None, operation: str, role: GemmRole) -> PruningTarget:
        """What the policy asks of a tensor at the present place on its ramp."""
        return self._policy.target(layer, operation, role).at(self._fraction)

    def _find(self, layer: int | None, operation: str, role: GemmRole) -> Rule:
        target = self.target(layer, operation, role)
        if target.density is None:
            return target.threshold
        if target.density == 1:
            return 0.0
        if self._policy.selection != "threshold":
            per = "row" if self._policy.selection == "top_k_row" else "tensor"
            return TopK(target.density, per)  # type: ignore[arg-type]  # one of its literals
        if self._table is None:
            raise ValueError(
                f"the policy asks for a density of {target.density} of {operation} ({role}), and "
                "no table gives the threshold; profile the model: model.dynaprop.table = "
                "model.threshold_profiling.profile(model, batches)"
            )
        return self._table.threshold(layer, operation, role, target.density)

    def threshold(self, layer: int | None, operation: str, role: GemmRole) -> float:
        """Threshold in force of an operation's result or entering gradient, unscaled.

        Raises
        ------
        ValueError
            If there is none: top-k prunes there, or a table is missing.
        """
        rule = self.rule(layer, operation, role)
        if isinstance(rule, TopK):
            raise ValueError(
                f"{operation} ({role}) is pruned by top-k of each {rule.per}, which has no "
                'threshold; use selection "threshold"'
            )
        return rule

    def to(self, device: torch.device) -> None:
        """Keep thresholds where the model is: a graph that copies them cannot be one of CUDA's."""
        if device.type != "meta":
            self._thresholds = self._thresholds.to(device)

    @property
    def watched(self) -> bool:
        """Whether something looks at tensors on the way, which all have to be made then."""
        return any(item is not None for item in (self.recorder, self.profiler, self.rounding))

    def start(self, valid_mask: Tensor) -> None:
        """Begin a forward pass over sequences whose real positions are given, [batch, sequence]."""
        self._at_hand = self._thresholds.to(valid_mask.device, non_blocking=True)
        self._pass = None if self.recorder is None else self.recorder.start(valid_mask)
        if self.profiler is not None:
            self.profiler.start(valid_mask)

    def _rule_or_measure(self, layer: int | None, operation: str, role: GemmRole) -> Rule | Measure:
        measure = None
        if self.profiler is not None:
            measure = self.profiler.measure(layer, operation, role)
        return measure or self.rule(layer, operation, role)

    def store(
        self,
        values: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> Tensor:
        """Prune an operation's result as it is written.

        Parameters
        ----------
        values : [batch, positions, width] or, in attention, [batch, heads, positions, width]; in a
            compiled graph also [batch, positions, heads, width]
        layer, operation : the place
        valid_mask : bool, broadcasts with `values`
        members : indices of the layer's heads that `values` has, or empty where it has them all
        """
        values = self._rounded(values, layer, operation)
        rule = self._rule_or_measure(layer, operation, GemmRole.OUTPUT)
        pruned = apply_rule(values, rule, valid_mask)
        if self._pass is not None:
            self._pass.note_activation(values, pruned, layer, operation, valid_mask, members)
        return pruned

    def product(
        self,
        result: Tensor,
        layer: int | None,
        operation: str,
        valid_mask: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> Tensor:
        """Prune the gradient that enters a product, once, before all that reads it.

        Parameters
        ----------
        result : what the product gave, bias included, in the shape of `store`
        layer, operation : the place
        valid_mask : bool, broadcasts with `result`
        members : as of `store`
        """
        rule: Rule | Measure = 0.0
        if result.requires_grad:
            rule = self._rule_or_measure(layer, operation, GemmRole.GRAD_OUTPUT)
        note = None
        if self._pass is not None:
            self._pass.note_product(result, layer, operation, valid_mask, members)
            note = self._pass.gradient_note(layer, operation, valid_mask, members)
        pruned = isinstance(rule, Tensor) or rule != 0
        if (pruned or note is not None) and result.requires_grad:
            scale = self.gradient_scale
            if isinstance(rule, Tensor):
                # Of a compiled graph, whose backward passes take no number that may change.
                rule, scale = rule if scale == 1 else rule * scale, 1.0
            result = prune_gradient(result, rule, scale, valid_mask, note)
        return self._rounded(result, layer, f"{operation}.rounded")

    def _rounded(self, values: Tensor, layer: int | None, operation: str) -> Tensor:
        if self.rounding is None:
            return values
        return self.rounding(values, tensor_name(layer, operation))

    def read(
        self, values: Tensor, layer: int | None, operation: str, valid_mask: Tensor | None = None
    ) -> Tensor:
        """Tell the recorder of a product whose input is part of a stored tensor, or of several.

        Parameters
        ----------
        values, valid_mask : as of `store`; without a mask all of it is real
        layer, operation : the product
        """
        if self._pass is not None:
            self._pass.note_operand(values, layer, operation, valid_mask)
        return values
