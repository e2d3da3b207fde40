"""The slow walk over the steps of one design, in density mode and in mask mode."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

from hwgen.design import AcceleratorDesign
from hwgen.units.dynatran import cost as dynatran
from hwgen.units.layer_norm import cost as layer_norm
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity
from hwgen.units.residual_add import cost as residual_add
from hwgen.units.softmax import cost as softmax
from sim.schedule import EMBEDDING_ROWS, Block, Plan, Step, Transfer, schedule
from sim.workload import Workload, compressed_bits


class Values(Protocol):
    """Where the walk takes non-zeros and lane times from."""

    def value_bits(self, plan: Plan, operand: str, block: Block) -> int:
        """Bits of the non-zeros of a part of an operand or of the result."""

    def lane_periods(self, plan: Plan, block: Block) -> tuple[float, float]:
        """Cycles of the wave's slowest lane, and the busy cycles of all its lanes."""

    def pairs(self, plan: Plan, block: Block) -> float:
        """Effectual pairs of a wave."""


@dataclass(frozen=True)
class StepTime:
    """One step's engines and how long each of them works.

    Parameters
    ----------
    operation : label of the task, or "opening"
    number : of the step within it
    cycles : by engine, those that work
    total : cycles of the step, its constant included
    """

    operation: str
    number: int
    cycles: dict[str, float]
    total: float


@dataclass
class Walk:
    """What a walk has counted.

    Parameters
    ----------
    latency_cycles : all steps
    operation_cycles : by operation
    stalls : by what each step waited for
    work : busy cycles and elements by block
    bits, blocks : moved and accessed, by port
    steps : every step, where asked for
    """

    latency_cycles: float = 0
    operation_cycles: dict[str, Any] = field(default_factory=lambda: defaultdict(int))
    stalls: dict[str, Any] = field(default_factory=lambda: defaultdict(int))
    work: dict[str, Any] = field(default_factory=lambda: defaultdict(int))
    bits: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)
    steps: list[StepTime] = field(default_factory=list)


class DeclaredDensities:
    """Density mode: independent Bernoulli masks of the workload's densities."""

    def __init__(self) -> None:
        """Start with no lane times remembered."""
        self._times: dict[tuple[Any, ...], tuple[float, float]] = {}

    def value_bits(self, plan: Plan, operand: str, block: Block) -> int:
        """⌈density · elements · bits⌉."""
        task = plan.task
        if operand == "result":
            elements = block.size("bij") * (
                1 if task.operation.kind in ("product", "tanh") else block.size("k")
            )
            return int(compressed_bits(task.write_density, elements, plan.design.bits))
        if operand == "left":
            return int(compressed_bits(task.read_densities[0], block.size("bik"), plan.design.bits))
        if operand == "right":
            letters = "kj" if task.operation.has_weight else "bkj"
            return int(compressed_bits(task.right_density, block.size(letters), plan.design.bits))
        elements = block.size("i") * (1 if task.operation.kind == "tanh" else block.size("k"))
        return int(
            compressed_bits(task.read_densities[int(operand[-1])], elements, plan.design.bits)
        )

    def _densities(self, plan: Plan) -> tuple[float, float]:
        return plan.task.read_densities[0], plan.task.right_density

    def lane_periods(self, plan: Plan, block: Block) -> tuple[float, float]:
        """Expected time of the slowest of the largest tiles, and expected busy cycles of all."""
        dots, lanes = largest_tiles(plan, block)
        slowest, mean = self._remembered(
            plan.units.pre_sparsity, block.size("k"), *self._densities(plan), dots, lanes
        )
        return slowest + _after_last_period(plan, block, dots), block.size("bij") * mean

    def _remembered(self, *case: Any) -> tuple[float, float]:
        """Expected maximum and mean of a spec, length, two densities, dot products and lanes."""
        if case not in self._times:
            *distribution, dots, lanes = case
            values, probabilities = pre_sparsity.cycles_distribution(*distribution)
            slowest = pre_sparsity.expected_maximum(values, probabilities, dots, lanes)
            self._times[case] = float(slowest), float(pre_sparsity.mean(values, probabilities))
        return self._times[case]

    def pairs(self, plan: Plan, block: Block) -> float:
        """Share of the pairs whose factors are both not zero."""
        left, right = self._densities(plan)
        return left * right * block.size("bijk")


