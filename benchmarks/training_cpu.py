"""What pruning and compression cost a training step on a CPU: python benchmarks/training_cpu.py.

A step is forward, backward and AdamW of BERT-Tiny, 32 sequences of 32 to 64 tokens, float32.
Activations are half zero and gradients 90 % at every place; dense is the same model without
thresholds. The steps alternate; figures are medians. "prune" is the pruning alone, of a hidden
state and of attention probabilities, by threshold and by top-k of rows at the same sparsity, and
"inference" the forward pass with either. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from training.steps import (
    ACTIVATIONS,
    alternate,
    make_batch,
    make_model,
    prune_model,
    sparsities,
    top_k,
)

from model.compression import SavedTensorCompression
from model.flexibert import FlexiBertForSequenceClassification
from model.pruning import prune

BATCH, LENGTH, SHORTEST = 32, 64, 32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="bert-tiny")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    batch = make_batch(BATCH, LENGTH, "cpu", SHORTEST)
    dense, pruned, largest = (
        make_model(arguments.model, "cpu", torch.float32) for _ in range(3)
    )
    prune_model(pruned, batch)
    prune_model(largest, batch, selection="top_k_row")
    saved = SavedTensorCompression(pruned.parameters())
    steps = {
        "dense": step(dense, batch),
        "pruned": step(pruned, batch),
        "compressed": step(pruned, batch, saved),
    }
    seconds = alternate(steps, arguments.rounds)
    report = saved.report
    print(
        json.dumps(
            {
                "model": arguments.model,
                "threads": arguments.threads,
                "sparsity": sparsities(pruned, batch),
                "step_seconds": seconds,
                "pruned_over_dense": seconds["pruned"] / seconds["dense"],
                "compressed_over_dense": seconds["compressed"] / seconds["dense"],
                "saved_bytes": {"dense": report.dense_bytes, "compressed": report.stored_bytes},
                "packed_bytes_over_dense": report.packed_bytes / report.packed_dense_bytes,
                "prune_seconds": prunings(pruned, arguments.rounds),
                "inference_seconds": inference(
                    {"dense": dense, "threshold": pruned, "top-k": largest}, batch, arguments.rounds
                ),
            },
            indent=2,
        )
    )


def step(
    model: FlexiBertForSequenceClassification,
    batch: dict[str, Tensor],
    context: AbstractContextManager[object] = nullcontext(),  # noqa: B008  # holds no state
) -> Callable[[], None]:
    """A training step, its forward pass within a context; weights stay where they are."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0, fused=True)

    def run() -> None:
        with context:
            loss = model(**batch).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return run


def prunings(model: FlexiBertForSequenceClassification, rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of pruning one tensor by threshold and by top-k."""
    layer = model.design.layers[0]
    shapes = {
        "hidden state": (BATCH, LENGTH, layer.hidden),
        "probabilities": (BATCH, len(layer.heads), LENGTH, LENGTH),
    }
    made = {}
    for name, shape in shapes.items():
        values = torch.randn(shape)
        threshold = float(values.abs().flatten().quantile(ACTIVATIONS))
        made[name] = alternate(
            {
                "threshold": lambda values=values, threshold=threshold: prune(values, threshold),
                "top-k": lambda values=values: top_k(values, ACTIVATIONS),
            },
            rounds,
        )
    return made


@torch.no_grad()
def inference(
    models: dict[str, FlexiBertForSequenceClassification], batch: dict[str, Tensor], rounds: int
) -> dict[str, float]:
    """Seconds of a forward pass."""
    runs = {name: (lambda model=model: model(**batch)) for name, model in models.items()}
    return alternate(runs, rounds)


if __name__ == "__main__":
    main()
