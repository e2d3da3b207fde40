"""The slow walk over the steps of one design, in density mode and in mask mode."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Protocol

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.lane import cost as lane
from hwgen.units.norm_engine import cost as norm_engine
from hwgen.units.pre_sparsity import cost as pre_sparsity
from hwgen.units.residual_add import cost as residual_add
from hwgen.units.softmax_engine import cost as softmax_engine
from sim.reference_ports import Machine, Moves, moves
from sim.schedule import Block, Plan, Program, Step, schedule
from sim.workload import Workload, compressed_bits

ENGINES = (
    "lanes",
    "softmax",
    "layer_norm",
    "activation_buffer",
    "weight_buffer",
    "main_memory",
    "program",
    "configure",
)
"""What may be the longest in a step; of several, the first is what the step waits for."""


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
        closing = block.k[1] == plan.extents["k"]
        return lane.cycles(plan.units, slowest, closing), block.size("bij") * mean

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
    program = schedule(design, workload)
    return walk_program(design, program, workload, values, block_bits, keep_steps)


def walk_program(
    design: AcceleratorDesign,
    program: Program,
    workload: Workload,
    values: Values | None = None,
    block_bits: int = 512,
    keep_steps: bool = False,
) -> Walk:
    """Walk all steps of a program that is made already; see `walk`."""
    values = values or DeclaredDensities()
    machine = Machine.of(design)
    result = Walk()
    opening = Moves(slots=program.opening.all_slots)
    time = _time_step(machine, "opening", -1, {}, opening)
    _count(result, machine, time, opening.bits, block_bits)
    if keep_steps:
        result.steps.append(time)
    for plan in program.plans:
        _load_image(result, plan, block_bits)
        for step in plan.steps():
            engines = _compute(result, plan, step, values)
            moved = moves(machine, plan, step, values, workload)
            time = _time_step(machine, plan.task.label, step.number, engines, moved)
            _count(result, machine, time, moved.bits, block_bits)
            if keep_steps:
                result.steps.append(time)
    return result


def _load_image(result: Walk, plan: Plan, block_bits: int) -> None:
    """What is in the weight buffer before an operation starts was read and written once."""
    design = plan.design
    values, masks = plan.weight_values, plan.weight_masks
    if plan.streams:
        values, masks = plan.weight_bits(next(plan.blocks()))
    for flow, port, bits in (
        ("weight_load", "weight_load", values),
        ("mask_load", "mask_load", masks),
        ("memory_read", "main_memory", plan.image.words * design.window * design.bits),
    ):
        result.bits[flow] += bits
        result.blocks[port] += math.ceil(bits / block_bits)


def _compute(result: Walk, plan: Plan, step: Step, values: Values) -> dict[str, float]:
    block, design = step.compute, plan.design
    if step.number == -2:
        return {"configure": plan.used_lanes_per_pe + accelerator.CONFIGURE}
    if step.number == -1 and plan.task.operation.kind == "add_norm":
        return {"layer_norm": norm_engine.load_cycles(plan.units, plan.extents["k"])}
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
    cycles = (
        norm_engine.cycles(plan.units, width)
        if kind == "add_norm"
        else softmax_engine.cycles(plan.units, width)
    )
    if kind == "tanh":
        cycles += residual_add.latency(plan.units.residual_add)
    engine = "layer_norm" if kind == "add_norm" else "softmax"
    result.work[f"{engine}_elements"] += rows * width
    result.work["row_elements"] += rows * stored
    result.work["dataflow_cycles"] += min(rows, design.pes) * cycles
    return {engine: cycles}


def _time_step(
    machine: Machine, operation: str, number: int, engines: dict[str, float], moved: Moves
) -> StepTime:
    """Cycles of a step's engines, in the order in which waits are put down to them."""
    found = {
        **engines,
        "activation_buffer": machine.activation_cycles(moved),
        "weight_buffer": machine.weight_cycles(moved),
        "main_memory": machine.memory_cycles(moved),
        "program": machine.program_cycles,
    }
    cycles = {name: found[name] for name in ENGINES if found.get(name)}
    return StepTime(operation, number, cycles, max(cycles.values()) + machine.constant)


def _count(
    result: Walk, machine: Machine, time: StepTime, bits: Counter[str], block_bits: int
) -> None:
    """Add one step."""
    slowest = max(time.cycles, key=lambda name: time.cycles[name])
    result.latency_cycles += time.total
    result.operation_cycles[time.operation] += time.total
    result.stalls[slowest] += time.cycles[slowest]
    result.stalls["step_constant"] += machine.constant
    for name, busy in time.cycles.items():
        result.work[f"busy.{name}"] += busy
    result.bits.update(bits)
    accesses = {
        "activation_read": bits["activation_read"] + bits["activation_fill"],
        "activation_write": bits["activation_write"],
        "weight_read": bits["weight_read"],
        "mask_read": bits["mask_read"],
        "mask_write": bits["mask_write"],
        "weight_load": bits["weight_load"],
        "mask_load": bits["mask_load"],
        "main_memory": bits["memory_read"] + bits["memory_write"],
    }
    for port, moved in accesses.items():
        result.blocks[port] += math.ceil(moved / block_bits)
