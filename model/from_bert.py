"""Takes a Hugging Face BERT over into FlexiBERT, weights included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
)

from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertForSequenceClassification
from model.layers import FlexiBertLayer
from model.policy import PruningPolicy
from model.quiet import quiet
from model.space import TransformerDesign

Basis: TypeAlias = "Tensor | None"
"""What carries a donor's width to another: [donor's, new one's], None where they are equal."""


@torch.no_grad()
def from_bert(
    bert: PreTrainedModel | str | Path,
    design: TransformerDesign | Mapping[str, Any] | str | Path | None = None,
    policy: PruningPolicy | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> FlexiBertForSequenceClassification:
    """Make a FlexiBERT that starts from the weights of a BERT, in evaluation mode.

    At the BERT's own shape all weights are copied, and it computes the same. Elsewhere:

    - *Layers* come from the nearest of the donor's by depth: ℓ of L from ⌊(ℓ + ½)·D / L⌋ of D.
    - *Hidden states* of a smaller width are projected on the principal axes of the embedded
      words after their layer norm (their second moment's eigenvectors; every weight is multiplied
      by the axes, γ averaged with their squares). In a larger width they keep their entries;
      further ones are new, read with weight 0. The projection between layers of different widths
      is the map from one's axes to the other's.
    - *Heads*: i of n from the donor's ⌊(i + ½)·N / n⌋. Heads that share one divide its output by
      their number. A narrower head has the truncated singular value decomposition of what
      the donor's computes, Q·Kᵀ (times √(d / D), for its own 1/√d) and output · V, biases
      included; a wider one has further entries, read with weight 0.
    - *Other operations* take what they have in common with attention: sa_wma all, its W is the
      identity; c_k queries, keys, values and output; linear transforms values and output.
    - *Feed-forward*: of a narrower stack the neurons with the largest product of the norms of what
      they read and what they write; between stacks the identity.
    - *What has no counterpart* (weights of convolutions, a classifier or a pooler that the donor
      lacks) is new.

    Parameters
    ----------
    bert : a BertModel, a model with one inside (BertForSequenceClassification), or the name or
        folder of one
    design : the shape wanted, by default the BERT's own
    policy : thresholds of DynaProp
    seed : of what is new; global random numbers are left as they were

    Raises
    ------
    ValueError
        If the BERT has no place in the design space, or the design another vocabulary, more
        positions or another activation than the BERT; the message names the key and both values.
    """
    donor = _load(bert) if isinstance(bert, (str, Path)) else deepcopy(bert).cpu()
    base = getattr(donor, donor.base_model_prefix, donor)
    own = TransformerDesign.load(donor.config)
    wanted = own if design is None else TransformerDesign.load(design)
    _check(own, wanted)
    config = FlexiBertConfig.of(
        wanted,
        policy,
        hidden_dropout=donor.config.hidden_dropout_prob,
        attention_dropout=donor.config.attention_probs_dropout_prob,
        initializer_range=donor.config.initializer_range,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlexiBertForSequenceClassification(config)
    if wanted == own:
        config.id2label, config.label2id = donor.config.id2label, donor.config.label2id
    _Transfer(base, own, model).run(getattr(donor, "classifier", None))
    return model.eval()


def _load(source: str | Path) -> PreTrainedModel:
    """Load a BERT, with its classifier if it was saved with one."""
    kinds = AutoConfig.from_pretrained(source).architectures or ()
    classifies = "BertForSequenceClassification" in kinds
    kind = BertForSequenceClassification if classifies else BertModel
    with quiet():
        return kind.from_pretrained(source, dtype=torch.float32)


def _check(own: TransformerDesign, wanted: TransformerDesign) -> None:
    for key in ("vocabulary", "activation"):
        if getattr(wanted, key) != getattr(own, key):
            raise ValueError(
                f"{key} must be the BERT's, {getattr(own, key)!r}, not {getattr(wanted, key)!r}"
            )
    if wanted.max_positions > own.max_positions:
        raise ValueError(
            f"max_positions must be at most the BERT's, {own.max_positions}, "
            f"not {wanted.max_positions}"
        )


class _Transfer:
    """Carries the weights of one BERT over into one model."""

    def __init__(
        self, base: Any, own: TransformerDesign, model: FlexiBertForSequenceClassification
    ) -> None:
        self.base, self.own, self.model = base, own, model
        self.width = own.layers[0].hidden
        widths = {layer.hidden for layer in model.design.layers}
        axes = self._axes() if min(widths) < self.width else None
        self.bases = {width: _basis(self.width, width, axes) for width in widths}

    def run(self, classifier: nn.Linear | None) -> None:
        """Set all weights that have a counterpart."""
        layers = self.model.design.layers
        self._embeddings(self.bases[layers[0].hidden])
        for index, layer in enumerate(self.model.encoder.layers):
            donor = self.base.encoder.layer[
                (2 * index + 1) * len(self.own.layers) // (2 * len(layers))
            ]
            basis = self.bases[layers[index].hidden]
            self._attention(donor.attention, layer, basis)
            self._feed_forward(donor, layer, basis)
            if layer.projection is not None:
                following = self.bases[layers[index + 1].hidden]
                _carry_identity(layer.projection, self.width, following, basis)
        basis = self.bases[layers[-1].hidden]
        if self.base.pooler is not None:
            dense = self.base.pooler.dense
            _carry(self.model.encoder.pooler, dense.weight, dense.bias, basis, basis)
        target = self.model.classifier
        if classifier is not None and classifier.out_features == target.out_features:
            _carry(target, classifier.weight, classifier.bias, None, basis)

    def _axes(self) -> Tensor:
        """Principal axes of the embedded words, largest first, as columns."""
        embeddings = self.base.embeddings
        types = embeddings.token_type_embeddings.weight[0]
        positions = embeddings.position_embeddings.weight.mean(0)
        words = embeddings.LayerNorm(embeddings.word_embeddings.weight + positions + types)
        words = words.double()
        _, vectors = torch.linalg.eigh(words.T @ words)
        axes = vectors.flip(1)
        largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
        return axes * largest.sign()  # eigenvectors come with either sign

    def _embeddings(self, basis: Basis) -> None:
        source, target = self.base.embeddings, self.model.encoder.embeddings
        for theirs, ours in (
            (source.word_embeddings, target.word),
            (source.position_embeddings, target.position),
            (source.token_type_embeddings, target.token_type),
        ):
            rows = theirs.weight[: ours.num_embeddings].double()
            made = rows if basis is None else rows @ basis
            ours.weight.copy_(torch.where(_new(basis, made.shape[1]), ours.weight, made))
        _norm(source.LayerNorm, target.norm, basis)

    def _attention(self, donor: Any, layer: FlexiBertLayer, basis: Basis) -> None:
        heads, size = len(self.own.layers[0].heads), self.own.layers[0].head_size
        count = len(layer.heads.all)
        sources = [(2 * head + 1) * heads // (2 * count) for head in range(count)]
        shared = Counter(sources)
        target = layer.attention_output.weight
        new = _new(basis, len(target))[:, None]
        for number, source in enumerate(sources):
            rows = slice(source * size, (source + 1) * size)
            query, key, value = (
                _read_by(getattr(donor.self, name), rows, basis)
                for name in ("query", "key", "value")
            )
            output = donor.output.dense.weight[:, rows].double()
            output = (output if basis is None else basis.T @ output) / shared[source]
            query, key = _of_rank(query, key, layer.head_size)
            query *= (layer.head_size / size) ** 0.5
            value, output = _of_rank(value, output.T, layer.head_size)
            if number in layer.asking:
                place = layer.asking.index(number) * layer.head_size
                _write_rows(layer.query, place, layer.head_size, query)
                _write_rows(layer.key, place, layer.head_size, key, further=0)
            place = number * layer.head_size
            _write_rows(layer.value, place, layer.head_size, value)
            columns = target[:, place : place + layer.head_size]
            padded = functional.pad(output.T, (0, layer.head_size - len(output)))
            columns.copy_(torch.where(new, columns, padded))
        bias = donor.output.dense.bias.double()
        layer.attention_output.bias.copy_(bias if basis is None else basis.T @ bias)
        _norm(donor.output.LayerNorm, layer.attention_norm, basis)

    def _feed_forward(self, donor: Any, layer: FlexiBertLayer, basis: Basis) -> None:
        reading, writing = donor.intermediate.dense, donor.output.dense
        count = reading.out_features
        strength = reading.weight.double().norm(dim=1) * writing.weight.double().norm(dim=0)
        kept = torch.arange(count)
        first, *between, last = layer.feed_forward
        kept, neurons = _strongest(strength, kept, first.out_features)
        _carry(first, reading.weight, reading.bias, neurons, basis)
        for module in between:
            before = neurons
            kept, neurons = _strongest(strength, kept, module.out_features)
            _carry_identity(module, count, neurons, before)
        _carry(last, writing.weight, writing.bias, basis, neurons)
        _norm(donor.output.LayerNorm, layer.feed_forward_norm, basis)


def _basis(own: int, wanted: int, axes: Tensor | None) -> Basis:
    """What carries hidden states of the donor's width to another."""
    if wanted == own:
        return None
    if wanted > own:
        return torch.eye(own, wanted, dtype=torch.float64)
    assert axes is not None
    return axes[:, :wanted]


def _strongest(strength: Tensor, kept: Tensor, wanted: int) -> tuple[Tensor, Basis]:
    """Choose at most so many of the neurons that are kept; their numbers, and what carries them."""
    if len(kept) == wanted == len(strength):
        return kept, None
    if wanted < len(kept):
        kept = kept[strength[kept].topk(wanted).indices.sort().values]
    basis = torch.zeros((len(strength), wanted), dtype=torch.float64)
    basis[kept, torch.arange(len(kept))] = 1
    return kept, basis


def _new(basis: Basis, width: int) -> Tensor:
    """Which entries have no counterpart in the donor, bool [width]."""
    if basis is None:
        return torch.zeros(width, dtype=torch.bool)
    return ~basis.any(0)


def _carry(target: nn.Linear, weight: Tensor, bias: Tensor, writes: Basis, reads: Basis) -> None:
    """Set a linear map from the donor's; new entries keep their weights and are not read."""
    made, added = weight.double(), bias.double()
    if reads is not None:
        made = made @ reads
    if writes is not None:
        made, added = writes.T @ made, writes.T @ added
    new = _new(writes, len(made))[:, None]
    target.weight.copy_(torch.where(new, target.weight, made))
    target.bias.copy_(added)


def _carry_identity(target: nn.Linear, width: int, writes: Basis, reads: Basis) -> None:
    _carry(target, torch.eye(width), torch.zeros(width), writes, reads)


def _norm(source: nn.LayerNorm, target: nn.LayerNorm, basis: Basis) -> None:
    """Set a layer norm from the donor's.

    In a larger width γ makes up for new entries that are small: the variance is over all.
    """
    gamma, beta = source.weight.double(), source.bias.double()
    if basis is not None:
        gamma, beta = gamma @ basis.square(), beta @ basis
        gamma = gamma * max(1.0, basis.shape[1] / basis.shape[0]) ** 0.5
    new = _new(basis, len(gamma))
    target.weight.copy_(torch.where(new, target.weight, gamma))
    target.bias.copy_(beta)


def _read_by(module: nn.Linear, rows: slice, basis: Basis) -> Tensor:
    """Rows of a donor's linear map that read another width, the bias as a last column."""
    weight = module.weight[rows].double()
    weight = weight if basis is None else weight @ basis
    return torch.cat((weight, module.bias[rows, None].double()), 1)


def _of_rank(left: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Two maps of `rank` rows whose product leftᵀ·right is the nearest (Eckart and Young)."""
    if len(left) <= rank:
        return left, right
    outer, inner = (torch.linalg.qr(part.T) for part in (left, right))
    u, values, v = torch.linalg.svd(outer.R @ inner.R.T)
    roots = values[:rank].sqrt()[:, None]
    return roots * (outer.Q @ u[:, :rank]).T, roots * (inner.Q @ v[:rank].T).T


def _write_rows(
    module: nn.Linear | None, start: int, count: int, values: Tensor, further: float | None = None
) -> None:
    """Set rows of a linear map and its bias.

    The head's further rows keep their new weights unless a value for them is given.
    """
    assert module is not None
    end = start + len(values)
    module.weight[start:end] = values[:, :-1].to(module.weight)
    module.bias[start:end] = values[:, -1].to(module.bias)
    if further is not None:
        module.weight[end : start + count] = further
