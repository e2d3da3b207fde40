"""What each task takes, for chunks of designs at once, by summing classes of steps."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.units.dynatran import cost as dynatran
from hwgen.units.layer_norm import cost as layer_norm
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity
from hwgen.units.residual_add import cost as residual_add
from hwgen.units.softmax import cost as softmax
from sim.charge import Transfers, charge
from sim.dataflow import StepClasses, class_counts, product_steps, row_steps
from sim.lanes import LaneTimes
from sim.memory import Residency, place
from sim.tiling import DIM_B, DIM_I, DIM_J, DIM_K, Ints, Tiling, loop_dimensions, tile_product
from sim.workload import Task, Workload, compressed_bits

Floats = NDArray[np.float64]
Sums = dict[str, Floats]

OPENING = "opening"
"""Name of the step that opens the program."""


class Population:
    """A chunk of designs, with what its tasks share.

    Parameters
    ----------
    designs, workload : what runs what
    lane_times : times of lanes met so far
    block_bits : bits of a memory access
    detailed : whether more is summed than the totals need
    """

    def __init__(
        self,
        designs: DesignBatch,
        workload: Workload,
        lane_times: LaneTimes,
        block_bits: int,
        detailed: bool,
    ) -> None:
        """Nothing is computed yet."""
        self.designs, self.workload, self.lane_times = designs, workload, lane_times
        self.block_bits, self.detailed = block_bits, detailed
        self.batch = workload.batch(designs)
        self.order = loop_dimensions(designs)
        self._tilings: dict[Any, Tiling] = {}
        self._steps: dict[Any, StepClasses] = {}

    def tiling(self, task: Task) -> Tiling | None:
        """How the designs cut a task, None where it is no product."""
        if task.operation.kind != "product":
            return None
        key = _extents_key(task)
        if key not in self._tilings:
            extents = task.operation.extents(self.batch, self.workload.sequence_length)  # type: ignore[arg-type]
            self._tilings[key] = tile_product(self.designs, self.order, extents)
        return self._tilings[key]

    def steps(self, task: Task) -> StepClasses:
        """Classes of steps of a product."""
        key = _extents_key(task)
        if key not in self._steps:
            tiling = self.tiling(task)
            assert tiling is not None
            self._steps[key] = product_steps(tiling, right_has_b=not task.operation.has_weight)
        return self._steps[key]

    def cuts(self, most_steps: int) -> list[slice]:
        """Cut the designs so that parts have about `most_steps` classes of steps in a product."""
        products = [self.tiling(task) for task in self.workload.tasks]
        most = np.max(
            [class_counts(tiling.trips) for tiling in products if tiling is not None], axis=0
        )
        part = np.cumsum(most) // most_steps
        starts = np.flatnonzero(np.diff(part, prepend=-1))
        return [
            slice(int(start), int(stop))
            for start, stop in zip(starts, [*starts[1:], len(most)], strict=True)
        ]


def _extents_key(task: Task) -> Any:
    operation = task.operation
    return operation.heads, operation.rows, operation.inner, operation.outer, operation.has_weight


def task_sums(population: Population) -> Iterator[tuple[str, Sums]]:
    """Give each task's name with what it takes, opening step first; arrays of shape (designs,).

    The names of a task's sums are those of `sim.charge.charge`, with "lane_cycles",
    "positions", "pairs", "results", "row_elements", "softmax_elements", "softmax_beats",
    "layer_norm_elements", "layer_norm_beats" and "dataflow_cycles".
    """
    workload, designs = population.workload, population.designs
    tilings = [population.tiling(task) for task in workload.tasks]
    homes = place(workload, designs, tilings)
    yield OPENING, _opening(population, homes[0])
    found: dict[Any, Sums] = {}
    for index, (task, tiling, home) in enumerate(zip(workload.tasks, tilings, homes, strict=True)):
        load = np.zeros(len(designs), dtype=np.int64)
        if index + 1 < len(homes):
            following = homes[index + 1]
            load = (following.weight_values + following.weight_masks) * following.prefetched
        key = _key(task, home, load)
        if key not in found:
            found[key] = (
                _rows(population, task, home, load)
                if tiling is None
                else _product(population, task, tiling, home, load)
            )
        yield task.label, found[key]


def _key(task: Task, home: Residency, load: Ints) -> Any:
    """What decides a task's sums: tasks with equal keys are computed once."""
    operation = task.operation
    places = np.stack([*home.reads, home.write, home.sums, home.prefetched]).tobytes()
    streams = tuple(name in ("word_rows", "position_rows") for name in operation.reads)
    return (
        operation.kind,
        operation.heads,
        operation.rows,
        operation.inner,
        operation.outer,
        operation.has_weight,
        task.read_densities,
        task.weight_density,
        task.write_density,
        streams,
        places,
        load.tobytes(),
    )


