"""Model cards: what a saved model is, what it was trained on, and how well it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from model.policy import PruningPolicy
from model.space import TransformerDesign, parameters

CARD = "README.md"
"""Where a model's card lies in its folder, as Hugging Face has it."""

ARITHMETIC = "arithmetic.json"
"""Accuracies in hardware arithmetic: a list of objects with split, design, bits, accuracy, n."""


def model_card(design: TransformerDesign, policy: PruningPolicy, **about: Any) -> str:
    """Write the card of a model.

    Parameters
    ----------
    design, policy : of the model
    about : what else is known: `folder`; of a training `inputs`, `about` and `test`, as its files
        inputs.json, training.json and test.json have them; `arithmetic`, rows as in ARITHMETIC
    """
    inputs: Mapping[str, Any] = about.get("inputs") or {}
    task = inputs.get("task")
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        license="other",
        tags=["flexibert", "dynaprop"],
    )
    return str(
        ModelCard.from_template(
            data,
            template_str=files("model").joinpath("templates", "model_card.md").read_text(),
            title=f"FlexiBERT {design.design_hash}" + (f" for {task['name']}" if task else ""),
            folder=about.get("folder", "."),
            design=design,
            published=json.dumps(design.to_published()),
            parameters=parameters(design),
            policy=policy,
            task=task,
            inputs=inputs,
            recipe=inputs.get("recipe"),
            pretrained=inputs.get("pretrained"),
            about=about.get("about"),
            test=about.get("test"),
            arithmetic=about.get("arithmetic") or (),
        )
    )


def write_trained_card(
    folder: str | Path, inputs: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write the card of a trained model into its folder, with what is known of it by now.

    Parameters
    ----------
    folder : the model's; its test.json and arithmetic.json are read if there are any
    inputs, about : what its inputs.json and training.json hold
    """
    folder = Path(folder)

    def read(name: str) -> Any:
        path = folder / name
        return json.loads(path.read_text()) if path.is_file() else None

    text = model_card(
        TransformerDesign.load(inputs["design"]),
        PruningPolicy.load(inputs["policy"]),
        folder=folder.name,
        inputs=inputs,
        about=about,
        test=read("test.json"),
        arithmetic=read(ARITHMETIC),
    )
    (folder / CARD).write_text(text)
