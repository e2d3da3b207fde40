"""Operations on an accelerator: operands in its buffers, a program, and what must come out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.program import Descriptor
from hwgen.simulation.machine import MachineCase, MachineResult
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import Image, pack
from hwgen.units.buffer.spec import LINE_ENTRIES
from hwgen.units.dynatran.golden import prune
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.mac_lane.golden import product
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.softmax.golden import golden as softmax
from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows, Recording
from rtl_tests.buffer_contents import Contents, read_rows, words_of_lines
from sim.assembly import Constants, Homes, Walk, descriptors, header
from sim.masks import RecordedMasks
from sim.reference import StepTime, walk_program
from sim.schedule import Block, Plan, Program
from sim.workload import Task


@dataclass(frozen=True)
class Case:
    """One operation with all that it needs.

    Parameters
    ----------
    plan : its waves and steps
    recorded : operands and constants
    result : what must be stored, rows last but one, elements last, as the next operation reads them
    constants : what the units are set to
    """

    plan: Plan
    recorded: RecordedProduct | RecordedRows
    result: np.ndarray
    constants: Constants

    def __str__(self) -> str:
        """Name what decides what the machine does, the design's own fields included."""
        plan, operation = self.plan, self.plan.task.operation
        design = plan.design.model_dump(mode="json", exclude={"memory", "loop_order"})
        heads = f", {operation.heads} heads" if operation.heads > 1 else ""
        extents = ", ".join(f"{letter} = {size}" for letter, size in plan.extents.items())
        order = f" in order {plan.design.loop_order}" if operation.kind == "product" else ""
        return (f"{operation.name} of {extents}{heads}{order}, set to {self.constants}, "
                f"on {design}")

    def step_cycles(self) -> tuple[int, ...]:
        """Cycles of every step, as the reference counts them for these operands."""
        return tuple(int(step.total) for step in self.steps())

    def steps(self) -> list[StepTime]:
        """Every step with its engines' cycles, as the reference counts them."""
        plan, recorded = self.plan, self.recorded
        is_product = isinstance(recorded, RecordedProduct)
        stored = np.swapaxes(self.result, 1, 2) if plan.task.transposed else self.result
        valid_mask = np.ones((plan.extents["b"], plan.extents["i"]), dtype=bool)
        recording = Recording(
            "", "", plan.design.bits, plan.design.accumulator_bits, valid_mask,
            (recorded,) if is_product else (), () if is_product else (recorded,),
            {plan.task.operation.writes: stored})
        workload: Any = SimpleNamespace(
            model=SimpleNamespace(design_hash=""), sequence_length=plan.extents["i"],
            batch_size=plan.extents["b"])
        walk = walk_program(
            plan.design, Program(0, (plan,)), workload, RecordedMasks(recording, workload),
            keep_steps=True)
        return walk.steps[1:]


def random_values(
    rng: np.random.Generator, shape: tuple[int, ...], bits: int, density: float
) -> np.ndarray:
    """Integers of `bits` bits of which a share of `density` is not zero."""
    limit = 1 << bits - 1
    values = rng.integers(-limit, limit, shape)
    values[values == 0] = 1
    return np.where(rng.random(shape) < density, values, 0)


def _plan(
    design: AcceleratorDesign, extents: Iterable[int], operation: Operation
) -> Plan:
    """Give an operation whose tensors are all resident a plan."""
    task = Task(operation, (1.0,) * len(operation.reads), 1.0, 1.0)
    reads = (True,) * len(operation.reads)
    sizes = dict(zip("bijk", extents, strict=True))
    return Plan(design, task, sizes, reads, True, True, 0, 0, True, 0)