def _opening(population: Population, home: Residency) -> Sums:
    """The step in which main memory loads the first operation's weights."""
    every = np.arange(len(population.designs))
    transfers = Transfers(len(every))
    transfers.add("memory_read", (home.weight_values + home.weight_masks) * home.prefetched)
    return charge(
        population.designs,
        every,
        every,
        np.ones_like(every),
        "lanes",
        np.zeros(len(every)),
        transfers,
        population.block_bits,
        population.detailed,
    )


def _product(
    population: Population, task: Task, tiling: Tiling, home: Residency, load: Ints
) -> Sums:
    """Sums of a product."""
    steps = population.steps(task)
    designs, design = population.designs, steps.design
    transfers = Transfers(len(design))
    transfers.add("memory_read", _share(load, tiling.waves)[design])
    _dispatch(transfers, population, task, home, steps)
    _write(transfers, population, task, home, steps, tiling)
    densities = task.read_densities[0], task.right_density
    full = population.lane_times.kinds(
        designs, np.minimum(tiling.block[DIM_K], tiling.extents[DIM_K]), densities
    )
    rest = population.lane_times.kinds(designs, tiling.last[DIM_K], densities)
    compute = _lane_time(population, steps, tiling, full, rest)
    sums = charge(
        designs,
        design,
        steps.starts,
        steps.count,
        "lanes",
        compute,
        transfers,
        population.block_bits,
        population.detailed,
    )
    tile = tiling.tile[:DIM_K, design]
    tiles = np.prod(-(-steps.now.extents[:DIM_K] // tile), axis=0)
    active = -(-tiles // designs.lanes_per_pe[design])
    sums["dataflow_cycles"] = np.add.reduceat(active * compute * steps.count, steps.starts)
    dots = np.prod(tiling.extents[:DIM_K], axis=0)
    mean = population.lane_times.mean
    sums["lane_cycles"] = dots * ((tiling.trips[DIM_K] - 1) * mean(full) + mean(rest))
    sums["positions"] = dots * tiling.extents[DIM_K] * 1.0
    sums["pairs"] = densities[0] * densities[1] * sums["positions"]
    sums["results"] = dots.astype(np.float64)
    for flow, bits in (("weight_load", home.weight_values), ("mask_load", home.weight_masks)):
        sums[f"bits.{flow}"] = np.asarray(bits * home.prefetched, dtype=np.float64)
        sums[f"blocks.{flow}"] = np.ceil(bits / population.block_bits) * home.prefetched
    return sums


def _share(load: Ints, waves: Ints) -> Ints:
    """Bits of the next weights that come in each of the waves + 2 steps."""
    return np.ceil(load / (waves + 2))


def _dispatch(
    transfers: Transfers, population: Population, task: Task, home: Residency, steps: StepClasses
) -> None:
    """Operands and partial sums of the following wave."""
    design, wave = steps.design, steps.following
    bits = population.designs.bits[design]
    extents = wave.extents
    elements = extents[DIM_B] * extents[DIM_I] * extents[DIM_K] * steps.new_left
    _move(
        transfers,
        "read",
        home.reads[0][design],
        elements,
        compressed_bits(task.read_densities[0], elements, bits),
    )
    elements = extents[DIM_K] * extents[DIM_J] * steps.new_right
    if task.operation.has_weight:
        biases = (
            extents[DIM_J]
            * steps.new_right
            * (wave.segment == 0)
            * (population.designs.accumulator_bits[design] - 1)
        )
        values = compressed_bits(task.weight_density, elements, bits) + biases
        resident = home.prefetched[design]
        transfers.add("weight_read", values * resident)
        transfers.add("mask_read", elements * resident)
        transfers.add("memory_read", (values + elements) * ~resident)
    else:
        elements = elements * extents[DIM_B]
        _move(
            transfers,
            "read",
            home.reads[1][design],
            elements,
            compressed_bits(task.read_densities[1], elements, bits),
        )


def _move(
    transfers: Transfers, way: str, resident: NDArray[np.bool_], masks: Ints, values: Ints
) -> None:
    """Move values and masks of an activation between the PEs and where it lives."""
    transfers.add(f"activation_{way}", values * resident)
    transfers.add(f"mask_{way}", masks * resident)
    transfers.add(f"memory_{way}", (values + masks) * ~resident)


def _write(
    transfers: Transfers,
    population: Population,
    task: Task,
    home: Residency,
    steps: StepClasses,
    tiling: Tiling,
) -> None:
    """Results or partial sums of the previous wave, and partial sums of the following one."""
    design = steps.design
    last = steps.previous.segment == tiling.trips[DIM_K][design] - 1
    elements = np.prod(steps.previous.extents[:DIM_K], axis=0)
    results = elements * last
    _move(
        transfers,
        "write",
        home.write[design],
        results,
        compressed_bits(task.write_density, results, population.designs.bits[design]),
    )
    spills, wide = tiling.spills[design], population.designs.accumulator_bits[design]
    drained = elements * (~last & spills) * wide
    filled = (
        np.prod(steps.following.extents[:DIM_K], axis=0)
        * ((steps.following.segment > 0) & spills)
        * wide
    )
    resident = home.sums[design]
    transfers.add("activation_write", drained * resident)
    transfers.add("activation_fill", filled * resident)
    transfers.add("memory_write", drained * ~resident)
    transfers.add("memory_read", filled * ~resident)


def _lane_time(
    population: Population, steps: StepClasses, tiling: Tiling, full: Ints, rest: Ints
) -> Floats:
    """Expected time of the slowest of a wave's largest tiles."""
    designs, design, wave = population.designs, steps.design, steps.now
    extents, tile = wave.extents[:DIM_K], tiling.tile[:DIM_K, design]
    dots = np.prod(np.minimum(extents, tile), axis=0)
    lanes = np.prod(np.maximum(extents // tile, 1), axis=0)
    last = wave.segment == tiling.trips[DIM_K][design] - 1
    kinds = np.where(last, rest[design], full[design])
    compute = np.zeros(len(design))
    real = wave.exists
    compute[real] = population.lane_times.maximum(kinds[real], dots[real], lanes[real])
    start = pre_sparsity.latency(designs.pre_sparsity) + mac_lane.latency(designs.mac_lane)
    close = dynatran.latency(designs.dynatran) + post_sparsity.latency(designs.post_sparsity)
    tail = (dots - 1) % designs.macs_per_lane[design] + 1
    after = (np.zeros(len(designs), dtype=np.int64) + close)[design] + tail
    return np.where(real, compute + (np.zeros(len(designs)) + start)[design] + last * after, 0.0)


def _rows(population: Population, task: Task, home: Residency, load: Ints) -> Sums:
    """Sums of an operation on rows."""
    designs, operation = population.designs, task.operation
    length = population.workload.sequence_length
    each, width = operation.row_shape(1, length)
    rows = each * population.batch
    modules = designs.softmax_per_pe if operation.kind != "add_norm" else 1
    steps = row_steps(rows, designs.pes * modules)
    design, bits = steps.design, designs.bits[steps.design]
    transfers = Transfers(len(design))
    waves = -(-rows // (designs.pes * modules))
    transfers.add("memory_read", _share(load, waves)[design])
    stored = 1 if operation.kind == "tanh" else width
    for name, resident, density in zip(
        operation.reads, home.reads, task.read_densities, strict=True
    ):
        if name in ("word_rows", "position_rows"):
            # A wave reads each position's row once.
            distinct = (
                steps.following if name == "word_rows" else np.minimum(steps.following, length)
            )
            transfers.add("memory_read", distinct * width * bits)
        else:
            elements = steps.following * stored
            _move(
                transfers,
                "read",
                resident[design],
                elements,
                compressed_bits(density, elements, bits),
            )
    elements = steps.previous * stored
    _move(
        transfers,
        "write",
        home.write[design],
        elements,
        compressed_bits(task.write_density, elements, bits),
    )
    compute = _row_time(designs, operation.kind, steps.now, design, width)
    engine = "layer_norm" if operation.kind == "add_norm" else "softmax"
    sums = charge(
        designs,
        design,
        steps.starts,
        steps.count,
        engine,
        compute,
        transfers,
        population.block_bits,
        population.detailed,
    )
    active = np.minimum(steps.now, designs.pes[design])
    sums["dataflow_cycles"] = np.add.reduceat(active * compute * steps.count, steps.starts)
    sums["row_elements"] = 1.0 * rows * stored
    sums[f"{engine}_elements"] = 1.0 * rows * width
    sums[f"{engine}_beats"] = (rows * -(-width // designs.tile_y)).astype(np.float64)
    return sums


def _row_time(designs: DesignBatch, kind: str, rows: Ints, design: Ints, width: int) -> Floats:
    """Cycles of a wave of rows: the modules, then the lanes that compress what they give."""
    pieces = 1 if kind == "tanh" else -(-width // designs.tile_y)
    each = (np.zeros(len(designs), dtype=np.int64) + pieces)[design]
    per_pe = -(-rows // designs.pes[design])
    elements = -(-per_pe * each // designs.lanes_per_pe[design]) * designs.tile_y[design]
    if kind == "add_norm":
        module = residual_add.latency(designs.residual_add) + layer_norm.cycles(
            designs.layer_norm, width
        )
    else:
        module = softmax.cycles(designs.softmax, width)
        if kind == "tanh":
            module = module + residual_add.latency(designs.residual_add)
    module = module + dynatran.latency(designs.dynatran)
    spec = SimpleNamespace(
        **{name: values[design] for name, values in vars(designs.post_sparsity).items()}
    )
    return np.where(rows > 0, module[design] + post_sparsity.cycles(spec, elements), 0).astype(
        np.float64
    )
