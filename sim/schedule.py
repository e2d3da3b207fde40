"""The steps of one design running one workload, as plain data."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.loader.cost import ImageSize
from sim.images import image
from sim.residents import Residents, whole_weight
from sim.workload import Task, Workload, compressed_bits, stored_elements

Range = tuple[int, int]
"""First index, and the one after the last."""

UNITS = (
    "pre_sparsity",
    "mac_lane",
    "softmax",
    "layer_norm",
    "residual_add",
)
"""Units that a plan's cycles depend on."""

EMBEDDING_ROWS = ("word_rows", "position_rows")
"""Operands that come from main memory as they stand there."""

NO_IMAGE = ImageSize(0, 0, 0, 0, 0)
"""Nothing that comes from main memory into the weight buffer."""


@dataclass(frozen=True, slots=True)
class Block:
    """What a wave works on: index ranges of a product, or rows (in `i`) of an operation on rows."""

    b: Range
    i: Range
    j: Range
    k: Range

    def size(self, letters: str) -> int:
        """Elements over some of the four dimensions."""
        return math.prod(getattr(self, letter)[1] - getattr(self, letter)[0] for letter in letters)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One tensor's part that moves in a step.

    Parameters
    ----------
    operand : "left", "right", "result", "sums"; of an operation on rows "read_0", "read_1", or
        "gamma_beta", two rows
    block : which part
    resident : whether the buffers hold it, as they do every weight; else main memory does
    """

    operand: str
    block: Block
    resident: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What happens in one step of an operation.

    Parameters
    ----------
    number : −2 to waves; in step −2 the operation is configured
    compute : the wave that is worked on
    dispatch : operands of the next wave
    fill : partial sums that the next wave goes on from
    write : results, or partial sums, of the wave before
    prefetch_slots : the step's share of the next operation's image
    copy : block of the wave after the next one whose weight comes from main memory
    """

    number: int
    compute: Block | None
    dispatch: tuple[Transfer, ...]
    fill: Transfer | None
    write: Transfer | None
    prefetch_slots: int
    copy: Block | None


