"""The forward pass on integers, through the functions that the hardware is tested against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwgen.design import AcceleratorDesign
from hwgen.fixed_point import FixedPoint, integer_threshold
from model.calibration import Calibration, query_scale
from model.flexibert import FlexiBertForSequenceClassification
from model.integer_pass import IntegerPass, Kept, Look
from model.operations import GemmRole, Operation
from model.recording import Recording
from model.space import operations


@dataclass(frozen=True)
class Accuracy:
    """Share of sequences whose largest logit is the label's."""

    correct: int
    count: int

    @property
    def accuracy(self) -> float:
        """Correct over count."""
        return self.correct / self.count


class QuantizedModel:
    """A model in an accelerator's arithmetic: fixed point, its softmax, GELU and layer norm.

    Order at every stored tensor: round to its exponent, then prune with the integer threshold
    ⌈τ · 2^−exponent⌉. 1/√d is folded into the query weights before they are quantized, and the
    query's threshold is scaled with it. Padded positions are stored as zeros.

    Parameters
    ----------
    model : trained model; its weights and its pruning policy are read once, here
    calibration : exponents
    accelerator : whose widths and non-linearity count

    Raises
    ------
    ValueError
        If the calibration is of another model or of another width, or the accelerator's lanes
        apply another non-linearity than the model.
    """

    def __init__(
        self,
        model: FlexiBertForSequenceClassification,
        calibration: Calibration | str | Path,
        accelerator: AcceleratorDesign | Mapping[str, Any] | str | Path,
    ) -> None:
        self.accelerator = AcceleratorDesign.load(accelerator)
        self.calibration = Calibration.load(calibration)
        self.calibration.check(model)
        self.design = model.design
        self.bits = self.accelerator.bits
        if self.calibration.bits != self.bits:
            raise ValueError(
                f"the calibration is for {self.calibration.bits} bits, not for the accelerator's "
                f"{self.bits}; calibrate with bits={self.bits}"
            )
        if self.accelerator.nonlinearity != self.design.activation:
            raise ValueError(
                f"the model's activation is {self.design.activation}, the accelerator's lanes "
                f"apply {self.accelerator.nonlinearity}; use the same for both"
            )
        self.policy = model.dynaprop.policy
        self._threshold_of = model.dynaprop.threshold
        self.operations = operations(self.design)
        self.exponents = self.calibration.exponents
        self._query_scales = [
            query_scale(model, layer) for layer in range(len(self.design.layers))
        ]
        self.thresholds = {item.writes: self._threshold(item) for item in self.operations}
        self.device = model.device
        self.finer = self._finer_channels()
        self.integers: dict[str, Tensor] = {}
        self.read_parameters(model)

    def _threshold(self, item: Operation) -> int:
        """Integer magnitude below which an operation's result becomes zero."""
        found = self._threshold_of(item.layer, item.name, GemmRole.OUTPUT)
        threshold = found * self.scale(item)
        # Beyond the port's width nothing is left to prune.
        highest = FixedPoint(self.bits, 0, signed=False).maximum
        return min(integer_threshold(threshold, self.exponents[item.writes]), highest)

    def _finer_channels(self) -> dict[str, Tensor]:
        """By how much each output channel's exponent is below its weight's, int64 [outer]."""
        return {
            name: self.exponents[name] - torch.tensor(channels, device=self.device)
            for name, channels in self.calibration.channel_exponents.items()
        }

    def read_parameters(
        self, model: FlexiBertForSequenceClassification, tokens: Tensor | None = None
    ) -> None:
        """Make integers of tables, weights [inner, outer], biases in accumulator units, γ and β.

        Parameters
        ----------
        model : the model of the constructor, or one of the same design with other weights
        tokens : the only rows of the word table that have changed since, or None for all
        """
        made = self.integers

        def quantize(name: str, values: Tensor, exponent: int, bits: int = self.bits) -> None:
            made[name] = FixedPoint(bits, exponent).quantize(values.detach().double())

        words, positions = model.encoder.embeddings.tables()
        if tokens is None:
            quantize("word_rows", words, self.exponents["word_rows"])
        else:
            number = FixedPoint(self.bits, self.exponents["word_rows"])
            made["word_rows"][tokens] = number.quantize(words.detach()[tokens])
        quantize("position_rows", positions, self.exponents["position_rows"])
        for name, norm in model.norms().items():
            quantize(f"{name}.gamma", norm.weight, self.exponents[f"{name}.gamma"])
            quantize(f"{name}.beta", norm.bias, self.exponents[f"{name}.beta"])
        modules = model.products()
        for item in self.operations:
            if not item.has_weight:
                continue
            module, weight = modules[item.writes], f"{item.writes}.weight"
            # A power of two a column makes the exponents of its channels one.
            finer = self.finer.get(weight, torch.zeros((), device=self.device))
            scale = self.scale(item) * 2.0 ** finer.double()
            quantize(weight, module.weight.double().T * scale, self.exponents[weight])
            # A bias is the accumulator's initial value; its width is docs/machine.md's.
            exponent = self.exponents[item.reads[0]] + self.exponents[weight]
            quantize(
                f"{item.writes}.bias",
                module.bias.double() * scale,
                exponent,
                self.accelerator.accumulator_bits - 1,
            )

    def scale(self, item: Operation) -> float:
        """What a result is multiplied by before it is stored: 1/√d of a query, else 1."""
        return self._query_scales[item.layer or 0] if item.name == "query" else 1.0

    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        look: Look | None = None,
    ) -> Tensor:
        """Run sequences; the logits' values as float64 [batch, labels].

        Parameters
        ----------
        input_ids, token_type_ids : int64 [batch, sequence]
        attention_mask : [batch, sequence], not zero at real positions; by default all are real
        look : called with the name of every tensor that is rounded, its integers before pruning,
            and a mask of real entries that broadcasts with them
        """
        made = IntegerPass(self, input_ids, attention_mask, token_type_ids, look=look).run()
        return self.values("classifier", made[:, 0])

    def values(self, name: str, integers: Tensor) -> Tensor:
        """What integers of a tensor stand for, as float64 of the same shape."""
        return FixedPoint(self.bits, self.exponents[name]).dequantize(integers)

    def record(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Recording:
        """Run sequences and keep all operands; parameters as of `logits`.

        Raises
        ------
        ValueError
            If weights have an exponent an output channel: the RTL has one shift for a product.
        """
        if self.finer:
            raise ValueError(
                "what runs in hardware is configured with one shift for a whole product, and this "
                "calibration has an exponent for each output channel of a weight; calibrate "
                "without channels to record"
            )
        keep = Kept()
        run = IntegerPass(self, input_ids, attention_mask, token_type_ids, keep)
        run.run()
        return Recording(
            design_hash=self.calibration.design_hash,
            weights_hash=self.calibration.weights_hash,
            bits=self.bits,
            accumulator_bits=self.accelerator.accumulator_bits,
            valid_mask=run.valid_mask.cpu().numpy(),
            products=tuple(keep.products),
            rows=tuple(keep.rows),
            tensors=keep.tensors,
        )

    def accuracy(self, batches: Iterable[Mapping[str, Tensor]]) -> Accuracy:
        """Classify batches, mappings with input_ids, attention_mask and labels.

        Raises
        ------
        ValueError
            If there are no batches.
        """
        correct = count = 0
        for batch in batches:
            logits = self.logits(
                batch["input_ids"], batch.get("attention_mask"), batch.get("token_type_ids")
            )
            labels = batch["labels"].to(logits.device)
            correct += int((logits.argmax(-1) == labels).sum())
            count += len(labels)
        if not count:
            raise ValueError("accuracy needs at least one batch")
        return Accuracy(correct, count)
