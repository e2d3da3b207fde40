"""A trained model in an accelerator's arithmetic, over a whole split and beside float."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwgen.fixed_point import FixedPoint
from model.data import Split
from model.flexibert import FlexiBertForSequenceClassification
from model.integer_pass import as_the_pass_holds
from model.observation import observed
from model.quantized import QuantizedModel
from model.teacher import model_inputs
from model.tokens import evaluation_batches, tokenize

NO_SHIFT_BY_CHANNEL = (
    "an exponent an output channel takes a shift a column; the RTL's lane is configured with one "
    "shift for a whole product, so no hardware of today computes this"
)
"""What a report says of calibrations by channel."""


@dataclass(frozen=True)
class TensorRates:
    """What rounding did to one tensor, summed over a split.

    Parameters
    ----------
    tensor : name of its exponent, as in Calibration.exponents
    layer : "embedding", the index of a layer, or "classifier" (pooler, tanh and classifier)
    exponent : value = integer · 2^exponent
    values : real entries
    saturated : of these, how many took the smallest or the largest integer, as all do that are
        clipped; none of a softmax, whose probability of 1 is the largest integer
    underflowed : how many are 0 and not 0 in float, both before pruning
    """

    tensor: str
    layer: str
    exponent: int
    values: int
    saturated: int
    underflowed: int


@dataclass(frozen=True)
class LayerRates:
    """Shares over all tensors of a layer, and the tensors with the largest."""

    layer: str
    values: int
    saturated: float
    underflowed: float
    most_saturated: str
    most_underflowed: str


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a model in float and in an accelerator's arithmetic, on the same examples.

    Parameters
    ----------
    split, n : of how many examples of which split
    bits : width of a value
    method, channels : how exponents were chosen (model.calibration.calibrate)
    float_accuracy, accuracy : shares of right answers
    agreement : share of examples with the same answer in both
    lost, gained : examples that are right in float alone, and in integers alone
    tensors : in the order in which they are made, parameters first
    seconds : of both passes
    """

    split: str
    n: int
    bits: int
    method: str
    channels: bool
    float_accuracy: float
    accuracy: float
    agreement: float
    lost: int
    gained: int
    tensors: tuple[TensorRates, ...]
    seconds: float

    @property
    def runs_in_rtl(self) -> bool:
        """Whether today's RTL can be configured to compute this."""
        return not self.channels

    @property
    def layers(self) -> tuple[LayerRates, ...]:
        """Rates by layer."""
        grouped: dict[str, list[TensorRates]] = {}
        for item in self.tensors:
            grouped.setdefault(item.layer, []).append(item)
        return tuple(_layer_rates(layer, items) for layer, items in grouped.items())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain data."""
        plain = asdict(self)
        plain["runs_in_rtl"] = self.runs_in_rtl
        if self.channels:
            plain["why_not_in_rtl"] = NO_SHIFT_BY_CHANNEL
        plain["layers"] = [asdict(layer) for layer in self.layers]
        plain["tensors"] = [asdict(tensor) for tensor in self.tensors]
        return plain


def _layer_rates(layer: str, items: list[TensorRates]) -> LayerRates:
    values = sum(item.values for item in items)
    return LayerRates(
        layer,
        values,
        sum(item.saturated for item in items) / values,
        sum(item.underflowed for item in items) / values,
        max(items, key=lambda item: item.saturated / item.values).tensor,
        max(items, key=lambda item: item.underflowed / item.values).tensor,
    )


def evaluate(
    model: FlexiBertForSequenceClassification,
    quantized: QuantizedModel,
    split: Split,
    sequence_length: int,
    progress: Callable[[float], None] | None = None,
) -> Evaluation:
    """Classify a split in float and through the golden functions of a design's units.

    Parameters
    ----------
    model : in float; runs in evaluation mode, with its pruning
    quantized : the same model in an accelerator's arithmetic
    split, sequence_length : what is classified, and the tokens at which texts are cut
    progress : called with the share that is done

    Raises
    ------
    ValueError
        If the split is empty.
    """
    if not len(split):
        raise ValueError(f"the {split.name} split is empty")
    begun = time.monotonic()
    tokens = tokenize(split.texts, sequence_length)
    rates = _Rates(model, quantized)
    training = model.training
    model.eval()
    right = np.zeros((2, len(split)), bool)
    same = done = 0
    for rows in evaluation_batches(tokens.lengths):
        inputs = model_inputs(tokens, rows)
        with torch.no_grad(), observed(model, rates.expect):
            plain = model(**inputs).logits.argmax(-1).numpy()
        mine = quantized.logits(**inputs, look=rates.look).argmax(-1).numpy()
        same += int((plain == mine).sum())
        right[:, rows] = np.stack([plain, mine]) == split.labels[rows]
        done += len(rows)
        if progress is not None:
            progress(done / len(split))
    model.train(training)
    return Evaluation(
        split=split.name,
        n=len(split),
        bits=quantized.bits,
        method=quantized.calibration.method,
        channels=bool(quantized.calibration.channel_exponents),
        float_accuracy=float(right[0].mean()),
        accuracy=float(right[1].mean()),
        agreement=same / len(split),
        lost=int((right[0] & ~right[1]).sum()),
        gained=int((~right[0] & right[1]).sum()),
        tensors=tuple(rates.result()),
        seconds=time.monotonic() - begun,
    )


class _Rates:
    """Counts what saturates and what underflows."""

    def __init__(
        self, model: FlexiBertForSequenceClassification, quantized: QuantizedModel
    ) -> None:
        self.exponents = quantized.exponents
        self.counts: dict[str, np.ndarray] = {}
        self.floats: dict[str, Tensor] = {}
        self.number = FixedPoint(quantized.bits, 0)
        softmax = {item.writes for item in quantized.operations if item.kind in ("softmax", "tanh")}
        self.unbounded = set(self.exponents) - softmax
        for name, values in _parameters(model):
            self.floats[name] = values
            self.look(name, quantized.integers[name], torch.ones((), dtype=torch.bool))

    def expect(self, name: str, values: Tensor, valid_mask: Tensor | None) -> None:
        """Keep a tensor of the float model in the shape that the integer pass gives it."""
        if name in self.exponents:
            self.floats[name] = as_the_pass_holds(name, values)

    def look(self, name: str, integers: Tensor, valid_mask: Tensor) -> None:
        """Count the integers of a tensor."""
        saturated = 0
        if name in self.unbounded:
            extreme = (integers == self.number.maximum) | (integers == self.number.minimum)
            saturated = int((extreme & valid_mask).sum())
        underflowed = (integers == 0) & (self.floats.pop(name) != 0) & valid_mask
        entries = integers.numel() // valid_mask.numel() * int(valid_mask.sum())
        counts = np.array([entries, saturated, int(underflowed.sum())])
        self.counts[name] = self.counts.get(name, 0) + counts

    def result(self) -> Iterator[TensorRates]:
        """Rates of all tensors."""
        for name, counts in self.counts.items():
            yield TensorRates(name, _layer(name), self.exponents[name], *map(int, counts))


def _parameters(model: FlexiBertForSequenceClassification) -> Iterator[tuple[str, Tensor]]:
    """Parameters that are rounded to the width of a value, in the shape of the integers."""
    yield from zip(("word_rows", "position_rows"), model.encoder.embeddings.tables(), strict=True)
    for name, norm in model.norms().items():
        yield f"{name}.gamma", norm.weight
        yield f"{name}.beta", norm.bias
    for name, module in model.products().items():
        yield f"{name}.weight", module.weight.T


def _layer(name: str) -> str:
    """Layer of a tensor, by its name."""
    first = name.partition(".")[0]
    if first.isdigit():
        return first
    return "classifier" if first in ("pooler", "pooler_tanh", "classifier") else "embedding"
