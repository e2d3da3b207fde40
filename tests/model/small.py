"""A small model of two unequal layers, its batches and its accelerator; a layer by itself."""

import torch

from hwgen.design import AcceleratorDesign
from model.configuration import FlexiBertConfig
from model.dynaprop import DynaProp
from model.flexibert import FlexiBertForSequenceClassification
from model.layers import FlexiBertLayer
from model.policy import PruningPolicy
from model.space import TransformerDesign

torch.set_num_threads(1)

DESIGN = TransformerDesign.load(
    {
        "layers": [
            {"hidden": 32, "heads": ["sa_sdp"] * 3, "feed_forward": [48]},
            {"hidden": 24, "heads": ["sa_sdp"] * 2, "feed_forward": [40, 16]},
        ],
        "vocabulary": 200,
        "max_positions": 24,
    }
)
EDGE = AcceleratorDesign.load("edge")


def batch(seed, count=64):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 21, (count, 1), generator=generator)
    mask = (torch.arange(20)[None] < lengths).long()
    ids = torch.randint(1, 200, (count, 20), generator=generator)
    return {"input_ids": ids, "attention_mask": mask}


def make_model(threshold, design=DESIGN, **policy):
    torch.manual_seed(0)
    config = FlexiBertConfig.of(
        design, {"activation_threshold": threshold, **policy}, initializer_range=0.3
    )
    model = FlexiBertForSequenceClassification(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def labelled_examples(count):
    """Examples of a data set, as a Trainer's collator takes them."""
    made = batch(11, count)
    labels = torch.randint(0, 2, (count,), generator=torch.Generator().manual_seed(3))
    return [
        {
            "input_ids": made["input_ids"][number].tolist(),
            "attention_mask": made["attention_mask"][number].tolist(),
            "labels": int(labels[number]),
        }
        for number in range(count)
    ]


def small_layer(policy, hidden=6, heads=2, widths=(5,)):
    """One layer by itself, in 64 bits."""
    design = {
        "layers": [{"hidden": hidden, "heads": ["sa_sdp"] * heads, "feed_forward": list(widths)}],
        "vocabulary": 11,
        "max_positions": 8,
    }
    config = FlexiBertConfig.of(design, policy, hidden_dropout=0.0, attention_dropout=0.0)
    torch.manual_seed(1)
    layer = FlexiBertLayer(config, 0, DynaProp(PruningPolicy.load(policy))).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer
