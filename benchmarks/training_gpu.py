"""What pruning and compression cost a training step on a GPU: python benchmarks/training_gpu.py.

A step is forward and backward of BERT-Base (random weights, no dropout), 128 sequences of 128
tokens, bf16, without the optimiser, which is the same for all. Every encoder is compiled without a
graph break. Activations are half zero and gradients 90 % at the places that are pruned:

- dense: PyTorch's scaled_dot_product_attention, nothing pruned
- linear: inputs, outputs and entering gradients of the linear products, the same attention
- linear fused: the same places, attention in one Triton kernel each way
- every: every place, attention materialised
- fused: every place, attention in one Triton kernel each way
- linear packed, every packed: the same, and the graph packs what pruning made for the backward pass
- linear packed masks, every packed masks: masks too, a bit a number
- linear compressed, every compressed: the same, and hooks pack what is saved for the backward pass.
  Embeddings and layers are compiled one by one, so that what they save is packed while the next
  ones run

With --graphs, all but the compressed ones are compiled into CUDA graphs, whose kernels the CPU
launches at once.

"saved" is what autograd saves, of the compressed ones dense and packed; "packed" what a graph packs
of it (none of a graph from PyTorch's cache), and what had no room; "peak_bytes" the memory of a
step beyond weights and batch.

The variants alternate, twenty steps each; figures are medians. "step" is what the machine takes,
and "gpu" what the kernels take, by PyTorch's profiler: where the CPU takes longer to launch them
the two differ. "products" runs each model without compilation and adds up what linear products and
attention's products save for the backward pass: each operand once.
"prune" is the pruning alone, by threshold and by top-k of rows. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
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
from model.compression_graph import GraphPacking
from model.flexibert import FlexiBertForSequenceClassification
from model.layers import FlexiBertLayer
from model.pruning import prune
from model.space import TransformerDesign

BETWEEN_PRODUCTS = ("score", "attention_softmax")
"""Places that attention in one kernel of PyTorch's does not have."""
ROOM = 0.53
"""Of a graph's packed tensors, which are half zero."""
REPEATS = 20
"""Steps that are timed together."""
Saved = SavedTensorCompression


class LayerWithTorch(FlexiBertLayer):
    """PyTorch's attention of sequences without padding; what the products write is pruned.

    The model's own, attn_implementation "sdpa", takes a mask, which flash attention does not. A
    class of its own: where a layer's method was replaced, PyTorch 2.11 took the graph that it had
    compiled for the layer with the replaced one for the layer without it, too.
    """

    def attend(self, hidden: Tensor, valid_mask: Tensor) -> Tensor:
        """Contexts of all heads side by side."""
        rows = valid_mask[:, :, None, None]

        def stored(name: str, values: Tensor) -> Tensor:
            values = self.pruner.product(values, self.index, name, rows)
            return self.pruner.store(values, self.index, name, rows)

        made = [
            stored(name, getattr(self, name)(hidden).unflatten(2, (-1, self.head_size)))
            for name in ("query", "key", "value")
        ]
        made = [item.transpose(1, 2) for item in made]
        context = functional.scaled_dot_product_attention(*made).transpose(1, 2)
        return stored("context", context).flatten(2)


def design(arguments: argparse.Namespace) -> TransformerDesign:
    """The model, or its first layers: a step's ratios hardly change, its compilation does."""
    whole = TransformerDesign.load(arguments.model)
    return whole.model_copy(update={"layers": whole.layers[: arguments.layers]})


