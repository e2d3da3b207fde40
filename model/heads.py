"""What a head of FlexiBERT 2.0 does between its queries, keys and values and its context.

Every module takes all heads of one operation of a layer at once. docs/heads.md has the formulas
and where they come from.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.dynaprop import DynaProp

if TYPE_CHECKING:
    from model.space import LayerDesign


class HeadLinear(nn.Module):
    """A linear map of each head: [batch, heads, n, inner] to [batch, heads, n, outer].

    Parameters
    ----------
    heads, inner, outer : shape of the weight, [heads, outer, inner]
    bias : whether a bias [heads, outer] is added

    Attributes
    ----------
    in_features : products that an entry of the result is the sum of
    """

    def __init__(self, heads: int, inner: int, outer: int, bias: bool = True) -> None:
        super().__init__()
        self.in_features = inner
        self.weight = nn.Parameter(torch.empty(heads, outer, inner))
        self.bias = nn.Parameter(torch.empty(heads, outer)) if bias else None

    def forward(self, values: Tensor) -> Tensor:
        """Multiply each head's rows by its own weight."""
        made = values @ self.weight.transpose(1, 2)
        return made if self.bias is None else made + self.bias[:, None]


class QueryWeight(HeadLinear):
    """The matrix W of each head between queries and keys; new ones are the identity.

    With the identity the head is a scaled dot product, so that training starts from there.
    """

    def __init__(self, heads: int, size: int) -> None:
        super().__init__(heads, size, size, bias=False)


class DepthwiseConvolution(nn.Module):
    """A convolution of each channel of each head along the sequence, zeros beyond its ends.

    Parameters
    ----------
    heads, size, span : shape of the weight, [heads, size, span]; the span is odd

    Attributes
    ----------
    in_features : products that an entry of the result is the sum of
    """

    def __init__(self, heads: int, size: int, span: int) -> None:
        super().__init__()
        self.in_features = span
        self.weight = nn.Parameter(torch.empty(heads, size, span))

    def forward(self, values: Tensor) -> Tensor:
        """Convolve [batch, heads, n, size]; element j of the span stands j − ⌊span / 2⌋ away."""
        heads, size, span = self.weight.shape
        channels = values.transpose(2, 3).flatten(1, 2)
        made = functional.conv1d(
            channels, self.weight.view(-1, 1, span), padding=span // 2, groups=heads * size
        )
        return made.unflatten(1, (heads, size)).transpose(2, 3)


def windows(values: Tensor, span: int) -> Tensor:
    """Each position's neighbours: [batch, heads, n, width] to [batch, heads, n, width, span].

    Element j stands j − ⌊span / 2⌋ positions away; beyond the ends are zeros. A view, no copy.
    """
    reach = span // 2
    return functional.pad(values, (0, 0, reach, reach)).unfold(2, span, 1)


class Place(NamedTuple):
    """Some heads of a layer that do the same: operation, layer, members, their count and width.

    `members` is empty where they are all of the layer's heads, as DynaProp names them.
    """

    operation: str
    layer: int
    members: tuple[int, ...]
    heads: int
    size: int


class _Heads(nn.Module):
    """Heads of one operation, with DynaProp at what they store.

    Parameters
    ----------
    place : which heads
    dropout : share of the probabilities of attention that is dropped in training
    pruner : what prunes
    """

    def __init__(self, place: Place, dropout: float, pruner: DynaProp) -> None:
        super().__init__()
        self.place = place
        self.dropout = nn.Dropout(dropout)
        self.pruner = pruner

    def store(self, values: Tensor, name: str, valid_mask: Tensor) -> Tensor:
        """Prune a tensor of these heads as it is written."""
        return self.pruner.store(values, self.place.layer, name, valid_mask, self.place.members)

    def product(self, values: Tensor, name: str, valid_mask: Tensor) -> Tensor:
        """Prune the gradient that enters a product of these heads."""
        return self.pruner.product(values, self.place.layer, name, valid_mask, self.place.members)


class ScaledDotProduct(_Heads):
    """softmax(Q·Kᵀ / √d)·V, as in BERT; masked positions have no probability."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the context [batch, heads, n, size] of queries, keys and values like it.

        Parameters
        ----------
        valid_mask : bool [batch, n], the real positions
        """
        rows = valid_mask[:, None, :, None]
        entries = rows & valid_mask[:, None, None, :]
        scores = (query * self.place.size**-0.5) @ key.transpose(2, 3)
        scores = self.product(scores, "score", entries)
        scores = self.store(scores, "score", entries)
        masked = scores.masked_fill(~valid_mask[:, None, None, :], torch.finfo(scores.dtype).min)
        probabilities = self.dropout(masked.softmax(-1))
        probabilities = self.store(probabilities, "attention_softmax", entries)
        context = self.product(probabilities @ value, "context", rows)
        return self.store(context, "context", rows)


