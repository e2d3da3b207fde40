"""Fine-tuning in the hardware's arithmetic: forward on integers, backward straight through."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.modeling_outputs import SequenceClassifierOutput

from hwgen.design import AcceleratorDesign
from hwgen.fixed_point import FixedPoint
from model.calibration import Calibration
from model.data import Task
from model.exponents import Method
from model.flexibert import FlexiBertForSequenceClassification
from model.integer_pass import IntegerPass, as_the_model_holds
from model.job import Job, calibrated
from model.loop import ProgressCallback, threads_of_torch
from model.quantized import QuantizedModel
from model.recipe import Recipe
from model.train import run
from model.trained import TrainedModel, task_of


class QuantizationAwareModel:
    """A model that is called in an accelerator's arithmetic and has gradients.

    Every tensor that the integer pass rounds takes the place of its counterpart in the float model
    as it runs: results, sums before a non-linearity, arguments of layer norms, weights, biases, γ
    and β. So what a call returns are the integer pass's own logits, bit for bit, and the gradient
    is that of the float operations at the integers' values, straight through each rounding, 0 where
    it clips (Bengio et al., arXiv:1308.3432). Exponents stay as they are.

    Parameters
    ----------
    model : whose parameters get gradients; they are read anew in every call
    calibration, accelerator : as of QuantizedModel
    """

    def __init__(
        self,
        model: FlexiBertForSequenceClassification,
        calibration: Calibration,
        accelerator: AcceleratorDesign | Mapping[str, Any] | str | Path,
    ) -> None:
        self.model = model
        self.quantized = QuantizedModel(model, calibration, accelerator)
        self.items = {item.writes: item for item in self.quantized.operations}
        self.names = {id(value): name for name, value in model.named_parameters()}

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Run sequences; parameters as of FlexiBertForSequenceClassification."""
        integers: dict[str, Tensor] = {}

        def look(name: str, values: Tensor, valid_mask: Tensor) -> None:
            # What the float model computes at padding has no meaning either; it stays finite.
            integers[name] = torch.where(valid_mask, values, torch.zeros_like(values))

        with torch.no_grad():
            self.quantized.read_parameters(self.model, input_ids.unique())
            IntegerPass(
                self.quantized, input_ids, attention_mask, token_type_ids, look=look
            ).run()
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        with self._rounding(integers):
            return functional_call(self.model, self._parameters(), (), inputs)

    @contextmanager
    def _rounding(self, integers: Mapping[str, Tensor]) -> Iterator[None]:
        """Put integers in the place of what the float model computes, while the block lasts."""

        def round_(values: Tensor, name: str) -> Tensor:
            if name not in integers:
                return values
            unit = self._unit(name)
            rounded = as_the_model_holds(name, integers[name], values).double() * unit
            return self._straight_through(values, rounded, unit)

        def round_sum(name: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> Tensor:
            return round_(arguments[0], f"{name}.sum")

        handles = [
            module.register_forward_pre_hook(partial(round_sum, name))
            for name, module in self.model.norms().items()
        ]
        self.model.dynaprop.rounding = round_
        try:
            yield
        finally:
            self.model.dynaprop.rounding = None
            for handle in handles:
                handle.remove()

    def _parameters(self) -> dict[str, Tensor]:
        """Rounded parameters, by their names in the model."""
        made: dict[str, Tensor] = {}
        for name, norm in self.model.norms().items():
            for part, value in (("gamma", norm.weight), ("beta", norm.bias)):
                unit = self._unit(f"{name}.{part}")
                rounded = self.quantized.integers[f"{name}.{part}"].double() * unit
                made[self.names[id(value)]] = self._straight_through(value, rounded, unit)
        for writes, module in self.model.products().items():
            name = f"{writes}.weight"
            units = module.bias.detach().new_full(
                module.bias.shape, self._unit(name), dtype=torch.float64
            )
            if name in self.quantized.finer:
                units = units * 2.0 ** -self.quantized.finer[name].double()
            rounded = self.quantized.integers[name].T * units[:, None]
            made[self.names[id(module.weight)]] = self._straight_through(
                module.weight, rounded, units[:, None]
            )
            units = units * 2.0 ** self.quantized.exponents[self.items[writes].reads[0]]
            made[self.names[id(module.bias)]] = self._straight_through(
                module.bias,
                self.quantized.integers[f"{writes}.bias"] * units,
                units,
                self.quantized.accelerator.accumulator_bits - 1,
            )
        return made

    def _unit(self, name: str) -> float:
        """Value of an integer 1 of a tensor in the float model, where queries are not scaled."""
        item = self.items.get(name.removesuffix(".rounded").removesuffix(".weight"))
        scale = 1.0 if item is None else self.quantized.scale(item)
        return float(2.0 ** self.quantized.exponents[name] / scale)

    def _straight_through(
        self, values: Tensor, rounded: Tensor, unit: float | Tensor, bits: int | None = None
    ) -> Tensor:
        number = FixedPoint(bits or self.quantized.bits, 0)
        low, high = (number.minimum - 0.5) * unit, (number.maximum + 0.5) * unit
        inside = (values >= low) & (values <= high)
        return _StraightThrough.apply(values, rounded.to(values.dtype), inside)


class _StraightThrough(torch.autograd.Function):
    """What was rounded forward; backward the gradient of what it was before, where not clipped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rounded: Tensor, inside: Tensor) -> Tensor:
        ctx.save_for_backward(inside)
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


def fine_tune(
    trained: TrainedModel | str | Path,
    accelerator: AcceleratorDesign | Mapping[str, Any] | str | Path,
    out: str | Path,
    *,
    recipe: Recipe | None = None,
    method: Method = "max",
    channels: bool = False,
    task: Task | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: ProgressCallback | None = None,
    threads: int | None = None,
) -> TrainedModel:
    """Train a trained model on in an accelerator's arithmetic, and save it with its exponents.

    Parameters
    ----------
    trained
        Where it starts; its task, thresholds and teacher are kept.
    accelerator
        Whose arithmetic.
    out
        Folder for the model. A finished one of the same inputs is loaded; an unfinished one is
        taken up at its last checkpoint unless ``resume`` is False.
    recipe
        How to train; `fine_tuning_recipe` where None.
    method, channels
        How exponents are chosen, once, before the first step (`model.calibration.calibrate`).
    task, seed, progress, threads
        As of `model.train.train`; the task that it was trained on where None.

    Raises
    ------
    ValueError
        The folder holds something else, the task is another, or the accelerator applies another
        non-linearity.
    """
    loaded = trained if isinstance(trained, TrainedModel) else TrainedModel.load(trained)
    job = _FineTuning(
        loaded,
        task_of(loaded, task),
        AcceleratorDesign.load(accelerator),
        recipe or fine_tuning_recipe(loaded.recipe),
        method,
        channels,
        seed,
        threads,
    )
    return run(job, out, resume, progress)


def fine_tuning_recipe(recipe: Recipe, epochs: float = 1.0) -> Recipe:
    """A training's recipe for going on from its end: a tenth of its rate, falling all the time."""
    return replace(
        recipe,
        epochs=epochs,
        fraction=1.0,
        learning_rate=recipe.learning_rate / 10,
        warmup_epochs=0.0,
        decay=1.0,
        dropout=0.0,
        hidden_distillation=0.0,  # the integer pass tells no hidden states
    )


class _FineTuning(Job):
    """A training that starts from a trained model and runs in an accelerator's arithmetic."""

    def __init__(
        self,
        trained: TrainedModel,
        task: Task,
        accelerator: AcceleratorDesign,
        recipe: Recipe,
        method: Method,
        channels: bool,
        seed: int,
        threads: int | None,
    ) -> None:
        if recipe.dropout:
            raise ValueError(
                f"dropout must be 0 in an accelerator's arithmetic, which has none, not "
                f"{recipe.dropout}"
            )
        super().__init__(trained.design, task, trained.policy, recipe, seed, threads)
        self.start, self.accelerator = trained, accelerator
        with threads_of_torch(self.threads):
            self.exponents = calibrated(trained.model, task, accelerator.bits, method, channels)
        self.inputs["fine_tuning"] = {
            "accelerator": accelerator.model_dump(mode="json"),
            "calibration": self.exponents.model_dump(mode="json"),
        }

    def initial_model(self) -> FlexiBertForSequenceClassification:
        model = copy.deepcopy(self.start.model)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        return model

    def forward(self, model: FlexiBertForSequenceClassification) -> QuantizationAwareModel:
        return QuantizationAwareModel(model, self.exponents, self.accelerator)

    def calibration(self, model: FlexiBertForSequenceClassification) -> Calibration:
        return self.exponents.model_copy(update={"weights_hash": model.weights_hash()})
