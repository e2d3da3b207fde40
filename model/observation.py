"""Looking at every tensor of a running model that the hardware's arithmetic rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from model.dynaprop import tensor_name
from model.flexibert import FlexiBertForSequenceClassification

Add = Callable[[str, Tensor, Tensor | None], None]
"""Called with a tensor's name, its values and a mask that broadcasts with them, None where all
entries are real."""


@contextmanager
def observed(model: FlexiBertForSequenceClassification, add: Add) -> Iterator[None]:
    """Call `add` with the tensors of a model that runs while the block lasts.

    The names are those of Calibration.exponents: what an operation writes, before pruning;
    ".rounded", what a product gives before its non-linearity; ".sum", the argument of a layer norm.
    """
    observer, before = _Observer(add), model.dynaprop.recorder
    handles = [
        module.register_forward_pre_hook(partial(observer.note_sum, name))
        for name, module in model.norms().items()
    ]
    model.dynaprop.recorder = observer
    try:
        yield
    finally:
        model.dynaprop.recorder = before
        for handle in handles:
            handle.remove()


class _Observer:
    """A recorder of DynaProp that names tensors."""

    def __init__(self, add: Add) -> None:
        self.add = add
        self.valid_mask = torch.ones((1, 1), dtype=torch.bool)

    def start(self, valid_mask: Tensor) -> _Observer:
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
        self.add(tensor_name(layer, operation), before, valid)

    def note_product(
        self,
        result: Tensor,
        layer: int | None,
        operation: str,
        valid: Tensor | None,
        members: tuple[int, ...] = (),
    ) -> None:
        self.add(f"{tensor_name(layer, operation)}.rounded", result, valid)

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
        self.add(f"{name}.sum", arguments[0], self.valid_mask.unsqueeze(-1))
