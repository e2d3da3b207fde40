"""The head that pre-training needs: words that were masked, told from the others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForMaskedLM
from transformers.modeling_outputs import MaskedLMOutput

from hwgen.unit_parameters import LAYER_NORM_EPSILON
from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertModel, FlexiBertPreTrainedModel

UNLABELLED = -100
"""Label of positions that are not to be told, as Hugging Face's collators give it."""


class FlexiBertForMaskedLM(FlexiBertPreTrainedModel):
    """An encoder with BERT's head for masked words, whose rows are the word embedding's own.

    The head is a linear layer to the embedding's width, GELU and a layer norm; a word's logit is
    the product with its embedding and a bias. Nothing in the head is pruned.
    """

    def __init__(self, config: FlexiBertConfig) -> None:
        super().__init__(config)
        self.encoder = FlexiBertModel(config)
        width = config.design.layers[0].hidden
        self.transform = nn.Linear(config.hidden_size, width)
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPSILON)
        self.bias = nn.Parameter(torch.zeros(config.vocabulary))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Tell words; parameters as of FlexiBertModel.

        Parameters
        ----------
        labels : int64 [batch, sequence], a token's id or −100 where nothing is asked

        Returns
        -------
        logits [batch, sequence, vocabulary]; with labels those of the labelled positions alone,
        [labelled, vocabulary], and their mean cross entropy as the loss (0 where there are none)
        """
        encoded = self.encoder(input_ids, attention_mask, token_type_ids, output_hidden_states)
        hidden = encoded.last_hidden_state
        if labels is not None:
            asked = labels != UNLABELLED
            hidden, labels = hidden[asked], labels[asked]
        made = self.norm(functional.gelu(self.transform(hidden)))
        logits = functional.linear(made, self.encoder.embeddings.word.weight, self.bias)
        loss = None
        if labels is not None:
            total = functional.cross_entropy(logits, labels, reduction="sum")
            loss = total / max(len(labels), 1)
        output = MaskedLMOutput(loss=loss, logits=logits, hidden_states=encoded.hidden_states)
        return output.to_tuple() if return_dict is False else output


AutoModelForMaskedLM.register(FlexiBertConfig, FlexiBertForMaskedLM, exist_ok=True)