def random_product(
    rng: np.random.Generator,
    design: AcceleratorDesign,
    extents: tuple[int, int, int, int],
    *,
    has_weight: bool = True,
    heads: int = 1,
    densities: tuple[float, float] = (0.5, 0.5),
    activate: int = 0,
    shift: int | None = None,
    exponents: tuple[int, int] | None = None,
    threshold: int | None = None,
    transposed: bool = False,
    valid: tuple[int, int] | None = None,
) -> Case:
    """Make a product of random operands.

    Parameters
    ----------
    extents : B, I, J, K; heads are part of B, head slowest
    has_weight : whether the right operand has no b, and biases
    heads : more than one makes a score whose operands, or, transposed to its reader, a context
        whose right operand and result, hold the heads of a row side by side
    densities : of the left and the right operand
    activate, shift, threshold, transposed : of the lanes; a shift that leaves a few saturated and a
        threshold that prunes some where not given
    exponents : of the rounded sum and of the result
    valid : real rows and columns
    """
    b, i, j, k = extents
    left = random_values(rng, (b, i, k), design.bits, densities[0])
    right = random_values(rng, (k, j) if has_weight else (b, k, j), design.bits, densities[1])
    pairs = max(1.0, k * densities[0] * densities[1])
    if shift is None:
        shift = design.bits - 2 + int(np.log2(pairs) / 2)
    if threshold is None:
        threshold = int(rng.integers(0, 1 << design.bits - 3))
    reach = 1 << min(design.accumulator_bits - 3, shift + design.bits - 2)
    bias = rng.integers(-reach, reach, j) if has_weight else None
    rounded, output = exponents or (-design.bits // 2, -design.bits // 2)
    value = product(
        left, right, 0 if bias is None else bias, shift, design.mac_lane, activate=activate,
        i_exponent=rounded, o_exponent=output)
    rows, columns = valid or (i, j)
    mask = np.zeros((b, i, j), dtype=bool)
    mask[:, :rows, :columns] = True
    result, _ = prune(value, threshold, mask)
    name = "value" if transposed else "product"
    if heads > 1:
        name, transposed = "context" if transposed else "score", False
    reads = ("left",) if has_weight else ("left", "right")
    operation = Operation(name, None, "product", heads, has_weight,
                          bool(activate), "sequence", k, j, reads, name)
    recorded = RecordedProduct(
        None, name, left, right, bias, shift, bool(activate),
        {"left": -4, "right": -4, "rounded": rounded, "output": output}, threshold, mask)
    constants = Constants(rows, columns, fields={
        "shift": shift, "activate": activate, "threshold": threshold,
        "i_exponent": rounded, "o_exponent": output})
    return Case(_plan(design, extents, operation), recorded,
                np.swapaxes(result, 1, 2) if transposed else result, constants)


def random_rows(
    rng: np.random.Generator,
    design: AcceleratorDesign,
    kind: str,
    shape: tuple[int, int],
    *,
    sequences: int = 1,
    density: float = 0.5,
    exponents: Mapping[str, int] | None = None,
    threshold: int | None = None,
    valid: tuple[int, int] | None = None,
) -> Case:
    """Make a softmax or an add_norm of random rows.

    Parameters
    ----------
    shape : rows of each sequence, and elements of each
    sequences : how many follow one another
    density, threshold : of the operands, and of the result's pruning
    exponents : those to replace, by the names of `RecordedRows`
    valid : real rows of a sequence, and real elements of each of a softmax
    """
    sequence, width = shape
    rows, columns = valid or shape
    real = np.zeros((sequences, sequence, width), dtype=bool)
    real[:, :rows, :columns if kind == "softmax" else width] = True
    real = real.reshape(-1, width)
    count = len(real)
    values = random_values(rng, (count, width), design.bits, density)
    if threshold is None:
        threshold = int(rng.integers(0, 1 << design.bits - 3))
    fields = {"threshold": threshold}
    if kind == "softmax":
        powers = {"rows": 3 - design.bits, "output": 1 - design.bits, **(exponents or {})}
        result, _ = prune(softmax(values, powers["rows"], design.softmax, real), threshold, real)
        recorded = RecordedRows(None, kind, kind, values, real, powers, threshold)
        fields["i_exponent"] = powers["rows"]
        reads: tuple[str, ...] = ("score",)
    else:
        addend = random_values(rng, (count, width), design.bits, density)
        gamma, beta = (random_values(rng, (width,), design.bits, 0.9) for _ in range(2))
        powers = {"rows": -4, "residual": -3, "sum": -3, "gamma": 2 - design.bits,
                  "beta": 2 - design.bits, "output": 3 - design.bits, **(exponents or {})}
        total = residual_add(
            values, powers["rows"], addend, powers["residual"], powers["sum"], design.residual_add)
        normalised = layer_norm(
            total, powers["sum"], gamma, powers["gamma"], beta, powers["beta"], powers["output"],
            design.layer_norm)
        result, _ = prune(normalised, threshold, real)
        recorded = RecordedRows(
            None, kind, kind, values, real, powers, threshold, addend, gamma, beta)
        fields |= {"i_exponent": powers["rows"], "addend_exponent": powers["residual"],
                   "o_exponent": powers["output"]}
        fields |= {f"{name}_exponent": powers[name] for name in ("sum", "gamma", "beta")}
        reads = ("added", "residual")
    operation = Operation(kind, None, kind, 1, False, False, "sequence", width, width, reads, kind)  # type: ignore[arg-type]
    constants = Constants(rows, columns, sequence, fields)
    return Case(_plan(design, (1, count, 1, width), operation), recorded, result, constants)


@dataclass(frozen=True)
class Prepared:
    """A case as the machine gets it.

    Parameters
    ----------
    machine : what is loaded, run and read
    base : line of the result's first row
    rows : the result as it lies in the buffer, shape (rows, elements)
    image : the buffer's part that holds it
    """

    machine: MachineCase
    base: int
    rows: np.ndarray
    image: Image


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
    activations, weights = Contents(spec.activations), Contents(spec.weights)
    heads = plan.task.operation.heads
    gamma_line = 0

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

    def plain(contents: Contents, values: np.ndarray) -> Walk:
        return walk(values, contents.place(values.reshape(-1, values.shape[-1])))

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
            walks = [plain(activations, recorded.left), walk_columns(right, placed)]
            stored_rows = side_by_side(case.result, heads)
        else:
            walks = [plain(activations, recorded.left),
                     plain(weights if right.ndim == 2 else activations, right)]
        if recorded.initial is not None:
            weights.bias(recorded.initial)
    else:
        walks = [plain(activations, recorded.rows)]
        if recorded.residual is not None:
            assert recorded.gamma is not None and recorded.beta is not None
            walks.append(plain(activations, recorded.residual))
            gamma_line = weights.place(np.stack([recorded.gamma, recorded.beta]))
    base, start = activations.line, activations.position
    written = (walk_heads if name == "context" and heads > 1 else walk)(case.result, base)
    spills = plan.task.operation.kind == "product" and plan.spills
    sums = plan.waves_inside * plan.sum_words if spills else 0
    limit = spec.activations.positions - sums * spec.activations.piece
    if limit < start:
        raise ValueError(f"{sums} words of partial sums do not fit the buffer")
    homes = Homes(tuple(walks), written, start, limit,
                  sums=spec.activations.words - sums, weights=gamma_line)
    program = [header(plan.design), *descriptors(plan, homes, case.constants), Descriptor("end")]
    count, elements = stored_rows.shape
    image = pack(spec.activations, stored_rows, base, start, limit, order_of(plan, written))
    machine = MachineCase(
        program, {"activations": activations.words, "weights": weights.words},
        {"activations": words_of_lines(
            spec.activations, base, count * -(-elements // window), start)})
    return Prepared(machine, base, stored_rows, image)


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


def differences(case: Case, prepared: Prepared, found: MachineResult) -> list[str]:
    """Say what is not as it must be: status, line entries, values, cycles of a step."""
    if found.status != "done":
        return [f"status {found.status} after {found.cycles} cycles"]
    said = []
    unloaded = found.unloads["activations"]
    entries = prepared.image.entries
    wrong = [place for place, entry in entries.items()
             if unloaded.get((LINE_ENTRIES, *place)) != entry]
    if wrong:
        said.append(f"{len(wrong)} of {len(entries)} line entries differ, first {wrong[0]}")
    spec = AcceleratorSpec.of(case.plan.design).activations
    try:
        values = read_rows(spec, unloaded, prepared.base, prepared.rows.shape)
    except KeyError as error:
        said.append(f"(memory, bank, address) {error} is missing or unknown")
    else:
        wrong = np.argwhere(values != prepared.rows).tolist()
        if wrong:
            said.append(f"{len(wrong)} of {values.size} values differ, first {wrong[0]}")
    expected = case.step_cycles()
    if found.step_cycles != expected:
        pairs = enumerate(zip(found.step_cycles, expected, strict=False), start=-2)
        wrong_steps = [f"{number}: {one}, not {other}" for number, (one, other) in pairs
                       if one != other]
        said.append(f"{len(found.step_cycles)} steps, not {len(expected)}; cycles that differ: "
                    f"{'; '.join(wrong_steps[:8])}")
    return said
