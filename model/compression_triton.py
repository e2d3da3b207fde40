"""Triton kernels that pack stretches of a GPU's memory, and bring them back, many at once."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from model.compression import Stretch

WORD = 32
"""Numbers of a word of the mask; the first is the lowest bit."""
BLOCK = 1024
"""Numbers that a program handles."""
TYPES = {1: tl.int8, 2: tl.int16, 4: tl.int32, 8: tl.int64}
"""Of as many bytes."""


@triton.jit
def _read(addresses, owner, place, elements, TYPE: tl.constexpr, ALIGNED: tl.constexpr):  # type: ignore[no-untyped-def]
    numbers = tl.load(addresses + owner).to(tl.pointer_type(TYPE))
    if ALIGNED:
        numbers = tl.multiple_of(numbers, 16)
    return tl.load(numbers + place, mask=place < elements, other=0)


@triton.jit
def _find(  # type: ignore[no-untyped-def]
    addresses, sizes, firsts, owners, mask, counts,
    BLOCK: tl.constexpr, WORD: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    owner = tl.load(owners + block)
    place = (block - tl.load(firsts + owner)) * BLOCK + tl.arange(0, BLOCK)
    values = _read(addresses, owner, place, tl.load(sizes + owner), TYPE, ALIGNED)
    nonzero = (values != 0).to(tl.int32)
    bits = tl.reshape(nonzero, (BLOCK // WORD, WORD)) << tl.arange(0, WORD)[None, :]
    words = tl.arange(0, BLOCK // WORD)
    tl.store(mask + block * (BLOCK // WORD) + words, tl.sum(bits, axis=1))
    tl.store(counts + block, tl.sum(nonzero, axis=0))


@triton.jit
def _gather(  # type: ignore[no-untyped-def]
    addresses, sizes, firsts, owners, offsets, kept_addresses,
    BLOCK: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    owner = tl.load(owners + block)
    target = tl.load(kept_addresses + owner)
    if target != 0:
        first = tl.load(firsts + owner)
        place = (block - first) * BLOCK + tl.arange(0, BLOCK)
        values = _read(addresses, owner, place, tl.load(sizes + owner), TYPE, ALIGNED)
        nonzero = (values != 0).to(tl.int32)
        rank = tl.cumsum(nonzero, axis=0) - nonzero
        start = tl.load(offsets + block) - tl.load(offsets + first)
        kept = target.to(tl.pointer_type(TYPE)) + start
        tl.store(kept + rank, values, mask=nonzero != 0)


@triton.jit
def _spread(  # type: ignore[no-untyped-def]
    addresses, sizes, firsts, owners, mask, offsets, kept_addresses,
    BLOCK: tl.constexpr, WORD: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0).to(tl.int64)
    owner = tl.load(owners + block)
    target = tl.load(addresses + owner)
    if target != 0:
        first = tl.load(firsts + owner)
        words = tl.load(mask + block * (BLOCK // WORD) + tl.arange(0, BLOCK // WORD))
        bits = (words[:, None] >> tl.arange(0, WORD)[None, :]) & 1
        nonzero = tl.reshape(bits, (BLOCK,))
        rank = tl.cumsum(nonzero, axis=0) - nonzero
        start = tl.load(offsets + block) - tl.load(offsets + first)
        kept = tl.load(kept_addresses + owner).to(tl.pointer_type(TYPE)) + start
        values = tl.load(kept + rank, mask=nonzero != 0, other=0)
        place = (block - first) * BLOCK + tl.arange(0, BLOCK)
        numbers = tl.multiple_of(target.to(tl.pointer_type(TYPE)), 16)  # as PyTorch allocates
        tl.store(numbers + place, values, mask=place < tl.load(sizes + owner))


class Part:
    """A packed stretch of a group.

    Parameters
    ----------
    group : what it was packed with
    index : its place in the group
    kept : [kept], what has any bit set, in order
    """

    def __init__(self, group: Group, index: int, kept: Tensor) -> None:
        self.group, self.index, self.kept = group, index, kept

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.group.overhead(self.index) + self.kept.nbytes

    def bring_back(self, stretch: Stretch) -> None:
        """Give the stretch its numbers again, and those packed with it theirs."""
        self.group.spread()


class Group:
    """Stretches of one device and one type that are packed together.

    The search for what is not zero starts with the group; `gather` waits for its counts and packs
    what is worth it; `spread` brings all back. Each is one kernel, however many the stretches:
    to launch one for each takes the CPU longer than they run.

    Parameters
    ----------
    stretches, numbers : the stretches, and what they hold as integers, [elements], contiguous
    """

    def __init__(self, stretches: Sequence[Stretch], numbers: Sequence[Tensor]) -> None:
        self.stretches = [weakref.ref(item) for item in stretches]
        self.numbers = list(numbers)
        self.like = numbers[0].new_empty(0)  # type and device, without the memory
        self.lengths = [len(item) for item in numbers]
        self.blocks = [triton.cdiv(length, BLOCK) for length in self.lengths]
        # Loads of 16 bytes, where all begin where they may.
        self.aligned = all(item.data_ptr() % 16 == 0 for item in numbers)
        firsts = [0, *accumulate(self.blocks)]
        self.firsts = self._upload(firsts)
        self.sizes = self._upload(self.lengths)
        self.addresses = self._upload([item.data_ptr() for item in numbers])
        self.owners = torch.repeat_interleave(
            self._upload(self.blocks).to(torch.int32), output_size=firsts[-1]
        )
        self.mask = self.like.new_empty(firsts[-1] * (BLOCK // WORD), dtype=torch.int32)
        self.offsets = self.like.new_zeros(firsts[-1] + 1, dtype=torch.int64)
        self._launch(
            _find, self.addresses, self.mask, self.offsets[1:], WORD=WORD, ALIGNED=self.aligned
        )
        torch.cumsum(self.offsets, 0, out=self.offsets)
        pinned = self.like.is_cuda
        self.totals = torch.empty(len(firsts), dtype=torch.int64, pin_memory=pinned)
        self.totals.copy_(self.offsets[self.firsts], non_blocking=True)
        self.found = torch.cuda.Event() if pinned else None
        if self.found is not None:
            self.found.record(torch.cuda.current_stream(self.like.device))

    def overhead(self, index: int) -> int:
        """Bytes of a stretch's mask, owners and offsets."""
        return self.blocks[index] * (BLOCK // 8 + 4 + 8)

    def gather(self) -> list[tuple[Stretch, Part]]:
        """Pack the stretches that are still wanted, unchanged and worth it.

        Returns
        -------
        the stretches, and what takes the place of their values
        """
        if self.found is not None:
            self.found.synchronize()
        totals = self.totals.tolist()
        made: list[tuple[Stretch, Part]] = []
        targets = [0] * len(self.numbers)
        for index, numbers in enumerate(self.numbers):
            stretch = self.stretches[index]()
            kept = totals[index + 1] - totals[index]
            stored = self.overhead(index) + kept * numbers.itemsize
            if stretch is not None and not stretch.changed and stored < numbers.nbytes:
                part = Part(self, index, self.like.new_empty(kept))
                targets[index] = part.kept.data_ptr()  # 0 if nothing is kept
                made.append((stretch, part))
        if any(targets):
            self._launch(
                _gather, self.addresses, self.offsets, self._upload(targets), ALIGNED=self.aligned
            )
        self.numbers = []
        return made

    def spread(self) -> None:
        """Bring back all stretches that are packed and still wanted."""
        sources, targets = [0] * len(self.stretches), [0] * len(self.stretches)
        for reference in self.stretches:
            stretch = reference()
            part = None if stretch is None else stretch.packed
            if stretch is not None and isinstance(part, Part):
                numbers = self.like.new_empty(self.lengths[part.index])
                targets[part.index] = numbers.data_ptr()
                sources[part.index] = part.kept.data_ptr()
                stretch.hold(numbers)
        self._launch(
            _spread, self._upload(targets), self.mask, self.offsets, self._upload(sources),
            WORD=WORD,
        )  # fmt: skip

    def _upload(self, numbers: list[int]) -> Tensor:
        """Copy numbers to the device, int64, without waiting."""
        table = torch.tensor(numbers, dtype=torch.int64, pin_memory=self.like.is_cuda)
        return table.to(self.like.device, non_blocking=True)

    def _launch(self, kernel: Any, addresses: Tensor, *tensors: Tensor, **constants: Any) -> None:
        device = torch.cuda.device(self.like.device) if self.like.is_cuda else nullcontext()
        with device:
            kernel[(len(self.owners),)](
                addresses, self.sizes, self.firsts, self.owners, *tensors,
                BLOCK=BLOCK, TYPE=TYPES[self.like.itemsize], num_warps=1, **constants,
            )  # fmt: skip