@dataclass(frozen=True)
class Plan:
    """One operation, cut into waves, with where its tensors live.

    Parameters
    ----------
    design, task : what does what
    extents : elements along b, i, j, k; of an operation on rows 1, rows, 1 and elements of a row
    reads_resident, write_resident, sums_resident : where tensors live
    weight_values, weight_masks : bits of the weight, biases among the values, or of γ and β
    prefetched : whether all of the weight is in its buffer before the operation starts; else it
        streams, in blocks
    load : what comes meanwhile, the next operation's `image`
    """

    design: AcceleratorDesign
    task: Task
    extents: dict[str, int]
    reads_resident: tuple[bool, ...]
    write_resident: bool
    sums_resident: bool
    weight_values: int
    weight_masks: int
    prefetched: bool
    load: ImageSize

    @cached_property
    def units(self) -> SimpleNamespace:
        """Specs of the design's units, made once."""
        return SimpleNamespace(**{name: getattr(self.design, name) for name in UNITS})

    @cached_property
    def tiles(self) -> dict[str, int]:
        """Extents of a tile; along k, of a segment."""
        return {
            "b": self.design.tile_b,
            "i": self.design.tile_x,
            "j": self.design.tile_y,
            "k": self.design.k_segment,
        }

    @cached_property
    def unroll(self) -> dict[str, int]:
        """Tiles of a full block along each dimension."""
        left, taken = self.design.lanes, {"k": 1}
        for letter in reversed(self.design.loop_order):
            if letter != "k":
                needed = math.ceil(self.extents[letter] / self.tiles[letter])
                taken[letter] = min(needed, left)
                left //= taken[letter]
        return taken

    @cached_property
    def used_lanes_per_pe(self) -> int:
        """Lanes of a PE that a full block uses; none for an operation on rows."""
        if self.task.operation.kind != "product":
            return 0
        return min(math.prod(self.unroll.values()), self.design.lanes_per_pe)

    @cached_property
    def trips(self) -> dict[str, int]:
        """Blocks along each dimension."""
        if self.task.operation.kind != "product":
            return {"b": 1, "i": math.ceil(self.extents["i"] / self.rows_per_wave), "j": 1, "k": 1}
        return {
            letter: math.ceil(math.ceil(self.extents[letter] / self.tiles[letter]) / unroll)
            for letter, unroll in self.unroll.items()
        }

    @cached_property
    def rows_per_wave(self) -> int:
        """Rows of a full wave of an operation on rows."""
        modules = 1 if self.task.operation.kind == "add_norm" else self.design.softmax_per_pe
        return self.design.pes * modules

    @cached_property
    def waves(self) -> int:
        """Waves of the operation."""
        return math.prod(self.trips.values())

    @cached_property
    def waves_inside(self) -> int:
        """Waves from a block's segment to its next, R."""
        order = self.design.loop_order
        return math.prod(self.trips[letter] for letter in order[order.index("k") + 1 :])

    @cached_property
    def spills(self) -> bool:
        """Whether partial sums leave the lanes."""
        return self.trips["k"] > 1 and self.waves_inside >= 3

    @cached_property
    def sum_groups(self) -> int:
        """Groups of lanes of a PE whose partial sums move one group after another."""
        design = self.design
        together: int = accelerator.sums_per_cycle(
            design.lanes_per_pe, design.window, design.bits, design.accumulator_bits
        )
        return math.ceil(self.used_lanes_per_pe / together)

    @cached_property
    def sum_words(self) -> int:
        """Words, one of each bank, that hold a full block's partial sums."""
        tile = math.prod(self.tiles[letter] for letter in "bij")
        pes = math.ceil(math.prod(self.unroll.values()) / self.design.lanes_per_pe)
        return pes * self.sum_groups * tile

    @property
    def sum_bits(self) -> int:
        """Bits of the activation buffer that open partial sums take where they spill."""
        if not self.spills:
            return 0
        return self.waves_inside * self.sum_words * self.design.window * self.design.bits

    @property
    def streams(self) -> bool:
        """Whether the weight comes in blocks, each before the wave that reads it."""
        return self.task.operation.has_weight and not self.prefetched

    @property
    def block_lines(self) -> int:
        """Lines of each column of a block of weights, in every segment."""
        return math.ceil(min(self.extents["k"], self.design.k_segment) / self.design.window)

    @cached_property
    def image(self) -> ImageSize:
        """What must be in the weight buffer before the operation starts.

        All of a prefetched weight, γ and β, or the first block of a weight that streams.
        """
        operation = self.task.operation
        lines_of_row = math.ceil(self.extents["k"] / self.design.window)
        if operation.kind == "add_norm":
            return image(self.design, 2 * lines_of_row, 2 * lines_of_row, 0)
        if not operation.has_weight:
            return NO_IMAGE
        if not self.prefetched:
            return self.block_image(next(self.blocks()))
        lines = self.extents["j"] * lines_of_row
        words = math.ceil(self.task.weight_density * lines)
        return image(self.design, lines, words, self.extents["j"])

    def block_image(self, block: Block) -> ImageSize:
        """Image of the weight of a wave's block; biases come with the first segment."""
        columns = block.size("j")
        filled = columns * math.ceil(block.size("k") / self.design.window)
        words = math.ceil(self.task.weight_density * filled)
        biases = columns if block.k[0] == 0 else 0
        return image(self.design, columns * self.block_lines, words, biases)

    def weight_bits(self, block: Block) -> tuple[int, int]:
        """Bits of the weight of a wave's block, as declared: values with biases, and masks."""
        elements = block.size("kj")
        values = compressed_bits(self.task.weight_density, elements, self.design.bits)
        biases = block.size("j") * (self.design.accumulator_bits - 1) * (block.k[0] == 0)
        return values + biases, elements

    def blocks(self, letters: str = "bijk") -> Iterator[Block]:
        """Blocks of the waves, in order; of a product, the first of each along `letters` alone."""
        if self.task.operation.kind != "product":
            rows = self.extents["i"]
            for start in range(0, rows, self.rows_per_wave):
                stop = min(rows, start + self.rows_per_wave)
                yield Block((0, 1), (start, stop), (0, 1), (0, self.extents["k"]))
            return
        order, unroll, trips = self.design.loop_order, self.unroll, self.trips
        some = (range(trips[letter] if letter in letters else 1) for letter in order)
        for index in itertools.product(*some):
            ranges = {}
            for letter, trip in zip(order, index, strict=True):
                size = unroll[letter] * self.tiles[letter]
                ranges[letter] = (trip * size, min(self.extents[letter], (trip + 1) * size))
            yield Block(**ranges)

    def steps(self) -> Iterator[Step]:
        """Steps −2 to `waves`, in order."""
        share = math.ceil(self.load.all_slots / (self.waves + 2))
        yield Step(-2, None, self._parameters(), None, None, 0, None)
        before: Block | None = None
        now: Block | None = None
        waves = itertools.pairwise(itertools.chain(self.blocks(), (None, None, None)))
        for number, (following, after) in enumerate(waves, start=-1):
            yield Step(
                number,
                now,
                self._dispatch(now, following),
                self._fill(following),
                self._write(before),
                share,
                self._copy(following, after),
            )
            before, now = now, following

    def _parameters(self) -> tuple[Transfer, ...]:
        if self.task.operation.kind != "add_norm":
            return ()
        both = Block((0, 1), (0, 2), (0, 1), (0, self.extents["k"]))
        return (Transfer("gamma_beta", both, True),)

    def _dispatch(self, now: Block | None, following: Block | None) -> tuple[Transfer, ...]:
        if following is None:
            return ()
        if self.task.operation.kind != "product":
            return tuple(
                Transfer(f"read_{index}", following, resident)
                for index, resident in enumerate(self.reads_resident)
            )
        right = "kj" if self.task.operation.has_weight else "bkj"
        lives = self.task.operation.has_weight or self.reads_resident[1]
        made = []
        for operand, letters, resident in (
            ("left", "bik", self.reads_resident[0]),
            ("right", right, lives),
        ):
            if now is None or _differ(now, following, letters):
                made.append(Transfer(operand, following, resident))
        return tuple(made)

    def _copy(self, following: Block | None, after: Block | None) -> Block | None:
        """What the next step dispatches of a weight that streams; the first block is prefetched."""
        if following is None or after is None or not self.streams:
            return None
        return after if _differ(following, after, "kj") else None

    def _fill(self, following: Block | None) -> Transfer | None:
        if following is None or not self.spills or following.k[0] == 0:
            return None
        return Transfer("sums", following, self.sums_resident)

    def _write(self, before: Block | None) -> Transfer | None:
        if before is None:
            return None
        if before.k[1] == self.extents["k"]:
            return Transfer("result", before, self.write_resident)
        return Transfer("sums", before, self.sums_resident) if self.spills else None