class WeightedMultiplicative(ScaledDotProduct):
    """softmax(Q·W·Kᵀ / √d)·V with a matrix W of each head."""

    def __init__(self, place: Place, dropout: float, pruner: DynaProp) -> None:
        super().__init__(place, dropout, pruner)
        self.query_weighted = QueryWeight(place.heads, place.size)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the context [batch, heads, n, size]; parameters as of ScaledDotProduct."""
        rows = valid_mask[:, None, :, None]
        weighted = self.product(self.query_weighted(query), "query_weighted", rows)
        weighted = self.store(weighted, "query_weighted", rows)
        return super().forward(weighted, key, value, valid_mask)


class FourierTransform(_Heads):
    """Real part of the two-dimensional discrete Fourier transform, C·V·C − S·V·S.

    Along the head's width first, then along the sequence. The matrices keep the length of a
    vector, and each text has the one of its own number of real positions, so that padding changes
    nothing.
    """

    def forward(self, value: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the context [batch, heads, n, size] of values like it.

        Parameters
        ----------
        valid_mask : bool [batch, n], the real positions
        """
        rows = valid_mask[:, None, :, None]
        across = torch.cat(fourier_matrices(_all_real(self.place.size, value), value.dtype), -1)[0]
        made = self.product(value @ across, "transform", rows)
        made = self.store(made, "transform", rows)
        cosines, sines = fourier_matrices(valid_mask, value.dtype)
        along = torch.cat((cosines, -sines), -1)[:, None]
        stacked = torch.cat(made.chunk(2, -1), 2)  # V·C above V·S
        context = self.product(along @ stacked, "context", rows)
        return self.store(context, "context", rows)


