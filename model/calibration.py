"""Power-of-two exponents of all tensors of a model, measured on calibration batches."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from hwgen.configuration import Stored
from hwgen.units.activation.table import LARGEST_GAIN
from model.exponents import Distribution, Method, exponent_of, method_of
from model.flexibert import FlexiBertForSequenceClassification
from model.observation import observed
from model.operations import Operation
from model.space import operations

FILE_NAME = "calibration.json"
"""Name of the file beside the weights."""


class Calibration(Stored):
    """The exponent of every tensor that a quantized model stores: value = integer · 2^exponent.

    Parameters
    ----------
    schema_version : version of these fields
    design_hash, weights_hash : the model that was calibrated
    bits : width of a value
    split : where the batches came from
    sequences : how many sequences were seen
    exponents : by the name of the tensor that an operation writes; of its weight (".weight") and,
        where a non-linearity follows, of the rounded sum (".rounded"); of a layer norm's argument
        (".sum"), γ (".gamma") and β (".beta"); of "word_rows" and "position_rows"
    method : how they were chosen: "max", "mse", or the percentage that does not saturate
    channel_exponents : of each output channel of a weight, by the weight's name; empty where a
        weight has one exponent, which is all that today's RTL can run
    """

    kind: ClassVar[str] = "calibration"

    schema_version: Literal[1] = 1
    design_hash: str
    weights_hash: str
    bits: int = Field(ge=4, le=24)
    split: str
    sequences: int = Field(ge=1)
    exponents: dict[str, int]
    method: str = "max"
    channel_exponents: dict[str, Annotated[tuple[int, ...], Field(strict=False)]] = {}

    @classmethod
    def load(cls, source: Calibration | Mapping[str, Any] | str | Path) -> Calibration:
        """Load as every stored object, or from the folder of a model."""
        if isinstance(source, (str, Path)) and Path(source).is_dir():
            source = Path(source) / FILE_NAME
        return super().load(source)

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, to a file or into the folder of a model."""
        path = Path(path)
        path = path / FILE_NAME if path.is_dir() else path
        path.write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")

    def check(self, model: FlexiBertForSequenceClassification) -> None:
        """Check that a model is the one that was calibrated.

        Raises
        ------
        ValueError
            If it has another design or other weights.
        """
        found = (model.design.design_hash, model.weights_hash())
        if found != (self.design_hash, self.weights_hash):
            raise ValueError(
                f"the calibration is of design {self.design_hash} and weights "
                f"{self.weights_hash}, not of {found[0]} and {found[1]}; calibrate this model"
            )


def calibrate(
    model: FlexiBertForSequenceClassification,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    bits: int = 20,
    split: str = "train",
    method: Method = "max",
    channels: bool = False,
) -> Calibration:
    """Give every tensor, weights and activations alike, an exponent.

    A product's result is never finer than its accumulator, and GELU's result not finer than the
    unit allows (hwgen/units/activation).

    Parameters
    ----------
    model : trained model; runs in evaluation mode, with its pruning
    batches : mappings with input_ids, attention_mask and, if used, token_type_ids; real positions
        alone count
    bits : width of a value
    split : name of the split that the batches come from
    method : "max", the smallest exponent that does not saturate; a percentage, the smallest at
        which so many of a tensor's values do not; "mse", the one with the least squared error
    channels : whether each output channel of a weight gets an exponent of its own, at most the
        weight's. For evaluation alone: a lane is configured with one shift for a whole product
        (docs/arithmetic.md), and an exponent a channel takes a shift a column.

    Raises
    ------
    ValueError
        If there are no batches, the model gives numbers that are not finite, or the accelerator
        does not run one of its heads.
    """
    operations(model.design)  # refuses what has no exponents
    method = method_of(method)
    ranges = _Ranges(bits, method, _scales(model))
    sequences = 0
    training = model.training
    model.eval()
    with torch.no_grad(), observed(model, ranges.add):
        for batch in batches:
            kept = ("input_ids", "attention_mask", "token_type_ids")
            made = {name: batch[name].to(model.device) for name in kept if name in batch}
            model(**made)
            sequences += len(made["input_ids"])
    model.train(training)
    if not sequences:
        raise ValueError("calibration needs at least one batch")
    exponents = _exponents(model, ranges)
    return Calibration(
        design_hash=model.design.design_hash,
        weights_hash=model.weights_hash(),
        bits=bits,
        split=split,
        sequences=sequences,
        exponents=exponents,
        method=str(method),
        channel_exponents=_channel_exponents(model, ranges, exponents) if channels else {},
    )


def query_scale(model: FlexiBertForSequenceClassification, layer: int) -> float:
    """1/√d of a layer's heads, which is folded into the query weights."""
    return float(model.design.layers[layer].head_size ** -0.5)


