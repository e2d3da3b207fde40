"""The forward pass on integers, through the functions that the hardware is tested against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwgen.design import AcceleratorDesign
from hwgen.fixed_point import FixedPoint, integer_threshold
from hwgen.units.dynatran.golden import prune
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.mac_lane.golden import product
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.softmax.golden import golden as softmax
from model.calibration import Calibration, query_scale
from model.flexibert import FlexiBertForSequenceClassification
from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows, Recording
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


@dataclass
class _Stored:
    """A tensor as it is stored, and as it was before pruning."""

    pruned: Tensor
    computed: Tensor


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
        self.operations = operations(self.design)
        self.exponents = self.calibration.exponents
        self.thresholds = {item.writes: self._threshold(model, item) for item in self.operations}
        self.device = model.device
        self.integers = self._quantize_parameters(model)
        self.saturated: dict[str, int] = {}
        self.counted: dict[str, int] = {}

    def _threshold(self, model: FlexiBertForSequenceClassification, item: Operation) -> int:
        """Integer magnitude below which an operation's result becomes zero."""
        threshold = self.policy.activation(item.layer, item.name)
        if item.name == "query":
            threshold *= query_scale(model, item.layer or 0)
        return integer_threshold(threshold, self.exponents[item.writes])

    def _quantize_parameters(self, model: FlexiBertForSequenceClassification) -> dict[str, Tensor]:
        """Integers of tables, weights [inner, outer], biases in accumulator units, γ and β."""
        made: dict[str, Tensor] = {}

        def quantize(name: str, values: Tensor, exponent: int, bits: int = self.bits) -> None:
            made[name] = FixedPoint(bits, exponent).quantize(values.detach().double())

        tables = model.encoder.embeddings.tables()
        for name, table in zip(("word_rows", "position_rows"), tables, strict=True):
            quantize(name, table, self.exponents[name])
        for name, norm in model.norms().items():
            quantize(f"{name}.gamma", norm.weight, self.exponents[f"{name}.gamma"])
            quantize(f"{name}.beta", norm.bias, self.exponents[f"{name}.beta"])
        modules = model.products()
        for item in self.operations:
            if not item.has_weight:
                continue
            module, weight = modules[item.writes], f"{item.writes}.weight"
            scale = query_scale(model, item.layer or 0) if item.name == "query" else 1.0
            quantize(weight, module.weight.double().T * scale, self.exponents[weight])
            # A bias is the accumulator's initial value; its width is docs/machine.md's.
            exponent = self.exponents[item.reads[0]] + self.exponents[weight]
            quantize(
                f"{item.writes}.bias",
                module.bias.double() * scale,
                exponent,
                self.accelerator.accumulator_bits - 1,
            )
        return made

    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Run sequences; the logits' values as float64 [batch, labels].

        Parameters
        ----------
        input_ids, token_type_ids : int64 [batch, sequence]
        attention_mask : [batch, sequence], not zero at real positions; by default all are real
        """
        made = _Run(self, input_ids, attention_mask, token_type_ids, None).run()
        return FixedPoint(self.bits, self.exponents["classifier"]).dequantize(made[:, 0])

    def record(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Recording:
        """Run sequences and keep all operands; parameters as of `logits`."""
        keep = _Kept([], [], {})
        run = _Run(self, input_ids, attention_mask, token_type_ids, keep)
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

    def saturation(self) -> dict[str, float]:
        """Share of each stored tensor's real entries that took the largest or smallest integer."""
        return {name: self.saturated[name] / count for name, count in self.counted.items()}


@dataclass
class _Kept:
    """What a recording is made of."""

    products: list[RecordedProduct]
    rows: list[RecordedRows]
    tensors: dict[str, np.ndarray]