class CosineTransform(_Heads):
    """Two-dimensional discrete cosine transform of type II, D·V·Dᵀ, with D as in the other one."""

    def forward(self, value: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the context [batch, heads, n, size]; parameters as of FourierTransform."""
        rows = valid_mask[:, None, :, None]
        across = cosine_matrix(_all_real(self.place.size, value), value.dtype)[0].T
        made = self.product(value @ across, "transform", rows)
        made = self.store(made, "transform", rows)
        along = cosine_matrix(valid_mask, value.dtype)[:, None]
        context = self.product(along @ made, "context", rows)
        return self.store(context, "context", rows)


class DynamicConvolution(_Heads):
    """Span-based dynamic convolution: a kernel of each position and head, applied to the values.

    softmax(W·(Q ⊙ P(D(K)))) weighs the values of a window, D being a depthwise convolution over
    the same span and P a linear map.
    """

    def __init__(self, place: Place, dropout: float, pruner: DynaProp) -> None:
        super().__init__(place, dropout, pruner)
        heads, size = place.heads, place.size
        self.span = int(place.operation.removeprefix("c_"))
        self.key_depthwise = DepthwiseConvolution(heads, size, self.span)
        self.key_convolution = HeadLinear(heads, size, size)
        self.kernel_logits = HeadLinear(heads, size, self.span)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, valid_mask: Tensor) -> Tensor:
        """Return the context [batch, heads, n, size]; parameters as of ScaledDotProduct.

        Masked positions are zeros, as beyond the ends of the text.
        """
        rows = valid_mask[:, None, :, None]
        key, value = (values.masked_fill(~rows, 0) for values in (key, value))
        made = self.store(
            self.product(self.key_depthwise(key), "key_depthwise", rows), "key_depthwise", rows
        )
        made = self.store(
            self.product(self.key_convolution(made), "key_convolution", rows),
            "key_convolution",
            rows,
        )
        made = self.store(query * made, "kernel_query", rows)
        logits = self.product(self.kernel_logits(made), "kernel_logits", rows)
        kernel = self.store(self.store(logits, "kernel_logits", rows).softmax(-1), "kernel", rows)
        mixed = (windows(value, self.span) @ kernel.unsqueeze(4)).squeeze(4)
        return self.store(self.product(mixed, "context", rows), "context", rows)


OPERATIONS: dict[str, type[_Heads]] = {
    "sa_sdp": ScaledDotProduct,
    "sa_wma": WeightedMultiplicative,
    "l_dft": FourierTransform,
    "l_dct": CosineTransform,
    "c_5": DynamicConvolution,
    "c_9": DynamicConvolution,
    "c_13": DynamicConvolution,
}
"""What does each operation that a head may have."""


class Heads(nn.ModuleDict):
    """All heads of a layer, those of one operation in one module named after it.

    Parameters
    ----------
    layer, index : the layer's design and its index
    dropout : share of the probabilities of attention that is dropped in training
    pruner : what prunes
    """

    def __init__(self, layer: LayerDesign, index: int, dropout: float, pruner: DynaProp) -> None:
        super().__init__()
        self.all = tuple(range(len(layer.heads)))
        self.asking = asking_heads(layer.heads)
        self.index, self.pruner = index, pruner
        self.numbers = {
            name: tuple(number for number in self.all if layer.heads[number] == name)
            for name in dict.fromkeys(layer.heads)
        }
        for name, numbers in self.numbers.items():
            place = Place(name, index, self.place(numbers), len(numbers), layer.head_size)
            self[name] = OPERATIONS[name](place, dropout, pruner)

    def place(self, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """Some heads as DynaProp names them: empty where they are all of the layer's."""
        return () if numbers == self.all else numbers

    def of(self, members: tuple[int, ...]) -> nn.Module:
        """Return the module of the heads of one operation, named as `place` names them."""
        names = {self.place(numbers): name for name, numbers in self.numbers.items()}
        return self[names[members]]

    def forward(
        self, query: Tensor | None, key: Tensor | None, value: Tensor, valid_mask: Tensor
    ) -> Tensor:
        """Return the context of all heads, [batch, heads, n, size].

        Parameters
        ----------
        query, key : of the heads that read them, [batch, asking heads, n, size]
        value : [batch, heads, n, size]
        valid_mask : bool [batch, n], the real positions
        """
        contexts = []
        for name, numbers in self.numbers.items():
            operands = [_choose(value, numbers, self.all)]
            if query is not None and key is not None and set(numbers) <= set(self.asking):
                operands = [
                    *(_choose(values, numbers, self.asking) for values in (query, key)),
                    *operands,
                ]
            contexts.append(self[name](*operands, valid_mask))
        if len(contexts) == 1:
            return contexts[0]
        order = tuple(number for numbers in self.numbers.values() for number in numbers)
        context = _choose(torch.cat(contexts, 1), self.all, order)
        rows = valid_mask[:, None, :, None]
        return self.pruner.read(context, self.index, "attention_output", rows)


def asking_heads(heads: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers of the heads that read queries and keys: all but linear transforms."""
    return tuple(number for number, head in enumerate(heads) if not head.startswith("l_"))


def _choose(values: Tensor, wanted: tuple[int, ...], present: tuple[int, ...]) -> Tensor:
    """Choose heads of [batch, heads, …], whose heads are `present`, by their numbers."""
    if wanted == present:
        return values
    return values[:, [present.index(number) for number in wanted]]


def _all_real(count: int, like: Tensor) -> Tensor:
    return torch.ones((1, count), dtype=torch.bool, device=like.device)


def _ranks(valid_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rank of each real position of a text, the texts' lengths [batch, 1, 1], and real pairs."""
    ranks = valid_mask.cumsum(1) - 1
    lengths = valid_mask.sum(1).clamp(min=1)[:, None, None]
    return ranks, lengths, valid_mask[:, :, None] & valid_mask[:, None, :]


def fourier_matrices(valid_mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines of 2πij/n, over √n, for the i-th and j-th of a text's n real positions.

    Parameters
    ----------
    valid_mask : bool [batch, positions]
    dtype : of the result; angles are computed in at least 32 bits

    Returns
    -------
    two tensors [batch, positions, positions], 0 in rows and columns of masked positions
    """
    ranks, lengths, pairs = _ranks(valid_mask)
    turns = ranks[:, :, None] * ranks[:, None, :] % lengths  # exact, however long the text is
    wide = torch.promote_types(dtype, torch.float32)
    angles = turns.to(wide) * (2 * math.pi) / lengths
    scale = lengths.to(wide).rsqrt() * pairs
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def cosine_matrix(valid_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Orthonormal DCT-II: √(2/n)·cos(πi(2j + 1)/2n), in row 0 1/√n; parameters as above.

    Returns
    -------
    tensor [batch, positions, positions], 0 in rows and columns of masked positions
    """
    ranks, lengths, pairs = _ranks(valid_mask)
    quarters = ranks[:, :, None] * (2 * ranks[:, None, :] + 1) % (4 * lengths)
    wide = torch.promote_types(dtype, torch.float32)
    angles = quarters.to(wide) * (math.pi / 2) / lengths
    first = (ranks == 0)[:, :, None].to(wide)
    scale = ((2 - first) / lengths).sqrt() * pairs
    return (angles.cos() * scale).to(dtype)
