"""Triton kernels that pack a tensor in one pass, and bring it back."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.compression_graph import BLOCK, HEADER, WHOLE, WORD, Layout
from model.compression_triton import TYPES

WARPS = 1
"""Of a program; an H100 packs 25 MB in 27 µs so, in 32 µs with 4096 numbers and 4 warps a block."""


@triton.jit
def _pack(  # type: ignore[no-untyped-def]
    numbers, packed, starts_at, kept_at, elements, capacity, worst,
    BLOCK: tl.constexpr, WORD: tl.constexpr, HEADER: tl.constexpr, WHOLE: tl.constexpr,
    TYPE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    place = block * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(numbers + place, mask=place < elements, other=0)
    nonzero = (values != 0).to(tl.int32)
    bits = tl.reshape(nonzero, (BLOCK // WORD, WORD)) << tl.arange(0, WORD)[None, :]
    words = (packed + HEADER).to(tl.pointer_type(tl.int32)) + block * (BLOCK // WORD)
    tl.store(words + tl.arange(0, BLOCK // WORD), tl.sum(bits, axis=1))
    count = tl.sum(nonzero, axis=0)
    # Blocks take their room as they come: no pass over all of them before.
    start = tl.atomic_add(packed.to(tl.pointer_type(tl.int32)), count, sem="relaxed")
    tl.store((packed + starts_at).to(tl.pointer_type(tl.int32)) + block, start)
    target = start + tl.cumsum(nonzero, axis=0) - nonzero
    kept = (packed + kept_at).to(tl.pointer_type(TYPE))
    tl.store(kept + target, values, mask=(nonzero != 0) & (target < capacity))
    if start + count > capacity:
        density = (start + count).to(tl.float32) / elements * WHOLE
        tl.atomic_max(worst, tl.ceil(density).to(tl.int32), sem="relaxed")


@triton.jit
def _unpack(  # type: ignore[no-untyped-def]
    numbers, packed, starts_at, kept_at, elements, capacity,
    BLOCK: tl.constexpr, WORD: tl.constexpr, HEADER: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    words = (packed + HEADER).to(tl.pointer_type(tl.int32)) + block * (BLOCK // WORD)
    taken = tl.load(words + tl.arange(0, BLOCK // WORD))
    nonzero = tl.reshape((taken[:, None] >> tl.arange(0, WORD)[None, :]) & 1, (BLOCK,))
    start = tl.load((packed + starts_at).to(tl.pointer_type(tl.int32)) + block)
    source = start + tl.cumsum(nonzero, axis=0) - nonzero
    kept = (packed + kept_at).to(tl.pointer_type(TYPE))
    values = tl.load(kept + source, mask=(nonzero != 0) & (source < capacity), other=0)
    place = block * BLOCK + tl.arange(0, BLOCK)
    tl.store(numbers + place, values, mask=place < elements)


def pack_into(
    packed: Tensor, numbers: Tensor, layout: Layout, capacity: int, worst: Tensor
) -> None:
    """Pack numbers, [elements]; where one has no room, `worst` becomes at least their density."""
    packed[:HEADER].zero_()
    _launch(_pack, numbers, packed, layout, capacity, worst, WHOLE=WHOLE)


def unpack_into(numbers: Tensor, packed: Tensor, layout: Layout, capacity: int) -> None:
    """Bring numbers back, [elements]."""
    _launch(_unpack, numbers, packed, layout, capacity)


def _launch(
    kernel: Any,
    numbers: Tensor,
    packed: Tensor,
    layout: Layout,
    capacity: int,
    *more: Tensor,
    **constants: Any,
) -> None:
    with torch.cuda.device(numbers.device) if numbers.is_cuda else nullcontext():
        kernel[(layout.blocks,)](
            numbers, packed, layout.starts, layout.kept, len(numbers), capacity, *more,
            BLOCK=BLOCK, WORD=WORD, HEADER=HEADER, TYPE=TYPES[numbers.itemsize],
            num_warps=WARPS, **constants,
        )  # fmt: skip
