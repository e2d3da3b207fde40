"""Triton kernels that find, gather and spread the numbers of which any bit is set."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.compression import Packed

WORD = 32
"""Numbers of a word of the mask; the first is the lowest bit."""
BLOCK = 1024
"""Numbers that a program handles."""
WARPS = 1


@triton.jit
def _find(numbers, mask, counts, elements, BLOCK: tl.constexpr, WORD: tl.constexpr):  # type: ignore[no-untyped-def]
    block = tl.program_id(0).to(tl.int64)
    place = block * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(numbers + place, mask=place < elements, other=0)
    nonzero = (values != 0).to(tl.int32)
    bits = tl.reshape(nonzero, (BLOCK // WORD, WORD)) << tl.arange(0, WORD)[None, :]
    words = tl.arange(0, BLOCK // WORD)
    tl.store(mask + block * (BLOCK // WORD) + words, tl.sum(bits, axis=1))
    tl.store(counts + block, tl.sum(nonzero, axis=0))


@triton.jit
def _gather(numbers, offsets, kept, elements, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    block = tl.program_id(0).to(tl.int64)
    place = block * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(numbers + place, mask=place < elements, other=0)
    nonzero = (values != 0).to(tl.int32)
    rank = tl.cumsum(nonzero, axis=0) - nonzero
    tl.store(kept + tl.load(offsets + block) + rank, values, mask=nonzero != 0)


@triton.jit
def _spread(mask, offsets, kept, numbers, elements, BLOCK: tl.constexpr, WORD: tl.constexpr):  # type: ignore[no-untyped-def]
    block = tl.program_id(0).to(tl.int64)
    words = tl.load(mask + block * (BLOCK // WORD) + tl.arange(0, BLOCK // WORD))
    bits = (words[:, None] >> tl.arange(0, WORD)[None, :]) & 1
    nonzero = tl.reshape(bits, (BLOCK,))
    rank = tl.cumsum(nonzero, axis=0) - nonzero
    values = tl.load(kept + tl.load(offsets + block) + rank, mask=nonzero != 0, other=0)
    place = block * BLOCK + tl.arange(0, BLOCK)
    tl.store(numbers + place, values, mask=place < elements)


def find(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Find what is not zero, without waiting for it.

    Parameters
    ----------
    numbers : integers [elements], contiguous, at least one

    Returns
    -------
    mask : int32 [blocks · BLOCK / WORD]
    offsets : int64 [blocks + 1], how many are kept before each block; the last is the count of all
    """
    blocks = triton.cdiv(len(numbers), BLOCK)
    mask = numbers.new_empty(blocks * (BLOCK // WORD), dtype=torch.int32)
    offsets = numbers.new_zeros(blocks + 1, dtype=torch.int64)
    counts = offsets[1:]
    with _device(numbers):
        _find[(blocks,)](
            numbers, mask, counts, len(numbers), BLOCK=BLOCK, WORD=WORD, num_warps=WARPS
        )
    torch.cumsum(counts, 0, out=counts)
    return mask, offsets


def gather(numbers: Tensor, mask: Tensor, offsets: Tensor, count: int) -> Packed:
    """Pack what `find` has found; count is its last offset."""
    kept = numbers.new_empty(count)
    with _device(numbers):
        _gather[(len(offsets) - 1,)](
            numbers, offsets, kept, len(numbers), BLOCK=BLOCK, num_warps=WARPS
        )
    return Packed(mask, kept, len(numbers), offsets)


def expand(mask: Tensor, offsets: Tensor, kept: Tensor, elements: int) -> Tensor:
    """Return the numbers that were packed, [elements]."""
    numbers = kept.new_empty(elements)
    with _device(kept):
        _spread[(len(offsets) - 1,)](
            mask, offsets, kept, numbers, elements, BLOCK=BLOCK, WORD=WORD, num_warps=WARPS
        )
    return numbers


def _device(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device (Triton's interpreter runs on the CPU)."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
