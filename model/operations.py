"""What an encoder runs, operation by operation, as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from model.space import LayerDesign, TransformerDesign

MODELLED_HEADS = ("sa_sdp",)
"""Operations of a head that the accelerator runs and ELECTOR has a cost for."""

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


Kind = Literal[
    "product",
    "softmax",
    "add_norm",
    "tanh",
    "transform",
    "convolution",
    "multiply",
    "concatenate",
]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of one layer.

    Parameters
    ----------
    name : "query", "key", … as in docs/machine.md, section 4, and docs/heads.md for other heads
    layer : index of the layer, or None for embedding, pooler and classifier
    kind : what runs it; products go to the lanes, the others work on rows. Kinds of heads that
        the accelerator does not run: "transform" (a product with a fixed matrix), "convolution"
        (a product with a window of each position), "multiply" (entry by entry) and
        "concatenate" (heads side by side)
    heads : heads that run at once; they are part of the b dimension, head slowest
    has_weight : whether the right operand is a weight with a bias
    activation : whether the model's non-linearity follows
    rows : positions of a sequence that are worked on, all ("sequence") or the first ("one")
    inner : length of a dot product, or elements in a row
    outer : results a row of the output has
    reads : tensors read, in the order of `roles`
    writes : tensor written
    members : indices of the layer's heads that run it; empty where it is all of them, or where
        the tensor has no heads
    sums : dot products of length `inner` that a result is the sum of
    """

    name: str
    layer: int | None
    kind: Kind
    heads: int
    has_weight: bool
    activation: bool
    rows: Literal["sequence", "one"]
    inner: Extent
    outer: Extent
    reads: tuple[str, ...]
    writes: str
    members: tuple[int, ...] = ()
    sums: int = 1

    @property
    def roles(self) -> dict[GemmRole, str]:
        """The tensor that stands in each role; a weight is called `writes` + ".weight"."""
        if self.kind == "concatenate":
            return {}
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

    @property
    def parameters(self) -> int:
        """Number of trained parameters."""
        if self.kind == "add_norm":
            return 2 * _number(self.outer, 0)
        if not self.has_weight:
            return 0
        bias = 0 if self.name in WITHOUT_BIAS else 1
        return self.heads * (_number(self.inner, 0) + bias) * _number(self.outer, 0)


Operations = list[Operation]
"""The operations of a model in the order in which they run."""


def _number(extent: Extent, sequence: int) -> int:
    return sequence if extent == "sequence" else extent


def unmodelled_heads(design: TransformerDesign) -> list[str]:
    """Say which heads the accelerator does not run: "l_dft in layer 1", …."""
    return [
        f"{head} in layer {index}"
        for index, layer in enumerate(design.layers)
        for head in layer.heads
        if head not in MODELLED_HEADS
    ]


def encoder_operations(design: TransformerDesign) -> Operations:
    """List the operations of an encoder, of whatever its heads are."""
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

    made, context = _head_operations(index, layer, hidden_state)
    made += [
        _linear("attention_output", index, heads * size, hidden, context),
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


HEAD_WEIGHTS = ("query_weighted", "key_depthwise", "key_convolution", "kernel_logits")
"""Operations with a weight of each head."""

WITHOUT_BIAS = ("query_weighted", "key_depthwise")
"""Those of them that add no bias."""

Step = tuple[str, Kind, Extent, Extent, tuple[str, ...]]
"""Name, kind, inner and outer extent, and what is read, of one operation of some heads."""


def _head_operations(index: int, layer: LayerDesign, hidden_state: str) -> tuple[Operations, str]:
    """List the operations of a layer's heads, and name the tensor that holds their results."""
    size = layer.head_size

    def members(chosen: Iterable[str]) -> tuple[int, ...]:
        """Indices of the heads that do one of some operations; empty where it is all of them."""
        found = tuple(number for number, head in enumerate(layer.heads) if head in chosen)
        return () if len(found) == len(layer.heads) else found

    asking = [head for head in layer.heads if not head.startswith("l_")]
    projected = {"query": asking, "key": asking, "value": layer.heads}
    made = [
        replace(
            _linear(name, index, layer.hidden, len(heads) * size, hidden_state),
            members=members(heads),
        )
        for name, heads in projected.items()
        if heads
    ]
    contexts = []
    for head in dict.fromkeys(layer.heads):
        # sa_sdp's tensors are named by the layer alone, other heads' by the head too.
        place = str(index) if head == "sa_sdp" else f"{index}.{head}"
        shared = {name: _tensor(name, index) for name in projected}
        for name, kind, inner, outer, reads in _steps(head, size):
            made.append(
                Operation(
                    name=name,
                    layer=index,
                    kind=kind,
                    heads=layer.heads.count(head),
                    has_weight=name in HEAD_WEIGHTS,
                    activation=False,
                    rows="sequence",
                    inner=inner,
                    outer=outer,
                    reads=tuple(shared.get(source, f"{place}.{source}") for source in reads),
                    writes=f"{place}.{name}",
                    members=members((head,)),
                    sums=2 if (head, name) == ("l_dft", "context") else 1,
                )
            )
        contexts.append(f"{place}.context")
    if len(contexts) == 1:
        return made, contexts[0]
    joined = _tensor("heads", index)
    count = len(layer.heads)
    made.append(
        Operation("heads", index, "concatenate", count, False, False, "sequence", size, size,
                  tuple(contexts), joined)
    )  # fmt: skip
    return made, joined


def _steps(head: str, size: int) -> list[Step]:
    """What the heads of one operation do with queries, keys and values (docs/heads.md)."""
    if head.startswith("l_"):
        # A Fourier transform's two halves, of cosines and of sines, stand side by side.
        halves = 2 if head == "l_dft" else 1
        return [
            ("transform", "transform", size, halves * size, ("value",)),
            ("context", "transform", "sequence", size, ("transform",)),
        ]
    if head.startswith("c_"):
        span = int(head.removeprefix("c_"))
        return [
            ("key_depthwise", "convolution", span, size, ("key",)),
            ("key_convolution", "product", size, size, ("key_depthwise",)),
            ("kernel_query", "multiply", size, size, ("query", "key_convolution")),
            ("kernel_logits", "product", size, span, ("kernel_query",)),
            ("kernel", "softmax", span, span, ("kernel_logits",)),
            ("context", "convolution", span, size, ("kernel", "value")),
        ]
    made: list[Step] = [
        ("score", "product", size, "sequence", ("query", "key")),
        ("attention_softmax", "softmax", "sequence", "sequence", ("score",)),
        ("context", "product", "sequence", size, ("attention_softmax", "value")),
    ]
    if head == "sa_wma":
        weighted: Step = ("query_weighted", "product", size, size, ("query",))
        made[0] = ("score", "product", size, "sequence", ("query_weighted", "key"))
        made.insert(0, weighted)
    return made
