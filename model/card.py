"""Model cards: what a saved model is, what it was trained on, and how well it does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from model.cache import atomic_path, locked, write_json
from model.policy import PruningPolicy
from model.space import TransformerDesign, parameters

CARD = "README.md"
"""Where a model's card lies in its folder, as Hugging Face has it."""

ARITHMETIC = "arithmetic.json"
"""Accuracies in hardware arithmetic, a list of what `record_arithmetic` was given."""

SETTING = ("split", "design_sha256", "bits", "method", "channels")
"""What of an accuracy in hardware arithmetic says which one it is; a later one takes its place."""


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
    with atomic_path(folder / CARD) as path:
        path.write_text(text)


def record_arithmetic(
    folder: str | Path,
    inputs: Mapping[str, Any],
    about: Mapping[str, Any],
    measured: Mapping[str, Any],
) -> None:
    """Add an accuracy in hardware arithmetic to a trained model's folder, and to its card.

    Parameters
    ----------
    folder, inputs, about : as of write_trained_card
    measured : of the accelerator `design` (its name), `design_sha256` and `bits`; how exponents
        were chosen, `method` and `channels`; of the evaluation `split`, `n`, `float_accuracy`,
        `accuracy` and `agreement`. It takes the place of an earlier one of the same SETTING.
    """
    path = Path(folder) / ARITHMETIC
    with locked(path.with_name(f".{ARITHMETIC}.lock")):
        rows = json.loads(path.read_text()) if path.is_file() else []
        others = [row for row in rows if any(row[key] != measured[key] for key in SETTING)]
        write_json(path, [*others, dict(measured)])
        write_trained_card(folder, inputs, about)
