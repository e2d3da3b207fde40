"""Power-of-two exponents of all tensors of a model, measured on calibration batches."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from hwgen.configuration import Frozen, explain
from hwgen.units.activation.table import LARGEST_GAIN
from model.flexibert import FlexiBertForSequenceClassification
from model.operations import Operation
from model.space import operations

FILE_NAME = "calibration.json"
"""Name of the file beside the weights."""

EXPONENT_RANGE = (-128, 127)
"""What an exponent port of 8 bits holds."""


class Calibration(Frozen):
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
    """

    schema_version: Literal[1] = 1
    design_hash: str
    weights_hash: str
    bits: int = Field(ge=4, le=24)
    split: str
    sequences: int = Field(ge=1)
    exponents: dict[str, int]

    @classmethod
    def load(cls, source: Calibration | str | Path) -> Calibration:
        """Load a calibration from its file, from the folder of a model, or from itself.

        Raises
        ------
        ValueError
            If the file is no calibration; the message names the key.
        FileNotFoundError
            If there is none.
        """
        if isinstance(source, cls):
            return source
        path = Path(source)  # type: ignore[arg-type]  # mypy does not narrow to the other types
        path = path / FILE_NAME if path.is_dir() else path
        try:
            return cls.model_validate(json.loads(path.read_text()))
        except ValidationError as error:
            raise ValueError(f"{path}: {explain(error)}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not a calibration in JSON: {error}") from None

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


def exponent_of(smallest: float, largest: float, bits: int) -> int:
    """Smallest exponent at which neither value saturates, rounded to nearest, ties to even.

    Exponents end at EXPONENT_RANGE.

    Parameters
    ----------
    smallest, largest : the range of a tensor
    bits : width of a value

    Raises
    ------
    ValueError
        If the range is not finite.
    """
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise ValueError(f"the range of a tensor must be finite, not {smallest} to {largest}")
    limit = 1 << (bits - 1)

    def fits(exponent: int) -> bool:
        scale = 2.0**-exponent
        return round(largest * scale) <= limit - 1 and round(smallest * scale) >= -limit

    magnitude = max(abs(smallest), abs(largest))
    if magnitude == 0:
        return 1 - bits
    # frexp gives the power of two above the magnitude, so this is one less than nearly always fits.
    exponent = max(math.frexp(magnitude)[1] - bits, EXPONENT_RANGE[0])
    while exponent < EXPONENT_RANGE[1] and not fits(exponent):
        exponent += 1
    return exponent


def calibrate(
    model: FlexiBertForSequenceClassification,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    bits: int = 20,
    split: str = "train",
) -> Calibration:
    """Give every tensor the smallest exponent that does not saturate.

    A product's result is never finer than its accumulator, and GELU's result not finer than the
    unit allows (hwgen/units/activation).

    Parameters
    ----------
    model : trained model; runs in evaluation mode, with its pruning
    batches : mappings with input_ids, attention_mask and, if used, token_type_ids; real positions
        alone count
    bits : width of a value
    split : name of the split that the batches come from

    Raises
    ------
    ValueError
        If there are no batches, the model gives numbers that are not finite, or the accelerator
        does not run one of its heads.
    """
    operations(model.design)  # refuses what has no exponents
    ranges = _Ranges()
    sequences = 0
    training = model.training
    model.eval()
    with torch.no_grad(), _observed(model, ranges):
        for batch in batches:
            kept = ("input_ids", "attention_mask", "token_type_ids")
            made = {name: batch[name].to(model.device) for name in kept if name in batch}
            model(**made)
            sequences += len(made["input_ids"])
    model.train(training)
    if not sequences:
        raise ValueError("calibration needs at least one batch")
    return Calibration(
        design_hash=model.design.design_hash,
        weights_hash=model.weights_hash(),
        bits=bits,
        split=split,
        sequences=sequences,
        exponents=_exponents(model, ranges, bits),
    )


def query_scale(model: FlexiBertForSequenceClassification, layer: int) -> float:
    """1/√d of a layer's heads, which is folded into the query weights."""
    return float(model.design.layers[layer].head_size ** -0.5)


