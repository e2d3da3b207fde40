"""Where a training starts: projected embeddings, or the encoder of another model."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from model.data import Task
from model.flexibert import FlexiBertConfig, FlexiBertForSequenceClassification, FlexiBertModel
from model.from_bert import from_bert
from model.heads import DepthwiseConvolution, HeadLinear, QueryWeight
from model.policy import PruningPolicy
from model.pretrained import projected_embeddings
from model.quiet import quiet
from model.space import TransformerDesign
from model.teacher import minilm_folder
from model.tokens import VOCABULARY, tokenize

WEIGHT_GAIN = 0.6
"""Standard deviation of new weights times √inputs. BERT's deviation of 0.02 leaves layers of few
inputs so weak at first that thresholds prune most of what they give."""

MINILM = "minilm"
"""Names the pretrained MiniLM as what an encoder starts from."""


def initial_model(
    design: TransformerDesign,
    policy: PruningPolicy,
    task: Task,
    dropout: float,
    seed: int,
    encoder: FlexiBertModel | None = None,
) -> FlexiBertForSequenceClassification:
    """A model before its training: an encoder's weights, or projected pretrained embeddings.

    Everything else is random and derives from the seed alone; global random numbers are left as
    they were.
    """
    config = FlexiBertConfig.of(design, policy, hidden_dropout=dropout, attention_dropout=dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FlexiBertForSequenceClassification(config)
        for module in model.modules():
            if isinstance(module, (nn.Linear, HeadLinear, DepthwiseConvolution)):
                if not isinstance(module, QueryWeight):
                    nn.init.normal_(module.weight, std=WEIGHT_GAIN / module.in_features**0.5)
    if encoder is not None:
        model.encoder.load_state_dict(encoder.state_dict())
        return model
    tokens = tokenize(task.train.texts, task.sequence_length)
    counts = np.bincount(tokens.ids[tokens.ids > 0], minlength=VOCABULARY)
    tables = projected_embeddings(design.layers[0].hidden, counts)
    embeddings = model.encoder.embeddings
    with torch.no_grad():
        embeddings.word.weight.copy_(tables["word"])
        embeddings.position.weight.copy_(tables["position"][: design.max_positions])
        embeddings.token_type.weight.copy_(tables["type"])
    return model


def initial_encoder(
    source: str | Path, design: TransformerDesign, seed: int = 0
) -> FlexiBertModel:
    """An encoder of a design with the weights of another model.

    Parameters
    ----------
    source
        ``"minilm"``, the folder of a Hugging Face BERT, or the folder of an encoder of the same
        layers, as `model.pretraining.pretrain` saves it. A BERT of another shape is projected
        (`model.from_bert.from_bert`).
    seed
        Of what a BERT has no counterpart of.

    Raises
    ------
    ValueError
        The folder holds no model, or one that does not fit the design.
    """
    folder = minilm_folder() if source == MINILM else Path(source)
    if not (folder / "model.safetensors").is_file():
        raise ValueError(
            f"{folder} holds no model to start from: it has no model.safetensors; name {MINILM!r},"
            " the folder of a BERT, or one that transcode pretrain has made"
        )
    if json.loads((folder / "config.json").read_text())["model_type"] == "bert":
        return from_bert(folder, design, seed=seed).encoder
    with quiet():
        encoder = FlexiBertModel.from_pretrained(folder, local_files_only=True)
    given, own = (d.model_dump(exclude={"labels"}) for d in (encoder.design, design))
    for key in own:
        if given[key] != own[key]:
            raise ValueError(
                f"{key} of the encoder to start from must be the design's, {own[key]}, not"
                f" {given[key]}; pre-train this design"
            )
    return encoder
