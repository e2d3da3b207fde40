"""What each task takes, for chunks of designs at once, by summing classes of steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.lane import cost as lane
from hwgen.units.norm_engine import cost as norm_engine
from hwgen.units.residual_add import cost as residual_add
from hwgen.units.softmax_engine import cost as softmax_engine
from sim.charge import Transfers, charge
from sim.closed_moves import copy, dispatch, move, write
from sim.dataflow import RowClasses, StepClasses, class_counts, product_steps, row_steps
from sim.lanes import LaneTimes
from sim.memory import Residency, place
from sim.ports import Ports
from sim.tiling import DIM_K, Ints, Tiling, loop_dimensions, tile_product
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

    @cached_property
    def ports(self) -> Ports:
        """Rates and constants of the designs."""
        return Ports(self.designs)

    @cached_property
    def homes(self) -> list[Residency]:
        """Where the tensors of each task live."""
        tilings = [self.tiling(task) for task in self.workload.tasks]
        return place(self.workload, self.designs, self.ports, tilings)

    def steps(self, task: Task) -> StepClasses:
        """Classes of steps of a product.

        They serve all products of its extents, whether a weight is denser than another and streams.
        """
        key = _extents_key(task)
        if key not in self._steps:
            tiling = self.tiling(task)
            assert tiling is not None
            streams = np.logical_or.reduce(
                [
                    home.streams
                    for other, home in zip(self.workload.tasks, self.homes, strict=True)
                    if _extents_key(other) == key
                ]
            )
            self._steps[key] = product_steps(tiling, not task.operation.has_weight, streams)
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
    workload, designs, homes = population.workload, population.designs, population.homes
    yield OPENING, _opening(population, homes[0])
    found: dict[Any, Sums] = {}
    for index, (task, home) in enumerate(zip(workload.tasks, homes, strict=True)):
        tiling = population.tiling(task)
        load = np.zeros(len(designs), dtype=np.int64)
        if index + 1 < len(homes):
            load = homes[index + 1].image.size.all_slots
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
    places = np.stack([*home.reads, home.write, home.sums, home.streams]).tobytes()
    streams = tuple(name in ("word_rows", "position_rows") for name in operation.reads)
    return (
        operation.kind,
        operation.heads,
        operation.rows,
        operation.inner,
        operation.outer,
        operation.has_weight,
        task.transposed,
        task.read_densities,
        task.weight_density,
        task.write_density,
        streams,
        places,
        load.tobytes(),
    )


def _opening(population: Population, home: Residency) -> Sums:
    """The step in which main memory loads what the first operation needs."""
    every = np.arange(len(population.designs))
    transfers = Transfers(len(every))
    transfers.occupy("waiting", home.image.size.all_slots * _word(population))
    return charge(
        population.ports,
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
    transfers.occupy("waiting", _share(population, load, tiling.waves)[design])
    copied = copy(transfers, population, task, home, steps)
    dispatch(transfers, population, task, home, steps)
    write(transfers, population, task, home, steps, tiling)
    densities = task.read_densities[0], task.right_density
    full = population.lane_times.kinds(
        designs, np.minimum(tiling.block[DIM_K], tiling.extents[DIM_K]), densities
    )
    rest = population.lane_times.kinds(designs, tiling.last[DIM_K], densities)
    compute = _lane_time(population, steps, tiling, full, rest)
    sums = charge(
        population.ports,
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
    used = np.minimum(
        np.prod(-(-tiling.block[:DIM_K] // tiling.tile[:DIM_K]), axis=0), designs.lanes_per_pe
    )
    configured = _configure(population, used, Transfers(len(designs)))
    return _added(sums, copied, _image(population, home), configured)


def _image(population: Population, home: Residency) -> Sums:
    """What a task finds in the weight buffer was read and written once."""
    made = home.image
    words = made.size.words * _word(population)
    sums = {}
    for flow, port, bits in (
        ("weight_load", "weight_load", made.values),
        ("mask_load", "mask_load", made.masks),
        ("memory_read", "main_memory", words),
    ):
        sums[f"bits.{flow}"] = np.asarray(bits, dtype=np.float64)
        sums[f"blocks.{port}"] = np.ceil(bits / population.block_bits)
    return sums


def _configure(population: Population, used_lanes: Ints | int, transfers: Transfers) -> Sums:
    """The step in which each operation is configured."""
    every = np.arange(len(population.designs))
    return charge(
        population.ports,
        every,
        every,
        np.ones_like(every),
        "configure",
        np.zeros(len(every)) + used_lanes + accelerator.CONFIGURE,
        transfers,
        population.block_bits,
        population.detailed,
    )


def _added(*parts: Sums) -> Sums:
    # Sums of one part are views of a table that is not to be kept, so all are added to something.
    names = {name: None for part in parts for name in part}
    none = np.zeros(())
    return {name: sum((part[name] for part in parts if name in part), none) for name in names}


def _word(population: Population) -> Ints:
    """Bits of a word of main memory, shape (designs,)."""
    return np.asarray(population.designs.window * population.designs.bits)


def _share(population: Population, load: Ints, waves: Ints) -> Ints:
    """Bits of the slots of the next image that come in each of the waves + 2 steps."""
    return np.asarray(-(-load // (waves + 2)) * _word(population))


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
    beyond, closing = (
        (np.zeros(len(designs)) + lane.cycles(designs, 0, ends))[design] for ends in (False, True)
    )
    return np.where(real, compute + np.where(last, closing, beyond), 0.0)


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
    transfers.occupy("waiting", _share(population, load, waves)[design])
    stored = 1 if operation.kind == "tanh" else width
    lines_of_row = -(-stored // designs.window)[design]
    for name, resident, density in zip(
        operation.reads, home.reads, task.read_densities, strict=True
    ):
        transfers.occupy("activation_lines", steps.following * lines_of_row)
        if name in ("word_rows", "position_rows"):
            # A wave reads each position's row once.
            distinct = (
                steps.following if name == "word_rows" else np.minimum(steps.following, length)
            )
            transfers.add("memory_read", distinct * width * bits)
        else:
            elements = steps.following * stored
            move(
                transfers,
                "read",
                resident[design],
                elements,
                compressed_bits(density, elements, bits),
            )
    elements = steps.previous * stored
    transfers.occupy("pieces", steps.previous * -(-stored // designs.piece)[design])
    move(
        transfers,
        "write",
        home.write[design],
        elements,
        compressed_bits(task.write_density, elements, bits),
    )
    compute = _row_time(designs, operation.kind, steps, width)
    engine = "layer_norm" if operation.kind == "add_norm" else "softmax"
    sums = charge(
        population.ports,
        design,
        steps.starts,
        steps.count,
        engine,
        compute,
        transfers,
        population.block_bits,
        population.detailed,
    )
    # While γ and β are loaded, no PE has a row.
    active = np.minimum(steps.now, designs.pes[design])
    sums["dataflow_cycles"] = np.add.reduceat(active * compute * steps.count, steps.starts)
    sums["row_elements"] = 1.0 * rows * stored
    sums[f"{engine}_elements"] = 1.0 * rows * width
    sums[f"{engine}_beats"] = (rows * -(-width // designs.tile_y)).astype(np.float64)
    parameters = Transfers(len(designs))
    parameters.add("weight_read", home.image.values)
    parameters.add("mask_read", home.image.masks)
    parameters.occupy("weight_lines", home.image.size.lines)
    return _added(sums, _image(population, home), _configure(population, 0, parameters))


def _row_time(designs: DesignBatch, kind: str, steps: RowClasses, width: int) -> Floats:
    """Cycles of a row engine in each step: a row, or γ and β before the first."""
    none = np.zeros(len(designs))
    load = none
    if kind == "add_norm":
        row = norm_engine.cycles(designs, width)
        load = none + norm_engine.load_cycles(designs, width)
    else:
        row = softmax_engine.cycles(designs, width)
    if kind == "tanh":
        row = row + residual_add.latency(designs.residual_add)
    opening = (steps.now == 0) & (steps.following > 0)
    time = np.where(steps.now > 0, (none + row)[steps.design], load[steps.design] * opening)
    return np.asarray(time)
