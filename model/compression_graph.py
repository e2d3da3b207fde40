"""What a compiled graph saves for its backward pass, packed by the graph itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, fx
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor.custom_graph_pass import CustomPartitionerFn, get_hash_for_files
from torch._inductor.decomposition import select_decomp_table
from torch.fx.experimental.proxy_tensor import make_fx

from model.compression import BITS_TYPES, extent

HEADER = 16
"""Bytes before the mask; the first four are how many numbers were to be kept."""
BLOCK = 1024
"""Numbers whose kept ones lie together."""
WHOLE = 10_000
"""Of a density of 1, as an integer."""
WORD = 32
"""Bits in an int32."""

aten = torch.ops.aten
_SAME_NUMBERS = {
    aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.expand.default,
    aten.permute.default, aten.transpose.int, aten.t.default, aten.unsqueeze.default,
    aten.squeeze.dim, aten.alias.default, aten.clone.default,
}  # fmt: skip
_worst: dict[torch.device, Tensor] = {}

Way: TypeAlias = Callable[[Tensor], Tensor]


class Layout(NamedTuple):
    """Where a packed tensor's parts begin, in bytes.

    The header, a bit a number in int32 words (the first is the lowest), where each block's kept
    numbers begin in int32, the numbers that are kept, in whatever order of blocks.
    """

    blocks: int
    starts: int
    kept: int
    nbytes: int

    @classmethod
    def of(cls, elements: int, itemsize: int, capacity: int) -> Layout:
        """Lay out so many numbers of which at most `capacity` are kept."""
        blocks = -(-elements // BLOCK)
        starts = HEADER + blocks * (BLOCK // 8)
        kept = -(-(starts + 4 * blocks) // 16) * 16
        return cls(blocks, starts, kept, kept + capacity * itemsize)


def _flat(values: Tensor) -> Tensor:
    """The numbers of a tensor without gaps, in the order of memory, as integers."""
    if extent(values) != values.numel():
        raise ValueError(
            f"a tensor of size {tuple(values.shape)} and strides {values.stride()} has gaps or "
            "overlaps, which cannot be packed; pass .contiguous()"
        )
    return values.as_strided((values.numel(),), (1,)).view(BITS_TYPES[values.itemsize])


def _note_overflow(device: torch.device) -> Tensor:
    """Highest density, of WHOLE, of a tensor that had no room; 0 if all had."""
    if device not in _worst:
        _worst[device] = torch.zeros(1, dtype=torch.int32, device=device)
    return _worst[device]


@torch.library.custom_op("transcode::pack", mutates_args=(), device_types="cpu")
def pack(values: Tensor, capacity: int) -> Tensor:
    """Pack a tensor without gaps into uint8 [Layout.nbytes]."""
    numbers = _flat(values)
    layout = Layout.of(len(numbers), values.itemsize, capacity)
    packed = values.new_zeros(layout.nbytes, dtype=torch.uint8)
    bits = torch.zeros(layout.blocks, BLOCK, dtype=torch.int64)
    bits.view(-1)[: len(numbers)] = numbers != 0
    counts = bits.sum(1)
    total = int(counts.sum())
    packed[:4].view(torch.int32)[0] = total
    words = (bits.view(-1, WORD) << torch.arange(WORD)).sum(1).to(torch.int32)
    packed[HEADER : layout.starts].view(torch.int32)[:] = words
    begins = packed[layout.starts : layout.starts + 4 * layout.blocks].view(torch.int32)
    begins[:] = counts.cumsum(0) - counts
    fitting = min(total, capacity)
    kept = packed[layout.kept :].view(numbers.dtype)
    kept[:fitting] = numbers[numbers != 0][:fitting]
    if total > capacity:
        worst = _note_overflow(values.device)
        worst.clamp_(min=math.ceil(total * WHOLE / len(numbers)))
    return packed


@pack.register_fake
def _(values: Tensor, capacity: int) -> Tensor:
    layout = Layout.of(values.numel(), values.itemsize, capacity)
    return values.new_empty(layout.nbytes, dtype=torch.uint8)


@pack.register_kernel("cuda")
def _(values: Tensor, capacity: int) -> Tensor:
    from model.compression_graph_triton import pack_into  # which needs triton, as no CPU does

    numbers = _flat(values)
    layout = Layout.of(len(numbers), values.itemsize, capacity)
    packed = values.new_empty(layout.nbytes, dtype=torch.uint8)
    pack_into(packed, numbers, layout, capacity, _note_overflow(values.device))
    return packed


@torch.library.custom_op("transcode::unpack", mutates_args=(), device_types="cpu")
def unpack(
    packed: Tensor, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, capacity: int
) -> Tensor:
    """Return the tensor that was packed, in its size and strides."""
    values = torch.empty_strided(size, stride, dtype=dtype)
    numbers = _flat(values)
    layout = Layout.of(len(numbers), dtype.itemsize, capacity)
    words = packed[HEADER : layout.starts].view(torch.int32)
    nonzero = ((words[:, None] >> torch.arange(WORD)) & 1).view(-1)[: len(numbers)] != 0
    kept = packed[layout.kept :].view(numbers.dtype)
    places = nonzero.nonzero()[:, 0][:capacity]
    numbers.zero_()[places] = kept[: len(places)]
    return values


@unpack.register_fake
def _(
    packed: Tensor, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, capacity: int
) -> Tensor:
    return packed.new_empty_strided(size, stride, dtype=dtype)


@unpack.register_kernel("cuda")
def _(
    packed: Tensor, size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, capacity: int
) -> Tensor:
    from model.compression_graph_triton import unpack_into

    values = packed.new_empty_strided(size, stride, dtype=dtype)
    numbers = _flat(values)
    unpack_into(numbers, packed, Layout.of(len(numbers), dtype.itemsize, capacity), capacity)
    return values


def pack_mask(mask: Tensor) -> Tensor:
    """Put a bool tensor without gaps, of a multiple of WORD numbers, into int32 [numbers / WORD].

    In PyTorch's own operations, which the compiler fuses with what makes the mask.
    """
    rows = mask.permute(_order(mask)).reshape(-1, WORD).to(torch.int32)
    places = torch.arange(WORD, dtype=torch.int32, device=mask.device)
    return torch.bitwise_left_shift(rows, places).sum(1, dtype=torch.int32)


def unpack_mask(words: Tensor, like: Tensor) -> Tensor:
    """Return the mask that was packed, in the size and strides of another tensor."""
    places = torch.arange(WORD, dtype=torch.int32, device=words.device)
    rows = torch.bitwise_right_shift(words[:, None], places) & 1 != 0
    order = _order(like)
    inverse = sorted(range(like.dim()), key=order.__getitem__)
    return rows.view([like.shape[dimension] for dimension in order]).permute(inverse)


def _order(values: Tensor) -> list[int]:
    """Dimensions in the order of memory, the one with the longest steps first."""
    return sorted(range(values.dim()), key=values.stride, reverse=True)


class GraphPacking(CustomPartitionerFn):
    """Splits a compiled graph so that pruned tensors wait packed for its backward pass.

    `model.compression.SavedTensorCompression` packs what autograd saves, outside of compiled
    regions, and asks a GPU for counts to allocate as much as is kept. Here kernels of the graph
    pack each tensor right after it is made, into memory for a density that is set beforehand, and
    bring it back right before its first use: no hooks, nothing that the CPU waits for, and the
    steps can be CUDA graphs. Packed are tensors that pruning by a threshold made, of sizes that
    the graph knows (dynamic=False). A number is kept if any of its bits is set: every bit comes
    back, if all find room. Masks of what was pruned, or dropped out, take a bit a number instead of
    a byte.

    If one has more numbers than there is room for, what comes back of it is wrong, and so are the
    gradients: `check` says so. Call it between the backward pass and the optimiser.

    Parameters
    ----------
    density : room in every packed tensor, as a share of its numbers; above 0, at most 1
    device : of the model
    minimum_elements : tensors of fewer are stored as they are
    masks : whether masks are packed, too; it takes time

    Attributes
    ----------
    tensors, dense_bytes, stored_bytes : int
        What is packed of the graphs that were split so far (none, where PyTorch's cache had them),
        without masks.
    mask_bytes : int
        Of the masks that are packed, before; an eighth is stored.

    Examples
    --------
    >>> packing = GraphPacking(density=0.55, device="cuda")  # doctest: +SKIP
    >>> model.encoder.compile(dynamic=False, options=packing.options())  # doctest: +SKIP
    >>> model(**batch).loss.backward()  # doctest: +SKIP
    >>> packing.check()  # doctest: +SKIP
    """

    def __init__(
        self,
        density: float,
        device: torch.device | str,
        minimum_elements: int = 16384,
        masks: bool = True,
    ) -> None:
        if not 0 < density <= 1:
            raise ValueError(f"density must be above 0 and at most 1, not {density}")
        if minimum_elements < 1:
            raise ValueError(f"minimum_elements must be at least 1, not {minimum_elements}")
        self.density, self.minimum_elements, self.masks = density, minimum_elements, masks
        self.tensors = self.dense_bytes = self.stored_bytes = self.mask_bytes = 0
        # Made here, since a CUDA graph would take it into memory that it uses again.
        device = torch.empty(0, device=device).device
        self._overflow = _note_overflow(device)

    def options(self, cuda_graphs: bool = True) -> dict[str, Any]:
        """Return what torch.compile takes as its options."""
        return {"custom_partitioner_fn": self, "triton.cudagraphs": cuda_graphs}

    def check(self) -> None:
        """Find out whether all numbers found room since the last time; waits for the device.

        Raises
        ------
        RuntimeError
            If not. The gradients since then are wrong.
        """
        worst = int(self._overflow)
        if worst:
            self._overflow.zero_()
            raise RuntimeError(
                f"a tensor of density {worst / WHOLE:.4f} was packed with room for density "
                f"{self.density}: its gradients are wrong; zero them, set GraphPacking(density=…) "
                "higher or the thresholds, and compile again"
            )

    def uuid(self) -> Any:
        """Return what makes PyTorch's cache of compiled graphs tell this one from others."""
        chosen = f"{self.density} {self.minimum_elements} {self.masks}"
        return get_hash_for_files((__file__,), chosen)

    def __call__(
        self, gm: fx.GraphModule, joint_inputs: Sequence[object], **kwargs: Any
    ) -> tuple[fx.GraphModule, fx.GraphModule]:
        """Split a joint graph as PyTorch does, and pack between its halves."""
        forward, backward = min_cut_rematerialization_partition(gm, joint_inputs, **kwargs)
        (output,) = forward.graph.find_nodes(op="output")
        results = list(output.args[0])
        given = {node.name: node for node in backward.graph.find_nodes(op="placeholder")}
        for index in range(kwargs["num_fwd_outputs"], len(results)):
            node = results[index]
            if ways := self._ways(node):
                there, back = ways
                results[index] = packed = _insert(forward.graph, there, node, node.next)
                _read_through(backward.graph, back, given[node.name], packed.meta)
        output.args = (type(output.args[0])(results), *output.args[1:])
        for module in (forward, backward):
            module.graph.lint()
            module.recompile()
        return forward, backward

    def _ways(self, node: Any) -> tuple[Way, Way] | None:
        """How a node's tensor is packed and brought back; None where it stays as it is."""
        made = isinstance(node, fx.Node) and node.op == "call_function"
        value = node.meta.get("val") if made else None
        if (
            not isinstance(value, Tensor)
            or not all(isinstance(size, int) for size in value.shape)
            or value.numel() < self.minimum_elements
            or extent(value) != value.numel()  # gaps or overlaps
        ):
            return None
        if self.masks and value.dtype == torch.bool and value.numel() % WORD == 0:
            self.mask_bytes += value.nbytes
            return pack_mask, partial(unpack_mask, like=value)
        if not value.is_floating_point() or not _is_pruned(node):
            return None
        room = math.ceil(self.density * value.numel())
        self.tensors += 1
        self.dense_bytes += value.nbytes
        self.stored_bytes += Layout.of(value.numel(), value.itemsize, room).nbytes
        form = {"size": value.shape, "stride": value.stride(), "dtype": value.dtype}
        return partial(pack, capacity=room), partial(unpack, **form, capacity=room)


def _insert(graph: fx.Graph, way: Way, node: fx.Node, place: fx.Node) -> fx.Node:
    """Put what a function does with a node's tensor into a graph, before a place of it."""
    value = node.meta["val"]
    with value.fake_mode:
        traced = make_fx(way, select_decomp_table())(value).graph
    (given,) = traced.find_nodes(op="placeholder")
    with graph.inserting_before(place):
        made = graph.graph_copy(traced, {given: node})
    assert isinstance(made, fx.Node)
    return made


def _read_through(graph: fx.Graph, way: Way, given: fx.Node, meta: dict[str, Any]) -> None:
    """Bring a packed tensor that is given to a graph back before its first user."""
    users = dict.fromkeys(given.users)
    given.meta = meta.copy()
    restored = _insert(graph, way, given, next(node for node in graph.nodes if node in users))
    for user in users:
        user.replace_input_with(given, restored)


def _is_pruned(node: fx.Node) -> bool:
    """Whether a node's numbers are those that `model.pruning.prune` writes, scaled or not."""
    while node.target in _SAME_NUMBERS or (
        node.target is aten.mul.Tensor and isinstance(node.args[1], float)
    ):
        (node, *_) = node.all_input_nodes
    if node.target is not aten.where.self:
        return False
    zero = node.args[1]
    if not isinstance(zero, fx.Node):
        return False
    if zero.target is aten.full.default:
        return zero.args[1] == 0
    return zero.target is aten.scalar_tensor.default and zero.args[0] == 0
