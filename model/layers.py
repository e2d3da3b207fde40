"""The parts of a FlexiBERT encoder, with DynaProp at every tensor that they store."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwgen.unit_parameters import LAYER_NORM_EPSILON
from model.attention import attention_of_torch
from model.configuration import FlexiBertConfig
from model.dynaprop import DynaProp
from model.formats import TOKEN_TYPES
from model.heads import Heads, asking_heads


class FlexiBertEmbeddings(nn.Module):
    """Word, position and token-type rows, added and normalised."""

    def __init__(self, config: FlexiBertConfig, pruner: DynaProp) -> None:
        super().__init__()
        width = config.design.layers[0].hidden
        self.word = nn.Embedding(config.vocabulary, width)
        self.position = nn.Embedding(config.max_positions, width)
        self.token_type = nn.Embedding(TOKEN_TYPES, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.pruner = pruner

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return what the embedding adds: rows of words, and of positions with types added.

        Returns
        -------
        tensors [vocabulary, width] and [types, positions, width]
        """
        types = self.token_type.weight[:, None]
        return self.word.weight, self.position.weight[None] + types

    def forward(
        self, input_ids: Tensor, token_type_ids: Tensor | None, valid_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the hidden state as stored, and as the residual branch reads it."""
        length = input_ids.shape[1]
        if length > self.position.num_embeddings:
            raise ValueError(
                f"sequences must be at most max_positions = {self.position.num_embeddings} long, "
                f"not {length}"
            )
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        positions = self.position.weight[:length] + self.token_type(token_type_ids)
        computed = self.dropout(self.norm(self.word(input_ids) + positions))
        stored = self.pruner.store(computed, None, "embedding", valid_mask.unsqueeze(-1))
        return stored, stored if self.pruner.policy.prune_residual else computed


class FlexiBertLayer(nn.Module):
    """One encoder layer: heads, feed-forward stacks, a projection if the next width differs.

    Queries and keys are projected for the heads that read them, values for all, in the order of
    the design's heads.
    """

    def __init__(self, config: FlexiBertConfig, index: int, pruner: DynaProp) -> None:
        super().__init__()
        layers = config.design.layers
        layer = layers[index]
        self.index, self.head_size, self.config = index, layer.head_size, config
        self.asking = asking_heads(layer.heads)
        width, inner = layer.hidden, len(layer.heads) * layer.head_size
        asked = len(self.asking) * layer.head_size
        self.query = nn.Linear(width, asked) if asked else None
        self.key = nn.Linear(width, asked) if asked else None
        self.value = nn.Linear(width, inner)
        self.attention_output = nn.Linear(inner, width)
        self.attention_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        widths = (width, *layer.feed_forward, width)
        self.feed_forward = nn.ModuleList(
            nn.Linear(widths[number], widths[number + 1]) for number in range(len(widths) - 1)
        )
        self.feed_forward_norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        following = layers[index + 1].hidden if index + 1 < len(layers) else width
        self.projection = nn.Linear(width, following) if following != width else None
        self.activation = functional.gelu if config.activation == "gelu" else functional.relu
        self.hidden_dropout = nn.Dropout(config.hidden_dropout)
        self.pruner = pruner
        self.heads = Heads(layer, index, config.attention_dropout, pruner)

    def forward(
        self, hidden: Tensor, residual: Tensor, valid_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the hidden state as stored, and as the next residual branch reads it."""
        rows = valid_mask.unsqueeze(-1)
        attended = self.attend(hidden, valid_mask)
        attended = self._linear(self.attention_output, attended, "attention_output", rows)
        attended = self._store(self.hidden_dropout(attended), "attention_output", rows)
        hidden, residual = self._norm(
            self.attention_norm, attended + residual, "attention_norm", rows
        )
        last = len(self.feed_forward) - 1
        made = hidden
        for number, module in enumerate(self.feed_forward):
            name = f"feed_forward_{number}"
            made = self._linear(module, made, name, rows)
            made = self.activation(made) if number < last else self.hidden_dropout(made)
            made = self._store(made, name, rows)
        hidden, residual = self._norm(
            self.feed_forward_norm, made + residual, "feed_forward_norm", rows
        )
        if self.projection is not None:
            hidden = self._linear(self.projection, hidden, "projection", rows)
            hidden = residual = self._store(hidden, "projection", rows)
        return hidden, residual

    def attend(self, hidden: Tensor, valid_mask: Tensor) -> Tensor:
        """Contexts of all heads side by side, [batch, sequence, heads · head_size].

        While something looks at the tensors on the way, "eager" makes them.
        """
        implementation = "eager" if self.pruner.watched else self.config._attn_implementation
        if implementation == "triton":
            return self._attend_with_triton(hidden, valid_mask)
        rows = valid_mask[:, None, :, None]
        query = key = None
        if self.query is not None and self.key is not None:
            query = self._heads(self.query, hidden, "query", rows, self.asking)
            key = self._heads(self.key, hidden, "key", rows, self.asking)
        value = self._heads(self.value, hidden, "value", rows, self.heads.all)
        if implementation == "sdpa":
            dropout = self.config.attention_dropout if self.training else 0.0
            context = attention_of_torch(
                query, key, value, valid_mask, dropout, self.pruner, self.index
            )
        else:
            context = self.heads(query, key, value, valid_mask)
        return context.transpose(1, 2).flatten(2)

    def _attend_with_triton(self, hidden: Tensor, valid_mask: Tensor) -> Tensor:
        from model.attention_triton import attention

        if self.training and self.config.attention_dropout:
            raise ValueError(
                "attn_implementation triton has no dropout: attention_dropout must be 0 in "
                f"training, not {self.config.attention_dropout}; or use eager"
            )
        query, key, value = (
            getattr(self, name)(hidden).unflatten(2, (-1, self.head_size))
            for name in ("query", "key", "value")
        )
        return attention(query, key, value, valid_mask, self.pruner, self.index).flatten(2)

    def _heads(
        self, module: nn.Linear, hidden: Tensor, name: str, rows: Tensor, numbers: tuple[int, ...]
    ) -> Tensor:
        """One of query, key and value, [batch, heads, sequence, head_size].

        A compiled graph prunes it position by position, as the product writes it, and so turns its
        gradient round and prunes it in one pass.
        """
        made = module(hidden).unflatten(2, (len(numbers), self.head_size))
        by_head = not torch.compiler.is_compiling()
        if by_head:
            made = made.transpose(1, 2)
        else:
            rows = rows.transpose(1, 2)
        members = self.heads.place(numbers)
        made = self.pruner.product(made, self.index, name, rows, members)
        made = self.pruner.store(made, self.index, name, rows, members)
        return made if by_head else made.transpose(1, 2)

    def _linear(self, module: nn.Linear, values: Tensor, name: str, rows: Tensor) -> Tensor:
        return self.pruner.product(module(values), self.index, name, rows)

    def _store(self, values: Tensor, name: str, valid_mask: Tensor) -> Tensor:
        return self.pruner.store(values, self.index, name, valid_mask)

    def _norm(
        self, module: nn.LayerNorm, values: Tensor, name: str, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        computed = module(values)
        stored = self._store(computed, name, rows)
        return stored, stored if self.pruner.policy.prune_residual else computed