def largest_tiles(plan: Plan, block: Block) -> tuple[int, int]:
    """Dot products of a wave's largest tile, and how many tiles of that size it has."""
    dots = lanes = 1
    for letter in "bij":
        extent, tile = block.size(letter), plan.tiles[letter]
        dots *= min(extent, tile)
        lanes *= max(1, extent // tile)
    return dots, lanes


def _after_last_period(plan: Plan, block: Block, dots: int) -> int:
    """Cycles of a lane beyond the periods of its dot products."""
    design = plan.design
    cycles = pre_sparsity.latency(plan.units.pre_sparsity) + mac_lane.latency(plan.units.mac_lane)
    if block.k[1] == plan.extents["k"]:
        tail = (dots - 1) % design.macs_per_lane + 1
        cycles += (
            dynatran.latency(plan.units.dynatran)
            + tail
            + post_sparsity.latency(plan.units.post_sparsity)
        )
    return int(cycles)


def walk(
    design: AcceleratorDesign,
    workload: Workload,
    values: Values | None = None,
    block_bits: int = 512,
    keep_steps: bool = False,
) -> Walk:
    """Walk all steps of a design.

    Parameters
    ----------
    design, workload : what runs what
    values : DeclaredDensities by default; `sim.masks.RecordedMasks` for mask mode
    block_bits : bits of one memory access
    keep_steps : whether `Walk.steps` is filled
    """
    values = values or DeclaredDensities()
    program = schedule(design, workload)
    machine = _machine(design, block_bits, keep_steps)
    result = Walk()
    opening = Counter({"memory_read": program.opening_bits})
    _count(result, machine, "opening", -1, {}, opening)
    for plan in program.plans:
        _load_weights(result, plan, block_bits)
        for step in plan.steps():
            engines = _compute(result, plan, step, values)
            flows = _flows(plan, step, values, workload)
            _count(result, machine, plan.task.label, step.number, engines, flows)
    return result


def _load_weights(result: Walk, plan: Plan, block_bits: int) -> None:
    """A prefetched weight is written into its buffers once."""
    if plan.prefetched and plan.task.operation.has_weight:
        for port, bits in (("weight_load", plan.weight_values), ("mask_load", plan.weight_masks)):
            result.bits[port] += bits
            result.blocks[port] += math.ceil(bits / block_bits)


def _compute(result: Walk, plan: Plan, step: Step, values: Values) -> dict[str, float]:
    block, design = step.compute, plan.design
    if block is None:
        return {}
    if plan.task.operation.kind != "product":
        return _compute_rows(result, plan, block)
    cycles, busy = values.lane_periods(plan, block)
    tiles = math.prod(math.ceil(block.size(letter) / plan.tiles[letter]) for letter in "bij")
    result.work["lane_cycles"] += busy
    result.work["positions"] += block.size("bijk")
    result.work["pairs"] += values.pairs(plan, block)
    result.work["dataflow_cycles"] += math.ceil(tiles / design.lanes_per_pe) * cycles
    if block.k[1] == plan.extents["k"]:
        result.work["results"] += block.size("bij")
    return {"lanes": cycles}


def _compute_rows(result: Walk, plan: Plan, block: Block) -> dict[str, float]:
    design, kind = plan.design, plan.task.operation.kind
    rows, width = block.size("i"), block.size("k")
    stored = 1 if kind == "tanh" else width
    rows_of_pe = math.ceil(rows / design.pes)
    pieces = rows_of_pe * math.ceil(stored / design.tile_y)
    elements = math.ceil(pieces / design.lanes_per_pe) * design.tile_y
    cycles = dynatran.latency(plan.units.dynatran) + post_sparsity.cycles(
        plan.units.post_sparsity, elements
    )
    if kind == "add_norm":
        cycles += residual_add.latency(plan.units.residual_add)
        cycles += layer_norm.cycles(plan.units.layer_norm, width)
    else:
        cycles += softmax.cycles(plan.units.softmax, width)
    if kind == "tanh":
        cycles += residual_add.latency(plan.units.residual_add)
    engine = "layer_norm" if kind == "add_norm" else "softmax"
    result.work[f"{engine}_elements"] += rows * width
    result.work["row_elements"] += rows * stored
    result.work["dataflow_cycles"] += min(rows, design.pes) * cycles
    return {engine: cycles}


def _flows(plan: Plan, step: Step, values: Values, workload: Workload) -> Counter[str]:
    """Bits of the step by where they go."""
    flows = Counter({"memory_read": step.load_bits})
    for transfer in step.dispatch:
        _dispatch(flows, plan, transfer, values, workload)
    if step.fill is not None:
        bits = step.fill.block.size("bij") * plan.design.accumulator_bits
        flows["activation_fill" if step.fill.resident else "memory_read"] += bits
    if step.write is not None and step.write.operand == "sums":
        bits = step.write.block.size("bij") * plan.design.accumulator_bits
        flows["activation_write" if step.write.resident else "memory_write"] += bits
    elif step.write is not None:
        block = step.write.block
        masks = block.size("bij")
        if plan.task.operation.kind in ("softmax", "add_norm"):
            masks *= block.size("k")
        _activation(
            flows, "write", step.write.resident, values.value_bits(plan, "result", block), masks
        )
    return flows


def _dispatch(
    flows: Counter[str], plan: Plan, transfer: Transfer, values: Values, workload: Workload
) -> None:
    block, design, operation = transfer.block, plan.design, plan.task.operation
    if transfer.operand == "right" and operation.has_weight:
        bits, masks = values.value_bits(plan, "right", block), block.size("kj")
        if block.k[0] == 0:
            bits += block.size("j") * (design.accumulator_bits - 1)
        if transfer.resident:
            flows["weight_read"] += bits
            flows["mask_read"] += masks
        else:
            flows["memory_read"] += bits + masks
        return
    if operation.kind == "product":
        masks = block.size("bik" if transfer.operand == "left" else "bkj")
    else:
        name = operation.reads[int(transfer.operand[-1])]
        rows = block.size("i")
        if name in EMBEDDING_ROWS:
            distinct = min(rows, workload.sequence_length) if name == "position_rows" else rows
            flows["memory_read"] += distinct * block.size("k") * design.bits
            return
        masks = rows * (1 if operation.kind == "tanh" else block.size("k"))
    _activation(
        flows, "read", transfer.resident, values.value_bits(plan, transfer.operand, block), masks
    )


def _activation(flows: Counter[str], way: str, resident: bool, bits: int, masks: int) -> None:
    if resident:
        flows[f"activation_{way}"] += bits
        flows[f"mask_{way}"] += masks
    else:
        flows[f"memory_{way}"] += bits + masks


@dataclass(frozen=True)
class _Machine:
    """What every step of a design needs: rates, latency and the step constant."""

    buffer_rate: Fraction
    memory_rate: Fraction
    memory_latency: int
    constant: int
    block_bits: int
    keep_steps: bool


def _machine(design: AcceleratorDesign, block_bits: int, keep_steps: bool) -> _Machine:
    levels = math.ceil(math.log2(design.pes)) + math.ceil(math.log2(design.lanes_per_pe))
    return _Machine(
        design.buffer_bits_per_cycle,
        design.memory_bits_per_cycle,
        design.memory.latency_cycles,
        2 * levels + 2,
        block_bits,
        keep_steps,
    )


def _port(bits: int, rate: Fraction) -> int:
    return -(-bits * rate.denominator // rate.numerator)


def _count(
    result: Walk,
    machine: _Machine,
    operation: str,
    number: int,
    engines: dict[str, float],
    flows: Counter[str],
) -> None:
    """Add one step."""
    rate = machine.buffer_rate
    memory = flows["memory_read"] + flows["memory_write"]
    cycles = {
        **engines,
        "activation_buffer": max(
            _port(flows["activation_read"], rate), _port(flows["activation_write"], rate)
        )
        + _port(flows["activation_fill"], rate),
        "weight_buffer": _port(flows["weight_read"], rate),
        "mask_buffer": max(_port(flows["mask_read"], rate), _port(flows["mask_write"], rate)),
        "main_memory": (
            machine.memory_latency + _port(memory, machine.memory_rate) if memory else 0
        ),
    }
    slowest = max(cycles, key=lambda name: cycles[name])
    total = cycles[slowest] + machine.constant
    result.latency_cycles += total
    result.operation_cycles[operation] += total
    result.stalls[slowest] += cycles[slowest]
    result.stalls["step_constant"] += machine.constant
    for name, busy in cycles.items():
        result.work[f"busy.{name}"] += busy
    for flow, bits in flows.items():
        result.bits[flow] += bits
    accesses = {
        "activation_read": flows["activation_read"] + flows["activation_fill"],
        "activation_write": flows["activation_write"],
        "weight_read": flows["weight_read"],
        "mask_read": flows["mask_read"],
        "mask_write": flows["mask_write"],
        "main_memory": memory,
    }
    for port, bits in accesses.items():
        result.blocks[port] += math.ceil(bits / machine.block_bits)
    if machine.keep_steps:
        working = {name: busy for name, busy in cycles.items() if busy}
        result.steps.append(StepTime(operation, number, working, total))