class _Run:
    """One forward pass; tensors by the name that their operation writes."""

    def __init__(
        self,
        model: QuantizedModel,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        kept: _Kept | None,
    ) -> None:
        self.model = model
        self.input_ids = input_ids.to(model.device)
        ones = torch.ones_like(self.input_ids)
        self.valid_mask = (
            ones != 0 if attention_mask is None else attention_mask.to(model.device) != 0
        )
        self.token_type_ids = (
            0 * ones if token_type_ids is None else token_type_ids.to(model.device)
        )
        self.kept = kept
        self.stored: dict[str, _Stored] = {}
        specs = model.accelerator
        self.lane, self.softmax_spec = specs.mac_lane, specs.softmax
        self.norm_spec, self.add_spec = specs.layer_norm, specs.residual_add

    def run(self) -> Tensor:
        """Run all operations; the classifier's integers [batch, 1, labels]."""
        for item in self.model.operations:
            if item.kind == "product":
                self._product(item)
            elif item.kind == "softmax":
                self._softmax(item)
            elif item.kind == "add_norm":
                self._add_norm(item)
            else:
                self._tanh(item)
        return self.stored["classifier"].pruned

    def _product(self, item: Operation) -> None:
        model, names = self.model, list(item.roles.values())
        if item.has_weight:
            left, right = self._rows(names[0], item), model.integers[names[1]]
            initial: Tensor | None = model.integers[f"{item.writes}.bias"]
        else:
            left, right = (self._heads(name, item) for name in names)
            right = right.transpose(1, 2) if item.name == "score" else right
            initial = None
        exponents = {
            "left": model.exponents[names[0]],
            "right": model.exponents[names[1]],
            "output": model.exponents[item.writes],
        }
        exponents["rounded"] = model.exponents[
            f"{item.writes}.rounded" if item.activation else item.writes
        ]
        shift = exponents["rounded"] - exponents["left"] - exponents["right"]
        value = product(
            left,
            right,
            0 if initial is None else initial,
            shift,
            self.lane,
            activate=item.activation,
            i_exponent=exponents["rounded"],
            o_exponent=exponents["output"],
        )
        valid_mask = self._store(item, value)
        if self.kept is not None:
            self.kept.products.append(
                RecordedProduct(
                    item.layer,
                    item.name,
                    _array(left),
                    _array(right),
                    None if initial is None else _array(initial),
                    shift,
                    item.activation,
                    exponents,
                    model.thresholds[item.writes],
                    valid_mask.expand(value.shape).cpu().numpy(),
                )
            )

    def _softmax(self, item: Operation) -> None:
        x = self.stored[item.reads[0]].pruned
        valid_mask = self._valid(item).expand(x.shape)
        exponent = self.model.exponents[item.reads[0]]
        self._store(item, softmax(x, exponent, self.softmax_spec, valid_mask))
        self._keep_rows(item, x, valid_mask, {"rows": exponent})

    def _tanh(self, item: Operation) -> None:
        """tanh x = softmax(x, −x)₀ − softmax(x, −x)₁."""
        x = self.stored[item.reads[0]].pruned
        exponent = self.model.exponents[item.reads[0]]
        highest = FixedPoint(self.model.bits, 0).maximum
        pair = torch.stack((x, (-x).clamp(max=highest)), -1)
        halves = softmax(pair, exponent, self.softmax_spec)
        own = self.model.exponents[item.writes]
        self._store(
            item, residual_add(halves[..., 0], own, -halves[..., 1], own, own, self.add_spec)
        )
        self._keep_rows(item, pair, torch.ones_like(pair, dtype=torch.bool), {"rows": exponent})

    def _add_norm(self, item: Operation) -> None:
        model = self.model
        if item.name == "embedding":
            left = model.integers["word_rows"][self.input_ids]
            positions = torch.arange(self.input_ids.shape[1], device=model.device)
            right = model.integers["position_rows"][self.token_type_ids, positions]
        else:
            left = self.stored[item.reads[0]].pruned
            residual = self.stored[item.reads[1]]
            right = residual.pruned if model.policy.prune_residual else residual.computed
        exponents = {
            "rows": model.exponents[item.reads[0]],
            "residual": model.exponents[item.reads[1]],
        }
        parts = ("sum", "gamma", "beta")
        exponents |= {part: model.exponents[f"{item.writes}.{part}"] for part in parts}
        gamma, beta = (model.integers[f"{item.writes}.{part}"] for part in parts[1:])
        total = residual_add(
            left, exponents["rows"], right, exponents["residual"], exponents["sum"], self.add_spec
        )
        value = layer_norm(
            total,
            exponents["sum"],
            gamma,
            exponents["gamma"],
            beta,
            exponents["beta"],
            model.exponents[item.writes],
            self.norm_spec,
        )
        valid_mask = self._store(item, value)
        self._keep_rows(item, left, valid_mask.expand(left.shape), exponents, right, gamma, beta)

    def _rows(self, name: str, item: Operation) -> Tensor:
        """Input of a product with a weight, [batch, positions, inner]."""
        values = self.stored[name].pruned
        if name.endswith(".context"):  # heads side by side again
            heads = values.shape[0] // len(self.input_ids)
            values = values.unflatten(0, (heads, -1)).permute(1, 2, 0, 3).flatten(2)
        return values[:, :1] if item.rows == "one" else values

    def _heads(self, name: str, item: Operation) -> Tensor:
        """Operand of score or context, [heads · batch, sequence, width], head slowest."""
        values = self.stored[name].pruned
        if name.endswith(".attention_softmax"):
            return values
        return values.unflatten(2, (item.heads, -1)).permute(2, 0, 1, 3).flatten(0, 1)

    def _valid(self, item: Operation) -> Tensor:
        """Real entries of an operation's result, in a shape that broadcasts with it."""
        if item.rows == "one":
            return torch.ones((1, 1, 1), dtype=torch.bool, device=self.model.device)
        rows = self.valid_mask.repeat(item.heads, 1)
        return rows[:, :, None] & rows[:, None] if item.outer == "sequence" else rows[:, :, None]

    def _store(self, item: Operation, value: Tensor) -> Tensor:
        """Prune and keep an operation's result; its real entries."""
        model, valid_mask = self.model, self._valid(item)
        pruned, _ = prune(value, model.thresholds[item.writes], valid_mask)
        computed = torch.where(valid_mask, value, torch.zeros_like(value))
        self.stored[item.writes] = _Stored(pruned, computed)
        number = FixedPoint(model.bits, 0)
        extreme = ((value == number.maximum) | (value == number.minimum)) & valid_mask
        counts = (
            (model.saturated, int(extreme.sum())),
            (model.counted, int(valid_mask.expand(value.shape).sum())),
        )
        for total, count in counts:
            total[item.writes] = total.get(item.writes, 0) + count
        if self.kept is not None:
            self.kept.tensors[item.writes] = _array(pruned)
        return valid_mask

    def _keep_rows(
        self,
        item: Operation,
        rows: Tensor,
        valid_mask: Tensor,
        exponents: dict[str, int],
        *further: Tensor,
    ) -> None:
        """Record the operands of an operation on rows."""
        if self.kept is None:
            return
        residual, gamma, beta = (_array(value) for value in further) if further else (None,) * 3
        width = rows.shape[-1]
        self.kept.rows.append(
            RecordedRows(
                item.layer,
                item.name,
                item.kind,
                _array(rows).reshape(-1, width),
                valid_mask.cpu().numpy().reshape(-1, width),
                {**exponents, "output": self.model.exponents[item.writes]},
                self.model.thresholds[item.writes],
                None if residual is None else residual.reshape(-1, width),
                gamma,
                beta,
            )
        )


def _array(values: Tensor) -> np.ndarray:
    return values.cpu().numpy()