class _Ranges:
    """Smallest and largest value of each tensor, as a recorder of DynaProp."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[float, float]] = {}
        self.valid_mask = torch.ones((1, 1), dtype=torch.bool)

    def add(self, name: str, values: Tensor, valid_mask: Tensor | None) -> None:
        if valid_mask is not None:
            values = values[valid_mask.expand(values.shape)]
        low, high = (float(value) for value in values.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"{name} must be finite to be calibrated, not {low} to {high}")
        before = self.of.get(name, (low, high))
        self.of[name] = (min(before[0], low), max(before[1], high))

    def start(self, valid_mask: Tensor) -> _Ranges:
        self.valid_mask = valid_mask
        return self

    def note_activation(
        self,
        before: Tensor,
        after: Tensor,
        layer: int | None,
        operation: str,
        valid: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> None:
        self.add(_name(layer, operation), before, valid)

    def note_product(
        self,
        result: Tensor,
        layer: int | None,
        operation: str,
        valid: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> None:
        self.add(f"{_name(layer, operation)}.rounded", result, valid)

    def note_operand(
        self, values: Tensor, layer: int | None, operation: str, valid: Tensor | None = None
    ) -> None:
        """Part of a tensor has no exponent of its own."""

    def gradient_note(
        self,
        layer: int | None,
        operation: str,
        valid: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> Callable[[Tensor, Tensor], None] | None:
        """Inference has no gradients."""

    def note_sum(self, name: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        """Look at a layer norm's argument, as a forward hook."""
        self.add(f"{name}.sum", arguments[0], self.valid_mask.unsqueeze(-1))


@contextmanager
def _observed(model: FlexiBertForSequenceClassification, ranges: _Ranges) -> Iterator[None]:
    """Let the ranges look at a model's tensors and at the sums that its layer norms read."""
    before = model.dynaprop.recorder
    handles = [
        module.register_forward_pre_hook(partial(ranges.note_sum, name))
        for name, module in model.norms().items()
    ]
    model.dynaprop.recorder = ranges
    try:
        yield
    finally:
        model.dynaprop.recorder = before
        for handle in handles:
            handle.remove()


def _name(layer: int | None, operation: str) -> str:
    return operation if layer is None else f"{layer}.{operation}"


def _exponents(
    model: FlexiBertForSequenceClassification, ranges: _Ranges, bits: int
) -> dict[str, int]:
    """Exponents of all tensors, in the order in which they are made."""
    made: dict[str, int] = {}

    def measure(values: Tensor, scale: float = 1.0) -> int:
        low, high = values.detach().double().aminmax()
        return exponent_of(float(low) * scale, float(high) * scale, bits)

    def ranged(name: str, scale: float = 1.0) -> int:
        low, high = ranges.of[name]
        return exponent_of(low * scale, high * scale, bits)

    words, positions = model.encoder.embeddings.tables()
    made["word_rows"], made["position_rows"] = measure(words), measure(positions)
    products, norms = model.products(), model.norms()
    for item in operations(model.design):
        if item.kind == "product":
            scale = query_scale(model, item.layer or 0) if item.name == "query" else 1.0
            if item.has_weight:
                made[f"{item.writes}.weight"] = measure(products[item.writes].weight, scale)
            _product_exponents(made, item, ranged, scale)
        elif item.kind == "add_norm":
            norm = norms[item.writes]
            made[f"{item.writes}.gamma"] = measure(norm.weight)
            made[f"{item.writes}.beta"] = measure(norm.bias)
            made[f"{item.writes}.sum"] = ranged(f"{item.writes}.sum")
            made[item.writes] = ranged(item.writes)
        else:  # softmax, and tanh as the difference of two of its results
            made[item.writes] = 1 - bits
    return made


def _product_exponents(
    made: dict[str, int], item: Operation, ranged: Callable[[str, float], int], scale: float
) -> None:
    """Add the exponents of a product's rounded sum and of its result."""
    left, right = (made[name] for name in item.roles.values())
    rounded = max(ranged(f"{item.writes}.rounded", scale), left + right)
    if not item.activation:
        made[item.writes] = rounded
        return
    made[f"{item.writes}.rounded"] = rounded
    made[item.writes] = max(ranged(item.writes, scale), rounded - LARGEST_GAIN)
