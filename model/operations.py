"""What an encoder runs, operation by operation, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from model.space import LayerDesign, TransformerDesign

MODELLED_HEADS = ("sa_sdp",)
"""Operations of a head for which there is a list of products."""

Extent = int | Literal["sequence"]
"""A number of elements, or the sequence length."""


class GemmRole(StrEnum):
    """What a tensor is to the operation that reads or writes it."""

    INPUT = "INPUT"
    WEIGHT = "WEIGHT"
    LEFT = "LEFT"
    RIGHT = "RIGHT"
    OUTPUT = "OUTPUT"
    GRAD_OUTPUT = "GRAD_OUTPUT"


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one layer.

    Parameters
    ----------
    name : "query", "key", … as in docs/machine.md, section 4
    layer : index of the layer, or None for embedding, pooler and classifier
    kind : what runs it; products go to the lanes, the others work on rows
    heads : heads that run at once; they are part of the b dimension, head slowest
    has_weight : whether the right operand is a weight with a bias
    activation : whether the model's non-linearity follows
    rows : positions of a sequence that are worked on, all ("sequence") or the first ("one")
    inner : length of a dot product, or elements in a row
    outer : results a row of the output has
    reads : tensors read, in the order of `roles`
    writes : tensor written
    """

    name: str
    layer: int | None
    kind: Literal["product", "softmax", "add_norm", "tanh"]
    heads: int
    has_weight: bool
    activation: bool
    rows: Literal["sequence", "one"]
    inner: Extent
    outer: Extent
    reads: tuple[str, ...]
    writes: str

    @property
    def roles(self) -> dict[GemmRole, str]:
        """The tensor that stands in each role; a weight is called `writes` + ".weight"."""
        if self.has_weight:
            return {GemmRole.INPUT: self.reads[0], GemmRole.WEIGHT: f"{self.writes}.weight"}
        if len(self.reads) == 2:
            return {GemmRole.LEFT: self.reads[0], GemmRole.RIGHT: self.reads[1]}
        return {GemmRole.INPUT: self.reads[0]}

    def extents(self, batch: int, sequence: int) -> tuple[int, int, int, int]:
        """Extents (B, I, J, K) of a product, heads in B."""
        if self.kind != "product":
            raise ValueError(f"{self.writes} is no product but {self.kind}; ask for its row_shape")
        return (
            self.heads * batch,
            sequence if self.rows == "sequence" else 1,
            _number(self.outer, sequence),
            _number(self.inner, sequence),
        )

    def row_shape(self, batch: int, sequence: int) -> tuple[int, int]:
        """Rows and elements a row of an operation on rows."""
        if self.kind == "product":
            raise ValueError(
                f"{self.writes} is a product and has no row_shape; ask for its extents"
            )
        if self.kind == "tanh":
            return batch * _number(self.outer, sequence), _number(self.inner, sequence)
        return self.heads * batch * sequence, _number(self.inner, sequence)

    def elements(self, batch: int, sequence: int) -> int:
        """Elements of the tensor that is written."""
        rows = sequence if self.rows == "sequence" else 1
        return self.heads * batch * rows * _number(self.outer, sequence)


Operations = list[Operation]
"""The operations of a model in the order in which they run."""


def _number(extent: Extent, sequence: int) -> int:
    return sequence if extent == "sequence" else extent


def encoder_operations(design: TransformerDesign) -> Operations:
    """List the operations of an encoder whose heads are all sa_sdp."""
    first = design.layers[0].hidden
    made = [
        Operation(
            "embedding",
            None,
            "add_norm",
            1,
            False,
            False,
            "sequence",
            first,
            first,
            ("word_rows", "position_rows"),
            "embedding",
        )
    ]
    for index, layer in enumerate(design.layers):
        made += _layer_operations(index, layer, made[-1].writes)
        following = design.layers[index + 1] if index + 1 < len(design.layers) else layer
        if following.hidden != layer.hidden:
            made.append(
                _linear("projection", index, layer.hidden, following.hidden, made[-1].writes)
            )
    last = design.layers[-1].hidden
    made.append(_linear("pooler", None, last, last, made[-1].writes, rows="one"))
    made.append(
        Operation(
            "pooler_tanh", None, "tanh", 1, False, False, "one", 2, last, ("pooler",), "pooler_tanh"
        )
    )
    made.append(_linear("classifier", None, last, design.labels, "pooler_tanh", rows="one"))
    return made


def _tensor(name: str, layer: int | None) -> str:
    return name if layer is None else f"{layer}.{name}"


def _linear(
    name: str,
    layer: int | None,
    inner: int,
    outer: int,
    reads: str,
    activation: bool = False,
    rows: Literal["sequence", "one"] = "sequence",
) -> Operation:
    return Operation(
        name,
        layer,
        "product",
        1,
        True,
        activation,
        rows,
        inner,
        outer,
        (reads,),
        _tensor(name, layer),
    )


def _layer_operations(index: int, layer: LayerDesign, hidden_state: str) -> Operations:
    hidden, heads, size = layer.hidden, len(layer.heads), layer.head_size

    def norm(name: str, added: str, residual: str) -> Operation:
        return Operation(
            name,
            index,
            "add_norm",
            1,
            False,
            False,
            "sequence",
            hidden,
            hidden,
            (_tensor(added, index), residual),
            _tensor(name, index),
        )

    def attention(
        name: str, kind: Literal["product", "softmax"], inner: Extent, outer: Extent, *reads: str
    ) -> Operation:
        return Operation(
            name,
            index,
            kind,
            heads,
            False,
            False,
            "sequence",
            inner,
            outer,
            tuple(_tensor(read, index) for read in reads),
            _tensor(name, index),
        )

    made = [
        _linear(name, index, hidden, heads * size, hidden_state)
        for name in ("query", "key", "value")
    ]
    made += [
        attention("score", "product", size, "sequence", "query", "key"),
        attention("attention_softmax", "softmax", "sequence", "sequence", "score"),
        attention("context", "product", "sequence", size, "attention_softmax", "value"),
        _linear("attention_output", index, heads * size, hidden, _tensor("context", index)),
        norm("attention_norm", "attention_output", hidden_state),
    ]
    widths = (hidden, *layer.feed_forward, hidden)
    for number in range(len(widths) - 1):
        made.append(
            _linear(
                f"feed_forward_{number}",
                index,
                widths[number],
                widths[number + 1],
                made[-1].writes,
                activation=number < len(widths) - 2,
            )
        )
    made.append(norm("feed_forward_norm", made[-1].name, _tensor("attention_norm", index)))
    return made
