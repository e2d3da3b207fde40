"""What moves in a step of the walk, and how long ports and main memory take for it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.buffer import cost as buffer
from hwgen.units.loader import cost as loader
from sim.images import lines_per_cycle, memory_rate
from sim.schedule import EMBEDDING_ROWS, Block, Plan, Step, Transfer
from sim.workload import Workload


class NonZeros(Protocol):
    """Where the walk takes non-zeros from."""

    def value_bits(self, plan: Plan, operand: str, block: Block) -> int:
        """Bits of the non-zeros of a part of an operand or of the result."""


@dataclass
class Moves:
    """What moves in one step.

    Parameters
    ----------
    bits : by where they go
    slots : words of main memory's time that images take, idle ones among them
    streamed : bits that go between main memory and PEs, whose time is main memory's too
    activation_lines, weight_lines : lines that are read
    pieces : pieces of results that are stored
    drain, fill : cycles in which partial sums move, each lane of a group one a cycle
    """

    bits: Counter[str] = field(default_factory=Counter)
    slots: int = 0
    streamed: int = 0
    activation_lines: int = 0
    weight_lines: int = 0
    pieces: int = 0
    drain: int = 0
    fill: int = 0


@dataclass(frozen=True)
class Machine:
    """What every step of a design needs: rates, latency and constants.

    Parameters
    ----------
    design : whose they are
    memory_rate : bits a cycle from main memory into a buffer, numerator and denominator
    lines_per_cycle, pieces_per_cycle : G and S of a buffer
    constant : cycles of a step beyond its longest engine
    program_cycles : cycles in which the next descriptor is taken
    """

    design: AcceleratorDesign
    memory_rate: tuple[int, int]
    lines_per_cycle: int
    pieces_per_cycle: int
    constant: int
    program_cycles: int

    @classmethod
    def of(cls, design: AcceleratorDesign) -> Machine:
        """Work out a design's."""
        lines = lines_per_cycle(design)
        return cls(
            design,
            memory_rate(design),
            lines,
            accelerator.pieces_per_cycle(design.pes, design.window, design.piece, lines),
            accelerator.step_constant(
                design.pes, design.lanes_per_pe, design.softmax_per_pe
            ),
            accelerator.program_cycles(design),
        )

    def activation_cycles(self, moved: Moves) -> int:
        """Cycles of the activation buffer: sums come back behind the lines that are read."""
        lines = math.ceil(moved.activation_lines / self.lines_per_cycle)
        stored = math.ceil(moved.pieces / self.pieces_per_cycle)
        read: int = buffer.read_cycles(self.design, lines + moved.fill)
        write: int = buffer.store_cycles(self.design, stored + moved.drain)
        return max(read, write)

    def weight_cycles(self, moved: Moves) -> int:
        """Cycles of the weight buffer."""
        lines = math.ceil(moved.weight_lines / self.lines_per_cycle)
        cycles: int = buffer.read_cycles(self.design, lines)
        return cycles

    def memory_cycles(self, moved: Moves) -> int:
        """Cycles of main memory, none without a transfer."""
        design = self.design
        numerator, denominator = self.memory_rate
        cycles: int = loader.memory_cycles(
            moved.slots * design.window * design.bits + moved.streamed,
            design.memory.latency_cycles,
            width=design.bits,
            lines_per_cycle=self.lines_per_cycle,
            rate_numerator=numerator,
            rate_denominator=denominator,
        )
        return cycles

    def sum_cycles(self, plan: Plan) -> int:
        """Cycles in which a wave's partial sums leave the lanes or come back to them.

        Those of a full block, whatever the wave holds: so a sum's place in a drain and in a fill is
        the same, and none comes back before the one that was there has left.
        """
        tile = math.prod(plan.tiles[letter] for letter in "bij")
        pes = math.ceil(math.prod(plan.unroll.values()) / self.design.lanes_per_pe)
        return plan.sum_groups * tile * math.ceil(pes / self.lines_per_cycle)


