"""Training one model, as the command line asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.data import load_task
from model.policy import PruningPolicy
from model.pretraining import PretrainingRecipe, pretrain
from model.recipe import Recipe
from model.train import train
from model.trained import final_test, summary


def train_one(
    model: str,
    task: str,
    seed: int,
    folder: Path,
    policy: PruningPolicy,
    recipe: Recipe,
    final: bool,
    progress: Callable[[float, str], None],
    sequence_length: int | None = None,
    encoder: str | None = None,
    device: str = "cpu",
    trace_at: tuple[float, ...] = (),
) -> dict[str, Any]:
    """Train a model, and open the test split if `final`; the object that --json prints."""
    loaded = load_task(task, sequence_length)
    trained = train(
        model,
        loaded,
        policy,
        recipe,
        seed,
        folder,
        progress=lambda now: progress(now.fraction, now.phase),
        encoder=encoder,
        device=device,
        trace_at=trace_at,
    )
    progress(1.0, "done")
    return summary(trained, final_test(trained, loaded) if final else None)


def pretrain_one(
    model: str,
    seed: int,
    folder: Path,
    epochs: float | None,
    progress: Callable[[float, str], None],
) -> dict[str, Any]:
    """Pre-train an encoder; the object that --json prints."""
    recipe = PretrainingRecipe() if epochs is None else PretrainingRecipe(epochs=epochs)
    made = pretrain(
        model, folder, recipe, seed, progress=lambda now: progress(now.fraction, now.phase)
    )
    progress(1.0, "done")
    return {**vars(made), "path": str(made.path)}
