"""Operations on an accelerator: operands in its buffers, a program, and what must come out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.program import Descriptor
from hwgen.simulation.machine import MachineCase, MachineResult, Word
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import Image, pack
from hwgen.units.buffer.spec import BIASES, EVEN_WORDS, LINE_ENTRIES, ODD_WORDS, BufferSpec
from hwgen.units.dynatran.golden import prune
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.mac_lane.golden import product
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.softmax.golden import golden as softmax
from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows, Recording
from sim.assembly import Constants, Homes, Walk, descriptors, header
from sim.masks import RecordedMasks
from sim.reference import StepTime, walk_program
from sim.schedule import Plan, Program
from sim.workload import Task


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
        """Put rows, [rows, elements], behind what is there; return their first line."""
        base = self.line
        image = pack(self.spec, rows, base, self.position)
        self.words |= {word[:3]: word[3] for word in image.writes()}
        self.line += len(rows) * -(-rows.shape[1] // self.spec.window)
        self.position += -(-int(image.used.max()) // self.spec.piece) * self.spec.piece
        return base

    def bias(self, values: np.ndarray) -> None:
        """Put biases at the first addresses."""
        for number, value in enumerate(values.tolist()):
            self.words[BIASES, 0, number] = value % (1 << self.spec.bias_bits)


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
    densities: tuple[float, float] = (0.5, 0.5),
    activate: int = 0,
    shift: int | None = None,
    threshold: int | None = None,
    transposed: bool = False,
    valid: tuple[int, int] | None = None,
) -> Case:
    """Make a product of random operands.

    Parameters
    ----------
    extents : B, I, J, K
    has_weight : whether the right operand has no b, and biases
    densities : of the left and the right operand
    activate, shift, threshold, transposed : of the lanes; a shift that leaves a few saturated and a
        threshold that prunes some where not given
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
    exponents = {"left": -4, "right": -4, "rounded": -design.bits // 2, "output": -design.bits // 2}
    value = product(
        left, right, 0 if bias is None else bias, shift, design.mac_lane, activate=activate,
        i_exponent=exponents["rounded"], o_exponent=exponents["output"])
    rows, columns = valid or (i, j)
    mask = np.zeros((b, i, j), dtype=bool)
    mask[:, :rows, :columns] = True
    result, _ = prune(value, threshold, mask)
    name = "value" if transposed else "product"
    reads = ("left",) if has_weight else ("left", "right")
    operation = Operation(name, None, "product", 1 if has_weight else b, has_weight,
                          bool(activate), "sequence", k, j, reads, name)
    recorded = RecordedProduct(
        None, name, left, right, bias, shift, bool(activate), exponents, threshold, mask)
    constants = Constants(rows, columns, fields={
        "shift": shift, "activate": activate, "threshold": threshold,
        "i_exponent": exponents["rounded"], "o_exponent": exponents["output"]})
    return Case(_plan(design, extents, operation), recorded,
                np.swapaxes(result, 1, 2) if transposed else result, constants)


def random_rows(
    rng: np.random.Generator,
    design: AcceleratorDesign,
    kind: str,
    shape: tuple[int, int],
    *,
    density: float = 0.5,
    threshold: int | None = None,
    valid: tuple[int, int] | None = None,
) -> Case:
    """Make a softmax or an add_norm of random rows.

    Parameters
    ----------
    shape : rows and elements of each
    density, threshold : of the operands, and of the result's pruning
    valid : real rows, and real elements of each of a softmax
    """
    count, width = shape
    rows, columns = valid or shape
    real = np.zeros(shape, dtype=bool)
    real[:rows, :columns] = True
    values = random_values(rng, shape, design.bits, density)
    if threshold is None:
        threshold = int(rng.integers(0, 1 << design.bits - 3))
    fields = {"threshold": threshold}
    if kind == "softmax":
        exponents = {"rows": 3 - design.bits, "output": 1 - design.bits}
        result, _ = prune(softmax(values, exponents["rows"], design.softmax, real), threshold, real)
        recorded = RecordedRows(None, kind, kind, values, real, exponents, threshold)
        fields["i_exponent"] = exponents["rows"]
        reads: tuple[str, ...] = ("score",)
    else:
        real[:, :] = (np.arange(count) < rows)[:, None]
        addend = random_values(rng, shape, design.bits, density)
        gamma, beta = (random_values(rng, (width,), design.bits, 0.9) for _ in range(2))
        exponents = {"rows": -4, "residual": -3, "sum": -3, "gamma": 2 - design.bits,
                     "beta": 2 - design.bits, "output": 3 - design.bits}
        total = residual_add(values, -4, addend, -3, -3, design.residual_add)
        normalised = layer_norm(
            total, -3, gamma, exponents["gamma"], beta, exponents["beta"], exponents["output"],
            design.layer_norm)
        result, _ = prune(normalised, threshold, real)
        recorded = RecordedRows(
            None, kind, kind, values, real, exponents, threshold, addend, gamma, beta)
        fields |= {"i_exponent": -4, "addend_exponent": -3, "sum_exponent": -3,
                   "gamma_exponent": exponents["gamma"], "beta_exponent": exponents["beta"],
                   "o_exponent": exponents["output"]}
        reads = ("added", "residual")
    operation = Operation(kind, None, kind, 1, False, False, "sequence", width, width, reads, kind)  # type: ignore[arg-type]
    constants = Constants(rows, columns, count, fields)
    return Case(_plan(design, (1, count, 1, width), operation), recorded, result, constants)


@dataclass(frozen=True)
class Prepared:
    """A case as the machine gets it.

    Parameters
    ----------
    machine : what is loaded, run and read
    base : line of the result's first row
    """

    machine: MachineCase
    base: int


def prepare(case: Case) -> Prepared:
    """Lay the operands out, and make the program and what is read back."""
    plan, recorded = case.plan, case.recorded
    spec = AcceleratorSpec.of(plan.design)
    activations, weights = Contents(spec.activations), Contents(spec.weights)
    gamma_line = 0

    def walk(contents: Contents, values: np.ndarray) -> Walk:
        rows, elements = values.shape[-2:]
        lines = -(-elements // spec.lane.window)
        base = contents.place(values.reshape(-1, elements))
        return Walk(base, lines, rows * lines)

    if isinstance(recorded, RecordedProduct):
        walks = [walk(activations, recorded.left)]
        if recorded.right.ndim == 2:
            walks.append(walk(weights, recorded.right.T))
            assert recorded.initial is not None
            weights.bias(recorded.initial)
        else:
            walks.append(walk(activations, np.swapaxes(recorded.right, 1, 2)))
    else:
        walks = [walk(activations, recorded.rows)]
        if recorded.residual is not None:
            assert recorded.gamma is not None and recorded.beta is not None
            walks.append(walk(activations, recorded.residual))
            gamma_line = weights.place(np.stack([recorded.gamma, recorded.beta]))
    base, start = activations.line, activations.position
    rows, elements = case.result.shape[-2:]
    lines = -(-elements // spec.lane.window)
    sums = plan.waves_inside * plan.sum_words if plan.task.operation.kind == "product" else 0
    sums = sums if sums and plan.spills else 0
    homes = Homes(tuple(walks), Walk(base, lines, rows * lines), start,
                  spec.activations.positions - sums * spec.activations.piece,
                  sums=spec.activations.words - sums, weights=gamma_line)
    program = [header(plan.design), *descriptors(plan, homes, case.constants), Descriptor("end")]
    count = case.result.size // elements * lines
    unload = result_words(spec.activations, base, count, start)
    machine = MachineCase(
        program, {"activations": activations.words, "weights": weights.words},
        {"activations": unload})
    return Prepared(machine, base)


def result_words(spec: BufferSpec, base: int, lines: int, start: int) -> list[Word]:
    """Words that hold some lines whose values begin at `start` or later."""
    entries = [(LINE_ENTRIES, bank, line) for bank in range(spec.pieces)
               for line in range(base, base + lines)]
    return entries + [
        (memory, bank, address) for memory in (EVEN_WORDS, ODD_WORDS)
        for bank in range(spec.pieces)
        for address in range(start // spec.piece // 2, spec.words // 2)]


def stored(
    spec: BufferSpec, found: Mapping[Word, int], base: int, shape: tuple[int, ...]
) -> np.ndarray:
    """Read a result out of what a buffer holds.

    Parameters
    ----------
    spec, found : the buffer, and its words
    base : line of the first row
    shape : of the result, elements of a row last
    """
    memories: dict[int, dict[tuple[int, int], int]] = {}
    for (memory, bank, address), data in found.items():
        memories.setdefault(memory, {})[bank, address] = data
    image = Image(spec, memories[LINE_ENTRIES], memories.get(EVEN_WORDS, {}),
                  memories.get(ODD_WORDS, {}), np.zeros(spec.pieces, dtype=np.int64))
    elements = shape[-1]
    return image.rows(base, int(np.prod(shape)) // elements, elements).reshape(shape)


def differences(case: Case, prepared: Prepared, found: MachineResult) -> list[str]:
    """Say what is not as it must be: status, values, cycles of a step."""
    if found.status != "done":
        return [f"status {found.status}"]
    said = []
    spec = AcceleratorSpec.of(case.plan.design).activations
    values = stored(spec, found.unloads["activations"], prepared.base, case.result.shape)
    wrong = int((values != case.result).sum())
    if wrong:
        said.append(f"{wrong} of {values.size} values differ")
    expected = case.step_cycles()
    if found.step_cycles != expected:
        said.append(f"steps take {found.step_cycles} cycles, not {expected}")
    return said
