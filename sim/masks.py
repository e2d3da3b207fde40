"""Mask mode: non-zeros and lane times of integer tensors recorded from a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hwgen.units.lane import cost as lane
from hwgen.units.pre_sparsity import cost as pre_sparsity
from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows, Recording
from sim.schedule import Block, Plan
from sim.workload import Workload

Ints = NDArray[np.int64]
Recorded = TypeVar("Recorded", RecordedProduct, RecordedRows)


@dataclass(frozen=True)
class LaneJobs:
    """All lane jobs of one segment of a product.

    Parameters
    ----------
    periods : cycles of each tile's dot products, shape (n_b, n_i, n_j)
    pairs : effectual pairs of each tile
    cycles : of each lane job
    """

    periods: Ints
    pairs: Ints
    cycles: Ints


class RecordedMasks:
    """Mask mode for one workload and the tensors recorded from its model.

    Raises
    ------
    ValueError
        If the recording is of another model, batch or sequence length.
    """

    def __init__(self, recording: Recording, workload: Workload) -> None:
        """Index the recorded operations by name."""
        if recording.design_hash != workload.model.design_hash:
            raise ValueError(
                f"the recording is of another model: its design_hash is "
                f"{recording.design_hash}, the workload's {workload.model.design_hash}"
            )
        batch, length = recording.valid_mask.shape
        if length != workload.sequence_length:
            raise ValueError(
                f"the recording has sequence length {length}, "
                f"the workload {workload.sequence_length}"
            )
        if workload.batch_size != batch:
            raise ValueError(
                f"the recording has {batch} sequences; make the workload with "
                f"batch_size={batch}, not {workload.batch_size}"
            )
        self.recording = recording
        self._products = {(one.layer, one.operation): one for one in recording.products}
        self._rows = {(one.layer, one.operation): one for one in recording.rows}
        self._jobs: dict[tuple[object, ...], LaneJobs] = {}

    def product(self, operation: Operation) -> RecordedProduct:
        """Return a product's recorded operands.

        Raises
        ------
        ValueError
            If the recording lacks it.
        """
        return _find(self._products, operation)

    def rows(self, operation: Operation) -> RecordedRows:
        """Return the recorded operands of an operation on rows.

        Raises
        ------
        ValueError
            If the recording lacks it.
        """
        return _find(self._rows, operation)

    def value_bits(self, plan: Plan, operand: str, block: Block) -> int:
        """Non-zeros of a part of a recorded tensor, in bits."""
        return int(np.count_nonzero(self._part(plan, operand, block))) * plan.design.bits

    def _part(self, plan: Plan, operand: str, block: Block) -> Ints:
        operation = plan.task.operation
        b, i, j, k = (slice(*ends) for ends in (block.b, block.i, block.j, block.k))
        if operation.kind != "product":
            if operand == "result":
                stored = self.recording.tensors[operation.writes]
                width = 1 if operation.kind == "tanh" else block.k[1]
                return stored.reshape(-1, width)[i]
            recorded = self.rows(operation)
            if operation.kind == "tanh":
                return recorded.rows[i, :1]
            addend = recorded.rows if operand == "read_0" else recorded.residual
            assert addend is not None
            return addend[i]
        if operand == "result":
            extents = plan.extents
            stored = self.recording.tensors[operation.writes]
            return stored.reshape(extents["b"], extents["i"], extents["j"])[b, i, j]
        product = self.product(operation)
        if operand == "left":
            return product.left[b, i, k]
        return product.right[k, j] if operation.has_weight else product.right[b, k, j]

    def lane_jobs(self, plan: Plan, segment: tuple[int, int]) -> LaneJobs:
        """Return every lane job of one segment."""
        design = plan.design
        key = (
            plan.task.label,
            segment,
            tuple(plan.tiles.values()),
            design.pre_sparsity,
            design.mac_lane,
        )
        if key not in self._jobs:
            self._jobs[key] = _lane_jobs(plan, self.product(plan.task.operation), segment)
        return self._jobs[key]

    def lane_periods(self, plan: Plan, block: Block) -> tuple[float, float]:
        """Cycles of the wave's slowest lane, and the sum of all lanes' periods."""
        jobs, part = self.lane_jobs(plan, block.k), tile_range(plan, block)
        return int(jobs.cycles[part].max()), int(jobs.periods[part].sum())

    def pairs(self, plan: Plan, block: Block) -> float:
        """Effectual pairs of a wave."""
        return int(self.lane_jobs(plan, block.k).pairs[tile_range(plan, block)].sum())


def _find(recorded: Mapping[tuple[int | None, str], Recorded], operation: Operation) -> Recorded:
    try:
        return recorded[operation.layer, operation.name]
    except KeyError:
        raise ValueError(f"the recording has no operands of {operation.writes}") from None


def tile_range(plan: Plan, block: Block) -> tuple[slice, slice, slice]:
    """Indices of a block's tiles along b, i and j."""
    made = []
    for letter in "bij":
        start, stop = getattr(block, letter)
        made.append(slice(start // plan.tiles[letter], -(-stop // plan.tiles[letter])))
    return made[0], made[1], made[2]


def window_counts(left: Ints, right: Ints, window: int) -> Ints:
    """Effectual pairs of each window of each dot product.

    Parameters
    ----------
    left, right : integers, shapes (i, k) and (k, j)
    window : positions of a window

    Returns
    -------
    Integers of shape (i, j, windows).
    """
    # Counts up to a window's 256 positions are exact in float32.
    rows, columns = (left != 0).astype(np.float32), (right != 0).astype(np.float32)
    counts = [
        rows[:, start : start + window] @ columns[start : start + window]
        for start in range(0, left.shape[1], window)
    ]
    return np.stack(counts, axis=-1).astype(np.int64)


def _lane_jobs(plan: Plan, product: RecordedProduct, segment: tuple[int, int]) -> LaneJobs:
    design, tiles, extents = plan.design, plan.tiles, plan.extents
    starts = {letter: np.arange(0, extents[letter], tiles[letter]) for letter in "bij"}
    shape = tuple(len(starts[letter]) for letter in "bij")
    periods, pairs = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    part = slice(*segment)
    for b in range(extents["b"]):
        right = product.right if plan.task.operation.has_weight else product.right[b]
        counts = window_counts(product.left[b, :, part], right[part], design.window)
        for total, each in (
            (periods, pre_sparsity.periods(design.pre_sparsity, counts)),
            (pairs, counts.sum(axis=-1)),
        ):
            rows = np.add.reduceat(each, starts["i"], axis=0)
            total[b // tiles["b"]] += np.add.reduceat(rows, starts["j"], axis=1)
    cycles = lane.cycles(plan.units, periods, closing=segment[1] == extents["k"])
    return LaneJobs(periods, pairs, cycles)