def variant(name: str, arguments: argparse.Namespace, batch: dict[str, Tensor]) -> Any:
    """A model of the variant, a step of it, the context of its forward pass, and its packing."""
    words = name.split()
    model = make_model(design(arguments), "cuda", torch.bfloat16)
    if name != "dense":
        prune_model(model, batch, BETWEEN_PRODUCTS if "linear" in words else ())
    if "fused" in words:
        model.set_attn_implementation("triton")
    elif "every" not in words:
        for layer in model.encoder.layers:
            layer.__class__ = LayerWithTorch
    regions, compressed = [model.encoder], "compressed" in words
    if compressed:
        regions = [model.encoder.embeddings, *model.encoder.layers]
    options: dict[str, Any] = {"triton.cudagraphs": arguments.graphs and not compressed}
    packing = None
    if "packed" in words:
        packing = GraphPacking(ROOM, "cuda", masks="masks" in words)
        options = packing.options(arguments.graphs)
    for region in regions:
        # The variants share the code that is compiled: none is to be made for the sizes of all.
        region.compile(fullgraph=True, dynamic=False, options=options)
    saved: Any = Saved(model.parameters()) if compressed else nullcontext()

    def step() -> None:
        torch.compiler.cudagraph_mark_step_begin()
        with saved:
            loss = model(**batch).loss
        loss.backward()
        model.zero_grad()

    return model, step, saved, packing


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    batch = make_batch(arguments.batch, arguments.length, "cuda")
    reference = make_model(design(arguments), "cuda", torch.bfloat16)
    prune_model(reference, batch)
    found = sparsities(reference, batch)
    made = {name: variant(name, arguments, batch) for name in arguments.variants}
    result: dict[str, Any] = {"sparsity": found, "saved": {}, "packed": {}, "peak_bytes": {}}
    for name, (model, step, saved, packing) in made.items():
        begun = time.monotonic()
        step()
        print(f"{name}: compiled in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        counter = Saved(model.parameters(), minimum_elements=2**62)
        with counter:
            loss = model(**batch).loss
        del loss
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        result["peak_bytes"][name] = torch.cuda.max_memory_allocated() - before
        result["saved"][name] = vars(saved.report if isinstance(saved, Saved) else counter.report)
        if packing is not None:
            result["packed"][name] = packed(packing)
    steps = {name: step for name, (_, step, *_) in made.items()}
    found = alternate(
        {name: partial(repeat, step) for name, step in steps.items()},
        arguments.rounds,
        torch.cuda.synchronize,
    )
    for key, seconds in {
        "step": {name: value / REPEATS for name, value in found.items()},
        "gpu": {name: gpu_seconds(step) for name, step in steps.items()},
    }.items():
        result[f"{key}_seconds"] = seconds
        result[f"{key}_over_dense"] = {name: seconds[name] / seconds["dense"] for name in seconds}
    del made, steps
    result["products"] = products(reference, batch)
    result["prune_seconds"] = prunings(arguments)
    return result


def packed(packing: GraphPacking) -> dict[str, Any]:
    """What a graph packs, and whether all had room."""
    kept = ("tensors", "dense_bytes", "stored_bytes", "mask_bytes")
    found: dict[str, Any] = {name: getattr(packing, name) for name in kept}
    try:
        packing.check()
    except RuntimeError as error:
        found["no_room"] = str(error)
    return found


def repeat(step: Callable[[], object]) -> None:
    """Steps as a training has them, where the GPU need not wait for the CPU but at first."""
    for _ in range(REPEATS):
        step()


def gpu_seconds(step: Callable[[], object]) -> float:
    """What the kernels of a step take, whatever time the CPU takes to launch them."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        repeat(step)
        torch.cuda.synchronize()
    kernels = profiler.key_averages()
    return sum(kernel.self_device_time_total for kernel in kernels) / REPEATS / 1e6


def products(
    model: FlexiBertForSequenceClassification, batch: dict[str, Tensor]
) -> dict[str, float]:
    """Bytes of the operands that products save, each memory once: dense, and packed."""
    operands: list[Tensor] = []

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        operands.append(inputs[0])

    handles = [
        module.register_forward_pre_hook(read)
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    stored = type(model.dynaprop).store

    def note(pruner: Any, values: Tensor, layer: Any, operation: str, *rest: Any) -> Tensor:
        made = stored(pruner, values, layer, operation, *rest)
        if operation in ("query", "key", "value", "attention_softmax"):
            operands.append(made)
        return made

    model.dynaprop.store = MethodType(note, model.dynaprop)
    model(**batch)
    del model.dynaprop.store
    for handle in handles:
        handle.remove()
    distinct = {item.data_ptr(): item.detach() for item in operands}
    anchor = torch.zeros((), device="cuda", requires_grad=True)
    with Saved(waiting_bytes=2**26) as saved:
        kept = _Keep.apply(anchor, *distinct.values())
    report = saved.report
    del kept
    return {
        "dense_bytes": report.dense_bytes,
        "stored_bytes": report.stored_bytes,
        "ratio": report.stored_bytes / report.dense_bytes,
    }


class _Keep(torch.autograd.Function):
    """Saves tensors for a backward pass."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return anchor.clone()


def prunings(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of pruning one tensor, by threshold and by top-k."""
    shapes = {
        "hidden state": (arguments.batch, arguments.length, 768),
        "probabilities": (arguments.batch, 12, arguments.length, arguments.length),
    }
    made = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
        threshold = float(values.abs().flatten()[: 2**20].float().quantile(ACTIVATIONS))
        runs: dict[str, Callable[[], object]] = {
            "threshold": partial(prune, values, threshold),
            "top-k": partial(top_k, values, ACTIVATIONS),
        }
        made[name] = alternate(runs, arguments.rounds, torch.cuda.synchronize)
    return made


VARIANTS = (
    "dense", "linear", "linear fused", "every", "fused", "linear packed", "every packed",
    "linear packed masks", "every packed masks", "linear compressed", "every compressed",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--model", default="bert-base")
    parser.add_argument("--layers", type=int, help="the first so many; default: all")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--graphs", action="store_true", help="replay the steps as CUDA graphs")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("No GPU: nothing is measured.")
        return
    # The layers have their indices, thresholds and widths: a compiled region each.
    torch._dynamo.config.recompile_limit = 64
    result = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, **measure(arguments)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
