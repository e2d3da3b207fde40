"""FlexiBERT encoders as Hugging Face models, with DynaProp at every tensor that is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling, SequenceClassifierOutput

from model.attention import check_implementation
from model.card import CARD, model_card
from model.configuration import FlexiBertConfig
from model.dynaprop import DynaProp
from model.heads import DepthwiseConvolution, HeadLinear, QueryWeight
from model.layers import FlexiBertEmbeddings, FlexiBertLayer
from model.operations import HEAD_WEIGHTS, GemmRole, encoder_operations
from model.policy import PruningPolicy
from model.space import TransformerDesign
from model.thresholds import SavesThresholds

__all__ = [
    "FlexiBertConfig",
    "FlexiBertForSequenceClassification",
    "FlexiBertModel",
]


class FlexiBertPreTrainedModel(SavesThresholds, PreTrainedModel):
    """What FlexiBERT models share: configuration, initialisation and DynaProp."""

    config_class = FlexiBertConfig
    base_model_prefix = "encoder"

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise new weights as BERT does; loaded ones are left alone by Hugging Face."""
        deviation = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        if isinstance(module, QueryWeight):
            identity = torch.eye(module.in_features).expand_as(module.weight)
            initialization.copy_(module.weight, identity)
        elif isinstance(module, (HeadLinear, DepthwiseConvolution)):
            nn.init.normal_(module.weight, std=deviation)
        if isinstance(module, HeadLinear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @property
    def design(self) -> TransformerDesign:
        """The model's design."""
        return self.config.design

    @property
    def dynaprop(self) -> DynaProp:
        """What prunes, and where a recorder is set."""
        return self._encoder.pruner

    @property
    def _encoder(self) -> Any:
        """The part that holds embeddings, layers and pooler."""
        return getattr(self, "encoder", self)

    def set_policy(self, policy: PruningPolicy | Mapping[str, Any] | None) -> None:
        """Change the thresholds, in the running model and in what is saved."""
        loaded = PruningPolicy.load(policy)
        self.config.pruning = loaded.model_dump(mode="json")
        self.dynaprop.policy = loaded

    def get_correct_attn_implementation(
        self, requested_attention: str | None, is_init_check: bool = False
    ) -> str:
        """Check how attention is to be computed, as Hugging Face asks; see model.attention."""
        return check_implementation(requested_attention, self.design)

    def products(self) -> dict[str, Any]:
        """Return the module of each product with a weight, by the tensor that it writes.

        Each has a `weight` and, but for HEAD_WEIGHTS, is an nn.Linear.
        """
        encoder = self._encoder
        made = {}
        for item in encoder_operations(self.design):
            if not item.has_weight:
                continue
            owner: Any = self if item.name == "classifier" else encoder
            if item.layer is not None:
                owner = encoder.layers[item.layer]
                if item.name in HEAD_WEIGHTS:
                    owner = owner.heads.of(item.members)
            if item.name.startswith("feed_forward_"):
                made[item.writes] = owner.feed_forward[int(item.name.rpartition("_")[2])]
            elif hasattr(owner, item.name):  # an encoder by itself has no classifier
                made[item.writes] = getattr(owner, item.name)
        return made

    def norms(self) -> dict[str, nn.LayerNorm]:
        """Return each layer norm by the tensor that it writes."""
        made = {"embedding": self._encoder.embeddings.norm}
        for index, layer in enumerate(self._encoder.layers):
            made[f"{index}.attention_norm"] = layer.attention_norm
            made[f"{index}.feed_forward_norm"] = layer.feed_forward_norm
        return made

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Save as every Hugging Face model; with a model card, unless there is one already."""
        super().save_pretrained(save_directory, **kwargs)
        path = Path(save_directory) / CARD
        if kwargs.get("is_main_process", True) and path.parent.is_dir() and not path.exists():
            card = model_card(self.design, self.dynaprop.policy, folder=path.parent.name)
            path.write_text(card)

    def weights_hash(self) -> str:
        """Sixteen hexadecimal digits of all parameters."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


class FlexiBertModel(FlexiBertPreTrainedModel):
    """Embeddings, layers and pooler, of any design of FlexiBERT 2.0."""

    def __init__(self, config: FlexiBertConfig) -> None:
        super().__init__(config)
        written = {(item.layer, item.name): None for item in encoder_operations(config.design)}
        roles = (GemmRole.OUTPUT, GemmRole.GRAD_OUTPUT)
        self.pruner = DynaProp(
            PruningPolicy.load(config.pruning),
            [(*place, role) for place in written for role in roles],
        )
        self.embeddings = FlexiBertEmbeddings(config, self.pruner)
        self.layers = nn.ModuleList(
            FlexiBertLayer(config, index, self.pruner) for index in range(len(config.layers))
        )
        width = config.hidden_size
        self.pooler = nn.Linear(width, width)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the word embedding."""
        return self.embeddings.word

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embedding."""
        self.embeddings.word = value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.pruner.to(self.device)
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Run the encoder.

        Parameters
        ----------
        input_ids, token_type_ids : int64 [batch, sequence]
        attention_mask : [batch, sequence], not zero at real positions; by default all are real
        output_hidden_states : whether to return the embedding's and every layer's hidden state
        return_dict : False for a tuple

        Raises
        ------
        ValueError
            If sequences are longer than max_positions, or the mask's shape is another.
        """
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if attention_mask.shape != input_ids.shape:
            raise ValueError(
                f"attention_mask must have the shape of input_ids, "
                f"{tuple(input_ids.shape)}, not {tuple(attention_mask.shape)}"
            )
        valid_mask = attention_mask != 0
        self.pruner.start(valid_mask)
        hidden, residual = self.embeddings(input_ids, token_type_ids, valid_mask)
        states = [hidden]
        for layer in self.layers:
            hidden, residual = layer(hidden, residual, valid_mask)
            states.append(hidden)
        first = self.pruner.read(hidden[:, :1], None, "pooler")
        pooled = self.pruner.product(self.pooler(first), None, "pooler", None)
        pooled = self.pruner.store(pooled, None, "pooler", None)
        pooled = self.pruner.store(pooled.tanh(), None, "pooler_tanh", None)[:, 0]
        wanted = (
            output_hidden_states
            if output_hidden_states is not None
            else self.config.output_hidden_states
        )
        made = BaseModelOutputWithPooling(
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=tuple(states) if wanted else None,
        )
        return made.to_tuple() if return_dict is False else made


class FlexiBertForSequenceClassification(FlexiBertPreTrainedModel):
    """An encoder with a classifier on its pooled first position."""

    def __init__(self, config: FlexiBertConfig) -> None:
        super().__init__(config)
        self.encoder = FlexiBertModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> SequenceClassifierOutput | tuple[Any, ...]:
        """Classify sequences; parameters as of FlexiBertModel.

        Parameters
        ----------
        labels : int64 [batch]; with them the mean cross entropy is returned as the loss
        """
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, output_hidden_states)
        pooled = self.dropout(encoded.pooler_output)[:, None]
        logits = self.dynaprop.product(self.classifier(pooled), None, "classifier", None)
        logits = self.dynaprop.store(logits, None, "classifier", None)[:, 0]
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        made = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states
        )
        return made.to_tuple() if return_dict is False else made


AutoModel.register(FlexiBertConfig, FlexiBertModel, exist_ok=True)
AutoModelForSequenceClassification.register(
    FlexiBertConfig, FlexiBertForSequenceClassification, exist_ok=True
)
