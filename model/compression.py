"""Tensors that autograd saves for the backward pass, stored as a mask of bits and what is kept."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

BITS_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type of as many bytes as a number has."""


@dataclass(frozen=True)
class Packed:
    """Numbers as the bits of those that are not zero.

    Parameters
    ----------
    mask : one bit a number; how they lie is the device's affair
    kept : [kept], what has any bit set, in order
    elements : how many numbers
    offsets : int64 [blocks + 1], on a GPU, where the kept numbers of each block begin
    """

    mask: Tensor
    kept: Tensor
    elements: int
    offsets: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(part.nbytes for part in (self.mask, self.kept, self.offsets) if part is not None)

    def expand(self) -> Tensor:
        """Return the numbers, [elements], bit for bit."""
        if self.offsets is not None:
            from model.compression_triton import expand

            return expand(self.mask, self.offsets, self.kept, self.elements)
        mask = np.unpackbits(self.mask.numpy(), count=self.elements)
        numbers = torch.zeros(self.elements, dtype=self.kept.dtype)
        return numbers.scatter_(0, torch.from_numpy(np.flatnonzero(mask)), self.kept)


def pack(numbers: Tensor) -> Packed | None:
    """Pack integers, [elements], on the CPU.

    Returns
    -------
    None where that would take no less memory.
    """
    array = numbers.numpy()
    nonzero = array != 0
    kept = int(np.count_nonzero(nonzero))
    if -(-len(array) // 8) + kept * array.itemsize >= array.nbytes:
        return None
    # NumPy's packbits and compress take a tenth of the time of torch's masked_select.
    mask = torch.from_numpy(np.packbits(nonzero))
    return Packed(mask, torch.from_numpy(np.compress(nonzero, array)), len(array))


@dataclass
class CompressionReport:
    """What was saved for a backward pass; a stretch of memory that is saved twice counts once.

    Parameters
    ----------
    tensors : how often autograd saved one, parameters left out
    shared : of them, those of which the memory was saved already
    packed : stretches of memory that are stored packed
    dense_bytes : what all would take as they are
    stored_bytes : what they take
    packed_dense_bytes, packed_bytes : the same of those that are packed
    synchronisations : times that the CPU waited for a GPU
    """

    tensors: int = 0
    shared: int = 0
    packed: int = 0
    dense_bytes: int = 0
    stored_bytes: int = 0
    packed_dense_bytes: int = 0
    packed_bytes: int = 0
    synchronisations: int = 0


class _Key(NamedTuple):
    """A stretch of memory, and the state of what it holds."""

    storage: StorageWeakRef  # keeps its identity from being used again, not its memory
    offset: int
    elements: int
    dtype: torch.dtype
    version: int


class _Stretch:
    """A stretch of memory that autograd saved: as it is, or packed."""

    def __init__(self, values: Tensor) -> None:
        self.values: Tensor | None = values
        self.version = values._version
        self.packed: Packed | None = None

    @property
    def changed(self) -> bool:
        return self.values is not None and self.values._version != self.version


class _Saved(NamedTuple):
    """What stands for a tensor until the backward pass; without a size, all of the stretch."""

    stretch: _Stretch
    dtype: torch.dtype
    size: torch.Size | None = None
    stride: tuple[int, ...] = ()

    def restore(self) -> Tensor:
        """Return the tensor, in its size and strides."""
        stretch = self.stretch
        if stretch.changed:
            raise RuntimeError(
                f"a tensor of {self.dtype}, {list(self.size or ())}, was changed in place after it "
                "had been saved for the backward pass; change a copy of it"
            )
        values = stretch.values
        if values is None:
            assert stretch.packed is not None
            values = stretch.packed.expand().view(self.dtype)
        return values if self.size is None else values.as_strided(self.size, self.stride)


class _Waiting(NamedTuple):
    """A stretch on a GPU, of which the CPU does not know yet how much is kept."""

    stretch: weakref.ref[_Stretch]  # dead once the backward pass has used it
    numbers: Tensor
    mask: Tensor
    offsets: Tensor


class SavedTensorCompression:
    """Context in which what autograd saves for the backward pass is stored packed where it pays.

    A tensor of floating-point numbers becomes one bit a number and the numbers of which any bit is
    set: −0.0 and every NaN come back as they were. In bf16, half of it zero, it takes 0.5625 of its
    memory. It pays where the share of kept numbers is below 1 − 1/b, b the bits of a number.

    Stored as they are: parameters; integers and booleans; tensors of few elements; views with gaps
    or overlaps (transposed views of whole tensors are packed); devices other than CPU and CUDA.
    A tensor that is saved by several operations, also in several shapes, is packed once.

    On a GPU the mask is made when a tensor is saved, and what is kept is gathered when the CPU
    has learnt how much that is: it waits once for all tensors that were saved meanwhile, when they
    exceed ``waiting_bytes`` and at the end. Until then they are in memory as they are.

    A compiled encoder is entered inside the context; within the compiled region itself hooks are
    refused by PyTorch.

    Parameters
    ----------
    parameters : tensors that are in memory anyway, as of ``model.parameters()``
    minimum_elements : tensors of fewer are stored as they are
    waiting_bytes : memory of saved tensors that may wait to be gathered, on a GPU

    Attributes
    ----------
    report : CompressionReport
        Of the last context; complete at its end.

    Raises
    ------
    RuntimeError
        In the backward pass, if a tensor stored as it is was changed in place after it was saved,
        as without the context. (Of one that is packed such a change is harmless.)

    Examples
    --------
    >>> layer = torch.nn.Linear(64, 64)
    >>> with SavedTensorCompression(layer.parameters()) as saved:
    ...     loss = layer(torch.randn(256, 64).relu()).sum()
    >>> loss.backward()
    >>> saved.report.packed
    1
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] = (),
        minimum_elements: int = 16384,
        waiting_bytes: int = 2**30,
    ) -> None:
        if minimum_elements < 1:
            raise ValueError(f"minimum_elements must be at least 1, not {minimum_elements}")
        if waiting_bytes < 0:
            raise ValueError(f"waiting_bytes must be at least 0, not {waiting_bytes}")
        self.minimum_elements = minimum_elements
        self.waiting_bytes = waiting_bytes
        self.report = CompressionReport()
        self._parameters = {StorageWeakRef(item.untyped_storage()) for item in parameters}
        self._stretches: weakref.WeakValueDictionary[_Key, _Stretch]
        self._stretches = weakref.WeakValueDictionary()
        self._waiting: list[_Waiting] = []
        self._hooks: list[saved_tensors_hooks] = []

    def __enter__(self) -> Self:
        if self._hooks:
            raise RuntimeError("this SavedTensorCompression is entered already; make another")
        self.report = CompressionReport()
        self._hooks.append(saved_tensors_hooks(self._save, _Saved.restore))
        self._hooks[0].__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hooks.pop().__exit__(kind, error, trace)
        if kind is None:
            self._gather()
        self._waiting.clear()
        self._stretches.clear()

    def _save(self, tensor: Tensor) -> _Saved:
        tensor = tensor.detach()
        storage = None
        if type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_neg():
            storage = StorageWeakRef(tensor.untyped_storage())
        if storage is None or storage in self._parameters:
            return _Saved(_Stretch(tensor), tensor.dtype)
        self.report.tensors += 1
        size, elements = tensor.size(), _extent(tensor)
        key = _Key(storage, tensor.storage_offset(), elements, tensor.dtype, tensor._version)
        stretch = self._stretches.get(key)
        if stretch is None:
            values = tensor.as_strided((elements,), (1,))
            stretch = self._stretches[key] = _Stretch(values)
            self.report.dense_bytes += values.nbytes
            self.report.stored_bytes += values.nbytes
            whole = elements == tensor.numel()  # in whatever order; no gaps that others use
            if whole and tensor.is_floating_point() and elements >= self.minimum_elements:
                self._pack(stretch, values.view(BITS_TYPES[tensor.itemsize]))
        else:
            self.report.shared += 1
        return _Saved(stretch, tensor.dtype, size, tensor.stride())

    def _pack(self, stretch: _Stretch, numbers: Tensor) -> None:
        if numbers.device.type == "cpu":
            packed = pack(numbers)
            if packed is not None:
                self._store(stretch, packed, numbers.nbytes)
        elif numbers.device.type == "cuda":
            from model.compression_triton import find

            self._waiting.append(_Waiting(weakref.ref(stretch), numbers, *find(numbers)))
            if sum(item.numbers.nbytes for item in self._waiting) > self.waiting_bytes:
                self._gather()

    def _gather(self) -> None:
        """Pack what waits and is still wanted, after one wait for each GPU."""
        by_device: dict[torch.device, list[_Waiting]] = {}
        for item in self._waiting:
            if item.stretch() is not None:
                by_device.setdefault(item.numbers.device, []).append(item)
        self._waiting = []
        for items in by_device.values():
            from model.compression_triton import gather

            counts = torch.stack([item.offsets[-1] for item in items]).tolist()
            self.report.synchronisations += 1
            for (wanted, numbers, mask, offsets), kept in zip(items, counts, strict=True):
                stretch = wanted()
                stored = mask.nbytes + offsets.nbytes + kept * numbers.itemsize
                if stretch is not None and not stretch.changed and stored < numbers.nbytes:
                    packed = gather(numbers, mask, offsets, kept)
                    self._store(stretch, packed, numbers.nbytes)

    def _store(self, stretch: _Stretch, packed: Packed, dense_bytes: int) -> None:
        stretch.values, stretch.packed = None, packed
        self.report.packed += 1
        self.report.packed_dense_bytes += dense_bytes
        self.report.packed_bytes += packed.nbytes
        self.report.stored_bytes += packed.nbytes - dense_bytes


def _extent(tensor: Tensor) -> int:
    """Number of elements from a tensor's first to its last in memory."""
    if tensor.numel() == 0:
        return 0
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)
