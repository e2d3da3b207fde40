"""Tensors that autograd saves for the backward pass, stored as a mask of bits and what is kept."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

if TYPE_CHECKING:
    from model.compression_triton import Group, Part

BITS_TYPES = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""The integer type of as many bytes as a number has."""


@dataclass(frozen=True)
class Packed:
    """A stretch of a CPU's memory as the bits of the numbers that are not zero, and these.

    Parameters
    ----------
    mask : uint8, one bit a number, the first is the highest
    kept : [kept], what has any bit set, in order
    elements : how many numbers
    """

    mask: Tensor
    kept: Tensor
    elements: int

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.mask.nbytes + self.kept.nbytes

    def bring_back(self, stretch: Stretch) -> None:
        """Give the stretch its numbers again, bit for bit."""
        mask = np.unpackbits(self.mask.numpy(), count=self.elements)
        numbers = torch.zeros(self.elements, dtype=self.kept.dtype)
        stretch.hold(numbers.scatter_(0, torch.from_numpy(np.flatnonzero(mask)), self.kept))


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


class Stretch:
    """A stretch of memory that autograd saved: as it is (values) or packed."""

    def __init__(self, values: Tensor) -> None:
        self.packed: Packed | Part | None = None
        self.hold(values)

    def hold(self, values: Tensor) -> None:
        """Be as it is from now on."""
        self.values: Tensor | None = values
        self.version = values._version
        self.packed = None

    @property
    def changed(self) -> bool:
        """Whether it was changed in place since."""
        return self.values is not None and self.values._version != self.version


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
    synchronisations : times that the CPU asked a GPU for counts
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


class _Saved(NamedTuple):
    """What stands for a tensor until the backward pass; without a size, all of the stretch."""

    stretch: Stretch
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
        if stretch.packed is not None:
            stretch.packed.bring_back(stretch)
        values = stretch.values
        assert values is not None
        return values if self.size is None else values.view(self.dtype).as_strided(
            self.size, self.stride
        )


class SavedTensorCompression:
    """Context in which what autograd saves for the backward pass is stored packed where it pays.

    A tensor of floating-point numbers becomes one bit a number and the numbers of which any bit is
    set: −0.0 and every NaN come back as they were. In bf16, half of it zero, it takes 0.5625 of its
    memory. It pays where the share of kept numbers is below 1 − 1/b, b the bits of a number.

    Stored as they are: parameters; integers and booleans; tensors of few elements; views with gaps
    or overlaps (transposed views of whole tensors are packed); devices other than CPU and CUDA.
    A tensor that is saved by several operations, also in several shapes, is packed once.

    On a GPU saved tensors wait until they exceed ``waiting_bytes``; then one kernel looks for the
    zeros of all. They are packed, by another, when as much again waits: by then the CPU has learnt
    how much is kept without waiting for the GPU. At the end it waits. Until then they are in memory
    as they are. In the backward pass the first that is asked for brings back all of its kernel.

    A compiled encoder is entered inside the context; within the compiled region itself hooks are
    refused by PyTorch. It saves all at its end, and asks for all at once: layers that are compiled
    one by one need less memory at their peak.

    Parameters
    ----------
    parameters : tensors that are in memory anyway, as of ``model.parameters()``
    minimum_elements : tensors of fewer are stored as they are
    waiting_bytes : memory of saved tensors that are looked at together, on a GPU

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
        waiting_bytes: int = 2**29,
    ) -> None:
        if minimum_elements < 1:
            raise ValueError(f"minimum_elements must be at least 1, not {minimum_elements}")
        if waiting_bytes < 0:
            raise ValueError(f"waiting_bytes must be at least 0, not {waiting_bytes}")
        self.minimum_elements = minimum_elements
        self.waiting_bytes = waiting_bytes
        self.report = CompressionReport()
        self._parameters = {StorageWeakRef(item.untyped_storage()) for item in parameters}
        self._stretches: weakref.WeakValueDictionary[_Key, Stretch]
        self._stretches = weakref.WeakValueDictionary()
        self._waiting: list[tuple[weakref.ref[Stretch], Tensor]] = []
        self._waiting_bytes = 0
        self._found: list[Group] = []
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
            self._find()
            self._gather()
        self._waiting, self._waiting_bytes, self._found = [], 0, []
        self._stretches.clear()

    def _save(self, tensor: Tensor) -> _Saved:
        tensor = tensor.detach()
        storage = None
        if type(tensor) is Tensor and tensor.layout is torch.strided and not tensor.is_neg():
            storage = StorageWeakRef(tensor.untyped_storage())
        if storage is None or storage in self._parameters:
            return _Saved(Stretch(tensor), tensor.dtype)
        self.report.tensors += 1
        size, elements = tensor.size(), extent(tensor)
        key = _Key(storage, tensor.storage_offset(), elements, tensor.dtype, tensor._version)
        stretch = self._stretches.get(key)
        if stretch is None:
            values = tensor.as_strided((elements,), (1,))
            stretch = self._stretches[key] = Stretch(values)
            self.report.dense_bytes += values.nbytes
            self.report.stored_bytes += values.nbytes
            whole = elements == tensor.numel()  # in whatever order; no gaps that others use
            if whole and tensor.is_floating_point() and elements >= self.minimum_elements:
                self._pack(stretch, values.view(BITS_TYPES[tensor.itemsize]))
        else:
            self.report.shared += 1
        return _Saved(stretch, tensor.dtype, size, tensor.stride())

    def _pack(self, stretch: Stretch, numbers: Tensor) -> None:
        if numbers.device.type == "cpu":
            packed = pack(numbers)
            if packed is not None:
                self._store(stretch, packed)
        elif numbers.device.type == "cuda":
            self._waiting.append((weakref.ref(stretch), numbers))
            self._waiting_bytes += numbers.nbytes
            if self._waiting_bytes > self.waiting_bytes:
                self._find()

    def _find(self) -> None:
        """Look for zeros in what waits, and pack that in which they were looked for before."""
        kinds: dict[tuple[torch.device, torch.dtype], list[tuple[Stretch, Tensor]]] = {}
        for reference, numbers in self._waiting:
            stretch = reference()
            if stretch is not None:  # else the backward pass has used it already
                kinds.setdefault((numbers.device, numbers.dtype), []).append((stretch, numbers))
        self._waiting, self._waiting_bytes = [], 0
        found = []
        for members in kinds.values():
            from model.compression_triton import Group  # which needs triton, as no CPU does

            found.append(Group(*zip(*members, strict=True)))
        self._gather()
        self._found = found

    def _gather(self) -> None:
        for group in self._found:
            self.report.synchronisations += 1
            for stretch, part in group.gather():
                self._store(stretch, part)
        self._found = []

    def _store(self, stretch: Stretch, packed: Packed | Part) -> None:
        assert stretch.values is not None
        dense_bytes = stretch.values.nbytes
        stretch.values, stretch.packed = None, packed
        self.report.packed += 1
        self.report.packed_dense_bytes += dense_bytes
        self.report.packed_bytes += packed.nbytes
        self.report.stored_bytes += packed.nbytes - dense_bytes


def extent(tensor: Tensor) -> int:
    """Number of elements from a tensor's first to its last in memory."""
    if tensor.numel() == 0:
        return 0
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)