def _scales(model: FlexiBertForSequenceClassification) -> dict[str, float]:
    """What tensors are multiplied by before they are stored, where that is not 1."""
    return {
        f"{layer}.query{part}": query_scale(model, layer)
        for layer in range(len(model.design.layers))
        for part in ("", ".rounded", ".weight")
    }


class _Ranges:
    """Range or distribution of each tensor."""

    def __init__(self, bits: int, method: Method, scales: Mapping[str, float]) -> None:
        self.bits, self.method, self.scales = bits, method, scales
        self.of: dict[str, tuple[float, float]] = {}
        self.distributions: dict[str, Distribution] = {}

    def add(self, name: str, values: Tensor, valid_mask: Tensor | None) -> None:
        if valid_mask is not None:
            values = values[valid_mask.expand(values.shape)]
        low, high = (float(value) for value in values.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name} must be finite to be calibrated, not {low} to {high}")
        before = self.of.get(name, (low, high))
        self.of[name] = (min(before[0], low), max(before[1], high))
        if self.method != "max":
            scaled = values.detach().double() * self.scales.get(name, 1.0)
            self.distributions.setdefault(name, Distribution(self.bits)).add(scaled)

    def exponent(self, name: str) -> int:
        """Exponent of a tensor that was seen."""
        if self.method != "max":
            return self.distributions[name].exponent(self.method)
        scale = self.scales.get(name, 1.0)
        low, high = self.of[name]
        return exponent_of(low * scale, high * scale, self.bits)

    def exponent_of_parameter(self, values: Tensor, name: str = "") -> int:
        """Exponent of a tensor that is at hand."""
        alone = _Ranges(self.bits, self.method, self.scales)
        alone.add(name, values, None)
        return alone.exponent(name)


def _exponents(model: FlexiBertForSequenceClassification, ranges: _Ranges) -> dict[str, int]:
    """Exponents of all tensors, in the order in which they are made."""
    made: dict[str, int] = {}
    measure = ranges.exponent_of_parameter
    words, positions = model.encoder.embeddings.tables()
    made["word_rows"], made["position_rows"] = measure(words), measure(positions)
    products, norms = model.products(), model.norms()
    for item in operations(model.design):
        if item.kind == "product":
            if item.has_weight:
                weight = f"{item.writes}.weight"
                made[weight] = measure(products[item.writes].weight, weight)
            _product_exponents(made, item, ranges)
        elif item.kind == "add_norm":
            norm = norms[item.writes]
            made[f"{item.writes}.gamma"] = measure(norm.weight)
            made[f"{item.writes}.beta"] = measure(norm.bias)
            made[f"{item.writes}.sum"] = ranges.exponent(f"{item.writes}.sum")
            made[item.writes] = ranges.exponent(item.writes)
        else:  # softmax, and tanh as the difference of two of its results
            made[item.writes] = 1 - ranges.bits
    return made


def _product_exponents(made: dict[str, int], item: Operation, ranges: _Ranges) -> None:
    """Add the exponents of a product's rounded sum and of its result."""
    left, right = (made[name] for name in item.roles.values())
    rounded = max(ranges.exponent(f"{item.writes}.rounded"), left + right)
    if not item.activation:
        made[item.writes] = rounded
        return
    made[f"{item.writes}.rounded"] = rounded
    made[item.writes] = max(ranges.exponent(item.writes), rounded - LARGEST_GAIN)


def _channel_exponents(
    model: FlexiBertForSequenceClassification, ranges: _Ranges, exponents: Mapping[str, int]
) -> dict[str, tuple[int, ...]]:
    """Exponents of the output channels of all weights.

    Each is at least so large that the shift, and the bias in units of the accumulator, fit the
    narrowest accumulator that holds the product, 2 · bits + ⌈log2 inner⌉.
    """
    made: dict[str, tuple[int, ...]] = {}
    modules = model.products()
    for item in operations(model.design):
        if not item.has_weight:
            continue
        name, module = f"{item.writes}.weight", modules[item.writes]
        left = exponents[item.reads[0]]
        rounded = exponents[f"{item.writes}.rounded" if item.activation else item.writes]
        width = 2 * ranges.bits + (module.in_features - 1).bit_length()
        scale = ranges.scales.get(name, 1.0)
        made[name] = tuple(
            min(
                exponents[name],
                max(
                    ranges.exponent_of_parameter(column, name),
                    rounded - left - (width - 1),
                    exponent_of(bias, bias, width - 1) - left,
                ),
            )
            for column, bias in zip(
                module.weight, (module.bias.detach().double() * scale).tolist(), strict=True
            )
        )
    return made