def _differ(one: Block, other: Block, letters: str) -> bool:
    return any(getattr(one, letter) != getattr(other, letter) for letter in letters)


@dataclass(frozen=True)
class Program:
    """Everything that one design does for one workload.

    Parameters
    ----------
    opening : what comes from main memory before the first operation
    plans : operations in order
    """

    opening: ImageSize
    plans: tuple[Plan, ...]


def schedule(design: AcceleratorDesign, workload: Workload) -> Program:
    """Make the program of one design.

    Parameters
    ----------
    design : what runs
    workload : what it runs; its densities are the declared ones that decide where tensors live
    """
    batch = workload.batch_size or design.batch_size
    homes = Residents(design)
    plans: list[Plan] = []
    for index, task in enumerate(workload.tasks):
        operation = task.operation
        extents = _extents(task, batch, workload.sequence_length)
        reads = tuple(homes.resident.get(name, False) for name in operation.reads)
        elements = operation.elements(batch, workload.sequence_length)
        read_again = workload.last_read.get(operation.writes) is not None
        lives = False
        if read_again:
            row = workload.stored_row[operation.writes]
            stored = stored_elements(elements // row, row, design.window)
            lives = homes.place(
                operation.writes, compressed_bits(task.write_density, stored, design.bits), stored
            )
        weights = whole_weight(design, task)
        plan = Plan(design, task, extents, reads, lives, False, *weights, NO_IMAGE)
        if operation.kind == "product" and plan.spills:
            plan = replace(plan, sums_resident=plan.sum_bits <= homes.free_values)
        plans.append(plan)
        for name in operation.reads:
            if workload.last_read.get(name) == index:
                homes.free(name)
    loads = [plan.image for plan in plans[1:]] + [NO_IMAGE]
    return Program(
        plans[0].image,
        tuple(replace(plan, load=load) for plan, load in zip(plans, loads, strict=True)),
    )


def _extents(task: Task, batch: int, sequence: int) -> dict[str, int]:
    if task.operation.kind == "product":
        b, i, j, k = task.operation.extents(batch, sequence)
        return {"b": b, "i": i, "j": j, "k": k}
    rows, width = task.operation.row_shape(batch, sequence)
    return {"b": 1, "i": rows, "j": 1, "k": width}
