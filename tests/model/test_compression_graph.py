"""A compiled graph packs what pruning made for its backward pass, and says where it had no room."""

import math

import pytest
import torch
from functorch.compile import make_boxed_func
from small import batch, make_model
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import min_cut_rematerialization_partition

from model.compression_graph import (
    BLOCK,
    GraphPacking,
    Layout,
    pack,
    pack_mask,
    unpack,
    unpack_mask,
)
from model.space import TransformerDesign

torch.set_num_threads(1)

DESIGN = TransformerDesign.load(
    {
        "layers": [{"hidden": 16, "heads": ["sa_sdp"] * 2, "feed_forward": [24]}] * 2,
        "vocabulary": 200,
        "max_positions": 24,
    }
)


@pytest.fixture(autouse=True)
def _forget_compiled():
    yield
    torch.compiler.reset()


def numbers(elements, dtype, share):
    """Random numbers, some zero, with a negative zero and a NaN at their end."""
    generator = torch.Generator().manual_seed(elements)
    values = torch.randn(elements, generator=generator).to(dtype)
    values[torch.rand(elements, generator=generator) < share] = 0
    values[-2:] = torch.tensor([-0.0, torch.nan]).to(dtype)[-min(2, elements) :]
    return values


def bits(values):
    return values.contiguous().view(torch.uint8)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("elements", [1, 33, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_every_bit_comes_back(dtype, elements, share):
    packing = GraphPacking(1, "cpu")
    values = numbers(elements, dtype, share)
    kept = int((values.view(torch.uint8).view(elements, -1) != 0).any(1).sum())
    packed = pack(values, kept)
    layout = Layout.of(elements, dtype.itemsize, kept)
    assert packed.nbytes == layout.nbytes
    # A bit a number in whole blocks, a start for each block, and what is kept.
    whole = -(-elements // BLOCK) * BLOCK
    assert layout.nbytes - kept * dtype.itemsize - whole // 8 - 4 * layout.blocks < 32
    assert torch.equal(bits(unpack(packed, [elements], [1], dtype, kept)), bits(values))
    packing.check()
    pack(values, kept - 1)
    density = math.ceil(10_000 * kept / elements) / 10_000
    with pytest.raises(RuntimeError, match=f"density {density:.4f} was"):
        packing.check()
    packing.check()


def test_sizes_and_strides_come_back():
    values = numbers(6 * 5 * 4, torch.float32, 0.5).view(6, 5, 4).transpose(0, 2)
    back = unpack(pack(values, 120), values.shape, values.stride(), values.dtype, 120)
    assert back.stride() == values.stride() and torch.equal(bits(back), bits(values))


def test_gaps_and_overlaps_are_refused():
    values = numbers(64, torch.float32, 0.5)
    for view in (values[::2], values.view(8, 8)[:, :5], values[:, None].expand(64, 3)):
        with pytest.raises(ValueError, match="has gaps or overlaps, which cannot be packed"):
            pack(view, 32)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_masks_come_back(order):
    mask = (numbers(4 * 24 * 2, torch.float32, 0.5) != 0).view(4, 24, 2).permute(order)
    words = pack_mask(mask)
    assert words.dtype == torch.int32 and words.shape == (4 * 24 * 2 // 32,)
    back = unpack_mask(words, mask)
    assert back.stride() == mask.stride() and torch.equal(back, mask)


def test_what_a_compiler_must_know_of_the_operations():
    values = numbers(640, torch.bfloat16, 0.5).nan_to_num()
    torch.library.opcheck(pack, (values, 640))
    torch.library.opcheck(unpack, (pack(values, 640), [640], [1], torch.bfloat16, 640))


def graphs(partition, dynamic=False, **policy):
    """Gradients of a step, and the tensors between the halves of its graph."""
    model = make_model(0.3, DESIGN, gradient_threshold=1e-3, **policy)
    between = []

    def forward(module, inputs):
        (output,) = module.graph.find_nodes(op="output")
        between.extend(node.meta["val"] for node in output.args[0] if node.op == "call_function")
        return make_boxed_func(module)

    backend = aot_autograd(
        fw_compiler=forward,
        bw_compiler=lambda module, inputs: make_boxed_func(module),
        partition_fn=partition,
    )
    model.encoder.compile(fullgraph=True, dynamic=dynamic, backend=backend)
    model(**batch(0, 8), labels=torch.arange(8) % 2).loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found, between


def test_a_graph_packs_what_was_pruned():
    gradients, saved = graphs(min_cut_rematerialization_partition)
    torch.compiler.reset()
    packing = GraphPacking(0.95, "cpu", minimum_elements=64)
    packed_gradients, packed = graphs(packing)
    packing.check()
    assert gradients.keys() == packed_gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, packed_gradients[name]), name
    # Of each layer queries, keys, values, probabilities, contexts, GELU's results, both norms' (the
    # last one's is read by no product), and the embedding's.
    buffers = [value.nbytes for value in packed if value.dtype == torch.uint8]
    assert len(buffers) == packing.tensors and sum(buffers) == packing.stored_bytes
    assert packing.tensors == 2 * 8
    assert packing.stored_bytes < packing.dense_bytes
    # Of each layer's masks those of scores, too; and of what the products write.
    masks = [value for value in saved if value.dtype == torch.bool and value.numel() >= 64]
    assert len(masks) >= 2 * 9
    assert not any(value.dtype == torch.bool and value.numel() >= 64 for value in packed)
    assert packing.mask_bytes == sum(value.numel() for value in masks)
    dense = sum(value.nbytes for value in saved) - sum(value.nbytes for value in packed)
    spared = packing.dense_bytes - packing.stored_bytes + packing.mask_bytes * 7 // 8
    assert dense == spared
    torch.compiler.reset()
    without = GraphPacking(0.95, "cpu", minimum_elements=64, masks=False)
    _, packed = graphs(without)
    assert without.stored_bytes == packing.stored_bytes and without.mask_bytes == 0
    found = sum(value.nbytes for value in packed if value.dtype == torch.bool)
    assert found >= packing.mask_bytes


def test_a_graph_without_room_says_so():
    packing = GraphPacking(0.2, "cpu", minimum_elements=64)
    graphs(packing)
    with pytest.raises(RuntimeError, match=r"with room for density 0.2: its gradients are wrong"):
        packing.check()


def test_small_tensors_and_what_is_not_pruned_stay():
    packing = GraphPacking(0.95, "cpu", minimum_elements=10**6)
    graphs(packing)
    assert packing.tensors == 0
    packing = GraphPacking(0.95, "cpu", minimum_elements=64)
    graphs(packing, activations_off=["feed_forward_0"])
    assert packing.tensors == 2 * 8 - 2


def test_sizes_that_the_graph_does_not_know_stay():
    gradients, _ = graphs(min_cut_rematerialization_partition)
    torch.compiler.reset()
    packing = GraphPacking(0.95, "cpu", minimum_elements=64)
    dynamic_gradients, _ = graphs(packing, dynamic=True)
    assert packing.tensors == 0
    for name, gradient in gradients.items():
        torch.testing.assert_close(dynamic_gradients[name], gradient)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"density": 0}, "density must be above 0 and at most 1, not 0"),
        ({"density": 1.5}, "density must be above 0 and at most 1, not 1.5"),
        ({"density": 0.5, "minimum_elements": 0}, "minimum_elements must be at least 1, not 0"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GraphPacking(**arguments, device="cpu")


def test_the_cache_of_graphs_tells_settings_apart():
    chosen = [(0.5, 64, True), (0.6, 64, True), (0.5, 128, True), (0.5, 64, False)]
    ids = {
        GraphPacking(density, "cpu", minimum_elements, masks).uuid()
        for density, minimum_elements, masks in chosen
    }
    assert len(ids) == len(chosen)
    assert GraphPacking(0.5, "cpu").options(False)["triton.cudagraphs"] is False


@pytest.mark.slow
def test_with_the_compilers_own_kernels():
    def gradients(options):
        torch.compiler.reset()
        model = make_model(0.3, DESIGN, gradient_threshold=1e-3)
        model.encoder.compile(fullgraph=True, dynamic=False, options=options)
        model(**batch(0, 8), labels=torch.arange(8) % 2).loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    packing = GraphPacking(0.95, "cpu", minimum_elements=64)
    packed = gradients(packing.options(cuda_graphs=False))
    packing.check()
    assert packing.tensors == 2 * 8
    assert all(map(torch.equal, gradients({}), packed))
