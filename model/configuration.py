"""Configuration of FlexiBERT models, as Hugging Face saves it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from model.policy import PruningPolicy
from model.space import TransformerDesign


class FlexiBertConfig(PreTrainedConfig):
    """Configuration of a FlexiBERT model.

    Parameters
    ----------
    layers, vocabulary, max_positions, activation : as in TransformerDesign
    pruning : fields of the PruningPolicy
    hidden_dropout, attention_dropout : shares that are dropped in training
    initializer_range : standard deviation of new weights
    kwargs : what every Hugging Face configuration has, num_labels and attn_implementation
        (model.attention) among it
    """

    model_type = "flexibert"
    attribute_map = {"vocab_size": "vocabulary", "max_position_embeddings": "max_positions"}

    def __init__(
        self,
        layers: list[dict[str, Any]] | None = None,
        vocabulary: int = 30522,
        max_positions: int = 512,
        activation: str = "gelu",
        pruning: Mapping[str, Any] | None = None,
        hidden_dropout: float = 0.1,
        attention_dropout: float = 0.1,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        if layers is None:
            layers = TransformerDesign.load("bert-tiny").model_dump(mode="json")["layers"]
        self.layers = layers
        self.vocabulary = vocabulary
        self.max_positions = max_positions
        self.activation = activation
        self.pruning = PruningPolicy.load(pruning).model_dump(mode="json")
        self.hidden_dropout = hidden_dropout
        self.attention_dropout = attention_dropout
        self.initializer_range = initializer_range
        super().__init__(**kwargs)

    @classmethod
    def of(
        cls,
        design: TransformerDesign | Mapping[str, Any] | str | Path,
        policy: PruningPolicy | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> FlexiBertConfig:
        """Make the configuration of a design and a pruning policy."""
        design = TransformerDesign.load(design)
        fields = design.model_dump(mode="json")
        labels = fields.pop("labels")
        pruning = PruningPolicy.load(policy).model_dump(mode="json")
        return cls(**fields, num_labels=labels, pruning=pruning, **kwargs)

    @property
    def design(self) -> TransformerDesign:
        """The design that is configured."""
        names = ("layers", "vocabulary", "max_positions", "activation")
        fields = {name: getattr(self, name) for name in names}
        return TransformerDesign.load({**fields, "labels": self.num_labels})

    @property
    def hidden_size(self) -> int:
        """Width of the last layer, which the pooler reads."""
        return int(self.layers[-1]["hidden"])

    @property
    def num_hidden_layers(self) -> int:
        """Number of layers."""
        return len(self.layers)


AutoConfig.register(FlexiBertConfig.model_type, FlexiBertConfig, exist_ok=True)