def moves(
    machine: Machine, plan: Plan, step: Step, values: NonZeros, workload: Workload
) -> Moves:
    """Everything that moves in a step.

    Parameters
    ----------
    machine : of the plan's design
    plan, step : which step
    values : non-zeros
    workload : what runs
    """
    moved = Moves()
    for transfer in step.dispatch:
        _dispatch(moved, plan, transfer, values, workload)
    if step.fill is not None:
        bits = step.fill.block.size("bij") * plan.design.accumulator_bits
        moved.bits["activation_fill" if step.fill.resident else "memory_read"] += bits
        moved.fill = machine.sum_cycles(plan)
    if step.write is not None and step.write.operand == "sums":
        bits = step.write.block.size("bij") * plan.design.accumulator_bits
        moved.bits["activation_write" if step.write.resident else "memory_write"] += bits
        moved.drain = machine.sum_cycles(plan)
    elif step.write is not None:
        _write(moved, plan, step.write, values)
    moved.streamed = moved.bits["memory_read"] + moved.bits["memory_write"]
    moved.slots = step.prefetch_slots
    if step.copy is not None:
        _copy(moved, plan, step.copy)
    return moved


def _copy(moved: Moves, plan: Plan, block: Block) -> None:
    """A block of weights comes from main memory into the weight buffer."""
    image, (values, masks) = plan.block_image(block), plan.weight_bits(block)
    moved.slots += image.all_slots
    moved.bits["memory_read"] += image.words * plan.design.window * plan.design.bits
    moved.bits["weight_load"] += values
    moved.bits["mask_load"] += masks


def _rows(plan: Plan, block: Block) -> tuple[int, int]:
    """Rows of a part of a result, or of an operand of rows, and elements of each."""
    kind = plan.task.operation.kind
    if kind != "product":
        return block.size("i"), 1 if kind == "tanh" else block.size("k")
    if plan.task.transposed:
        return block.size("bj"), block.size("i")
    return block.size("bi"), block.size("j")


def _write(moved: Moves, plan: Plan, transfer: Transfer, values: NonZeros) -> None:
    rows, row = _rows(plan, transfer.block)
    moved.pieces = rows * math.ceil(row / plan.design.piece)
    bits = values.value_bits(plan, "result", transfer.block)
    _activation(moved, "write", transfer.resident, bits, rows * row)


def _dispatch(
    moved: Moves, plan: Plan, transfer: Transfer, values: NonZeros, workload: Workload
) -> None:
    block, design, operation = transfer.block, plan.design, plan.task.operation
    if transfer.operand == "gamma_beta":
        elements = block.size("ik")
        moved.weight_lines += block.size("i") * math.ceil(block.size("k") / design.window)
        moved.bits += Counter(weight_read=elements * design.bits, mask_read=elements)
        return
    if transfer.operand == "right" and operation.has_weight:
        moved.weight_lines += block.size("j") * math.ceil(block.size("k") / design.window)
        bits, masks = values.value_bits(plan, "right", block), block.size("kj")
        if block.k[0] == 0:
            bits += block.size("j") * (design.accumulator_bits - 1)
        moved.bits["weight_read"] += bits
        moved.bits["mask_read"] += masks
        return
    if operation.kind == "product":
        rows, row = block.size("bi" if transfer.operand == "left" else "bj"), block.size("k")
    else:
        rows, row = _rows(plan, block)
    moved.activation_lines += rows * math.ceil(row / design.window)
    name = operation.reads[int(transfer.operand == "right" or transfer.operand == "read_1")]
    if name in EMBEDDING_ROWS:
        distinct = min(rows, workload.sequence_length) if name == "position_rows" else rows
        moved.bits["memory_read"] += distinct * row * design.bits
        return
    bits = values.value_bits(plan, transfer.operand, block)
    _activation(moved, "read", transfer.resident, bits, rows * row)


def _activation(moved: Moves, way: str, resident: bool, bits: int, masks: int) -> None:
    if resident:
        moved.bits[f"activation_{way}"] += bits
        moved.bits[f"mask_{way}"] += masks
    else:
        moved.bits[f"memory_{way}"] += bits + masks
