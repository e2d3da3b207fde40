"""Cases of an accelerator laid out in its buffers, as programs that prove it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.program import Descriptor, MainMemory, ProgramJob, StoredRows, Word, assemble
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import Image, pack
from hwgen.units.buffer.spec import BufferSpec
from hwgen.units.loader.golden import image
from model.recording import RecordedProduct
from sim.assembly import program
from sim.homes import Homes, Walk
from sim.machine_cases import Case, random_prefetch, random_product, random_rows
from sim.main_memory import main_memory, weight_images
from sim.placement import weight_walk
from sim.schedule import NO_IMAGE, Block, Plan
from sim.weights import FIRST, Place, WeightPlaces


class Contents:
    """A buffer that is filled from its first line on.

    Parameters
    ----------
    spec : the buffer
    """

    def __init__(self, spec: BufferSpec) -> None:
        self.spec = spec
        self.words: dict[Word, int] = {}
        self.line = self.position = 0

    def place(self, rows: np.ndarray) -> int:
        """Put rows, [rows, elements], behind what is there; return their first line.

        Raises
        ------
        ValueError
            If they do not fit.
        """
        base = self.line
        image = pack(self.spec, rows, base, self.position)
        self.words |= {word[:3]: word[3] for word in image.writes()}
        self.line += len(rows) * -(-rows.shape[1] // self.spec.window)
        self.position += -(-int(image.used.max()) // self.spec.piece) * self.spec.piece
        return base


@dataclass(frozen=True)
class Prepared:
    """A case as the machine gets it.

    Parameters
    ----------
    program : descriptors, header and end included
    loads : the data of each word of the activation buffer before it starts
    memory : main memory, with the case's weight and what comes meanwhile
    base, start : line of the result's first row, and position of its first value
    rows : the result as it lies in the buffer, shape (rows, elements)
    image : the buffer's part that holds it
    prefetch : where what comes meanwhile lies in the weight buffer, if anything does
    """

    program: list[Descriptor]
    loads: dict[str, dict[Word, int]]
    memory: MainMemory
    base: int
    start: int
    rows: np.ndarray
    image: Image
    prefetch: Place | None


def side_by_side(values: np.ndarray, heads: int) -> np.ndarray:
    """Rows of [heads · batch, rows, elements] with the heads beside one another, two axes."""
    count, rows, elements = values.shape
    apart = values.reshape(heads, count // heads, rows, elements)
    return apart.transpose(1, 2, 0, 3).reshape(-1, heads * elements)


def prepare(case: Case) -> Prepared:
    """Lay the operands out, and make the program and what is read back.

    Raises
    ------
    ValueError
        If operands, partial sums or the result do not fit the buffers.
    """
    plan, recorded = case.plan, case.recorded
    spec, window = AcceleratorSpec.of(plan.design), plan.design.window
    activations, places = Contents(spec.activations), WeightPlaces(spec.weights)
    heads, label = plan.task.operation.heads, plan.task.label
    images = places.take(plan) if plan.image != NO_IMAGE else None
    held = [] if images is None else [weight_images(spec.weights, plan, recorded, images)]
    following = None
    if (prefetch := case.prefetch) is not None:
        following = places.take_image("what comes meanwhile", prefetch.size)
        words = image(spec.weights, prefetch.rows, prefetch.size, prefetch.biases)
        held.append({following.addresses[FIRST]: words})

    def walk(values: np.ndarray, base: int) -> Walk:
        rows, elements = values.shape[-2:]
        lines = -(-elements // window)
        return Walk(base, lines, rows * lines)

    def walk_heads(values: np.ndarray, base: int) -> Walk:
        count, rows, elements = values.shape
        lines = heads * elements // window
        return Walk(base, lines, rows * lines, elements // window, count // heads)

    def walk_columns(values: np.ndarray, base: int) -> Walk:
        """Rows of a head, then those of the next, then those of the next sequence."""
        count, rows, elements = values.shape
        lines = -(-elements // window)
        return Walk(base, lines, heads * rows * lines, rows * lines, count // heads)

    def plain(values: np.ndarray) -> Walk:
        return walk(values, activations.place(values.reshape(-1, values.shape[-1])))

    def by_head(values: np.ndarray) -> Walk:
        return walk_heads(values, activations.place(side_by_side(values, heads)))

    name = plan.task.operation.name
    stored_rows = case.result.reshape(-1, case.result.shape[-1])
    if isinstance(recorded, RecordedProduct):
        right = np.swapaxes(recorded.right, -1, -2)
        if name == "score":
            walks = [by_head(recorded.left), by_head(right)]
        elif name == "context" and heads > 1:
            columns = right.reshape(heads, -1, *right.shape[1:]).swapaxes(0, 1)
            placed = activations.place(columns.reshape(-1, right.shape[-1]))
            walks = [plain(recorded.left), walk_columns(right, placed)]
            stored_rows = side_by_side(case.result, heads)
        else:
            walks = [plain(recorded.left),
                     plain(right) if images is None else weight_walk(plan, images)]
    else:
        walks = [plain(recorded.rows)]
        if recorded.residual is not None:
            walks.append(plain(recorded.residual))
    base, start = activations.line, activations.position
    written = (walk_heads if name == "context" and heads > 1 else walk)(case.result, base)
    spills = plan.task.operation.kind == "product" and plan.spills
    sums = plan.waves_inside * plan.sum_words if spills else 0
    limit = spec.activations.positions - sums * spec.activations.piece
    if limit < start:
        raise ValueError(f"{sums} words of partial sums do not fit the buffer")
    homes = Homes(tuple(walks), written, start, limit, sums=spec.activations.words - sums,
                  images=images)
    made = program([plan], {label: homes}, {label: case.constants}, following)
    stored = pack(spec.activations, stored_rows, base, start, limit, order_of(plan, written))
    return Prepared(
        made, {"activations": activations.words}, main_memory(plan.design, held), base, start,
        stored_rows, stored, None if following is None else following.places[0])


def order_of(plan: Plan, walk: Walk) -> Iterator[tuple[int, int]]:
    """Pieces of a result in the order in which the machine stores them, as `pack` takes it.

    Parameters
    ----------
    plan, walk : the operation, and where its result goes
    """
    piece, pieces = plan.design.piece, plan.design.window // plan.design.piece

    def parts(block: Block) -> tuple[range, range, range]:
        if plan.task.operation.kind != "product":
            return range(1), range(*block.i), range(*block.k)
        row, element = ("j", "i") if plan.task.transposed else ("i", "j")
        return range(*block.b), range(*getattr(block, row)), range(*getattr(block, element))

    for step in plan.steps():
        if step.write is None or step.write.operand != "result":
            continue
        b, row, element = parts(step.write.block)
        for one in b:
            for other in row:
                number, line = divmod(walk.line(one, other) - walk.base, walk.row_lines)
                for first in element[::piece]:
                    yield number, line * pieces + first // piece


def random_jobs(design: AcceleratorDesign, seed: int) -> list[ProgramJob]:
    """Draw programs that prove an accelerator: products, a softmax and an add_norm.

    Their edges are partial in every dimension. Weights come before, in blocks, and meanwhile. What
    does not fit the buffers is left out.

    Parameters
    ----------
    design : of one PE
    seed : of operands and densities

    Raises
    ------
    ValueError
        If the design has no RTL as a whole, or nothing fits its buffers.
    """
    i, j, k = 2 * design.tile_x + 1, 2 * design.tile_y + 1, design.k_segment + design.window // 2
    width = min(design.window + design.tile_y + 1, design.max_sequence_length, design.k_max)
    makers: dict[str, Callable[[np.random.Generator], Case]] = {
        "product with weights": lambda rng: random_product(rng, design, (2, i, j, k), activate=1),
        "product with weights in blocks": lambda rng: random_product(
            rng, design, (2, i, j, k), streams=True),
        "product of activations": lambda rng: random_product(
            rng, design, (2, i, j, k), has_weight=False),
        "transposed product": lambda rng: random_product(
            rng, design, (1, i, j, k), transposed=True),
        "softmax": lambda rng: random_rows(
            rng, design, "softmax", (5, width), valid=(4, width - 1)),
        "softmax while weights come": lambda rng: random_rows(
            rng, design, "softmax", (5, width)).with_prefetch(
                random_prefetch(rng, design, (j, k))),
        "add_norm": lambda rng: random_rows(rng, design, "add_norm", (3, width)),
    }
    jobs, refused = [], ""
    for number, (name, make) in enumerate(makers.items()):
        case = make(np.random.default_rng([seed, number]))
        try:
            prepared = prepare(case)
        except ValueError as error:
            refused = str(error)
            continue
        jobs.append(
            ProgramJob(
                name,
                tuple(assemble(prepared.program)),
                prepared.loads,
                prepared.memory,
                (StoredRows(prepared.base, prepared.start, prepared.rows),),
                case.step_cycles(),
            )
        )
    if not jobs:
        raise ValueError(f"no program fits the design: {refused}")
    return jobs
