"""One forward pass on integers, operation by operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hwgen.fixed_point import FixedPoint
from hwgen.units.dynatran.golden import prune
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.mac_lane.golden import finish, product
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.softmax.golden import golden as softmax
from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows

if TYPE_CHECKING:
    from model.quantized import QuantizedModel


@dataclass
class _Stored:
    """A tensor as it is stored, and as it was before pruning."""

    pruned: Tensor
    computed: Tensor


@dataclass
class Kept:
    """What a recording is made of."""

    products: list[RecordedProduct] = field(default_factory=list)
    rows: list[RecordedRows] = field(default_factory=list)
    tensors: dict[str, np.ndarray] = field(default_factory=dict)


Look = Callable[[str, Tensor, Tensor], None]
"""Called with the name of a tensor's exponent, its integers before pruning, and a mask of real
entries that broadcasts with them."""


BY_A_WEIGHT = ("query", "key", "value")
"""Operations whose result the float model splits into heads at once."""


class IntegerPass:
    """One forward pass; tensors by the name that their operation writes.

    Parameters
    ----------
    model : what runs
    input_ids, attention_mask, token_type_ids : as of QuantizedModel.logits
    kept : where operands are recorded
    look : called with everything that is rounded, in the order in which it is made: what products,
        row operations and their parts, the sum before a non-linearity and the argument of a layer
        norm, give
    """

    def __init__(
        self,
        model: QuantizedModel,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        kept: Kept | None = None,
        look: Look | None = None,
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
        self.kept, self.look = kept, look
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
        finer = model.finer.get(names[1])
        value = product(
            left,
            right,
            0 if initial is None else initial,
            shift if finer is None else shift + finer,
            self.lane,
        )
        if item.activation:  # as the lane does in one go, with a look at what stands between
            self._look(f"{item.writes}.rounded", value, self._valid(item))
            value = finish(
                value,
                0,
                self.lane,
                activate=1,
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
        self._look(f"{item.writes}.sum", total, self._valid(item))
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
        self._look(item.writes, value, valid_mask)
        if self.kept is not None:
            self.kept.tensors[item.writes] = _array(pruned)
        return valid_mask

    def _look(self, name: str, value: Tensor, valid_mask: Tensor) -> None:
        if self.look is not None:
            self.look(name, value, valid_mask)

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


def as_the_pass_holds(name: str, values: Tensor) -> Tensor:
    """A tensor of the float model in the shape that the integer pass gives it.

    [batch, heads, positions, width] becomes [batch, positions, heads · width] where a weight made
    it, else [heads · batch, positions, width], head slowest; other shapes stay.
    """
    if values.ndim != 4:
        return values
    if name.endswith(BY_A_WEIGHT):
        return values.transpose(1, 2).flatten(2)
    return values.transpose(0, 1).flatten(0, 1)


def as_the_model_holds(name: str, integers: Tensor, like: Tensor) -> Tensor:
    """The inverse: a tensor of the integer pass in the shape of the float model's, `like`."""
    if like.ndim != 4:
        return integers
    if name.endswith(BY_A_WEIGHT):
        return integers.unflatten(2, (like.shape[1], -1)).transpose(1, 2)
    return integers.unflatten(0, (like.shape[1], -1)).transpose(0, 1)
