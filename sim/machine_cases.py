"""Random operations for an accelerator: operands, a program, what must come out and how long."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.dynatran.golden import prune
from hwgen.units.lane.golden import tile_seed
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.loader.cost import ImageSize
from hwgen.units.loader.golden import value_words
from hwgen.units.mac_lane.golden import finish, product
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.softmax.golden import golden as softmax
from model.operations import Operation
from model.recording import RecordedProduct, RecordedRows, Recording
from sim.homes import Constants
from sim.images import image
from sim.main_memory import least_density
from sim.masks import RecordedMasks
from sim.reference import StepTime, walk_program
from sim.schedule import NO_IMAGE, Plan, Program
from sim.workload import Task


@dataclass(frozen=True)
class Prefetch:
    """A weight that comes from main memory while an operation that does not need it runs.

    Parameters
    ----------
    rows : integers, shape (rows, elements)
    biases : integers, shape (biases,)
    size : of its image
    """

    rows: np.ndarray
    biases: np.ndarray
    size: ImageSize


@dataclass(frozen=True)
class Case:
    """One operation with all that it needs.

    Parameters
    ----------
    plan : its waves and steps
    recorded : operands and constants
    result : what must be stored, rows last but one, elements last, as the next operation reads them
    constants : what the units are set to
    prefetch : what comes meanwhile, of the size `plan.load`
    """

    plan: Plan
    recorded: RecordedProduct | RecordedRows
    result: np.ndarray
    constants: Constants
    prefetch: Prefetch | None = None

    def __str__(self) -> str:
        """Name what decides what the machine does, the design's own fields included."""
        plan, operation = self.plan, self.plan.task.operation
        design = plan.design.model_dump(mode="json", exclude={"memory", "loop_order"})
        heads = f", {operation.heads} heads" if operation.heads > 1 else ""
        extents = ", ".join(f"{letter} = {size}" for letter, size in plan.extents.items())
        order = f" in order {plan.design.loop_order}" if operation.kind == "product" else ""
        streams = ", its weight in blocks" if plan.streams else ""
        meanwhile = "" if self.prefetch is None else (
            f", while {self.prefetch.rows.shape} elements and {self.prefetch.biases.size} biases "
            f"come")
        return (f"{operation.name} of {extents}{heads}{order}{streams}{meanwhile}, "
                f"set to {self.constants}, on {design}")

    def in_order(self, order: str, streams: bool = False) -> Case:
        """Take the loops in another order, on which the RTL does not depend.

        Parameters
        ----------
        streams : whether the weight, if there is one, comes in blocks
        """
        design = self.plan.design.model_copy(update={"loop_order": order})
        return _declared(
            replace(self, plan=replace(self.plan, design=design, prefetched=not streams)))

    def with_prefetch(self, prefetch: Prefetch) -> Case:
        """Let a weight come meanwhile."""
        return replace(self, plan=replace(self.plan, load=prefetch.size), prefetch=prefetch)

    def step_cycles(self) -> tuple[int, ...]:
        """Cycles of every step, as the reference counts them for these operands."""
        return tuple(int(step.total) for step in self.steps())

    def steps(self) -> list[StepTime]:
        """Every step with its engines' cycles as the reference counts them.

        The first is the copy of the operation's weight, if it has one.
        """
        plan, recorded = self.plan, self.recorded
        stored = np.swapaxes(self.result, 1, 2) if plan.task.transposed else self.result
        valid_mask = np.ones((plan.extents["b"], plan.extents["i"]), dtype=bool)
        products = (recorded,) if isinstance(recorded, RecordedProduct) else ()
        rows = () if isinstance(recorded, RecordedProduct) else (recorded,)
        recording = Recording(
            "", "", plan.design.bits, plan.design.accumulator_bits, valid_mask, products, rows,
            {plan.task.operation.writes: stored})
        workload: Any = SimpleNamespace(
            model=SimpleNamespace(design_hash=""), sequence_length=plan.extents["i"],
            batch_size=plan.extents["b"])
        walk = walk_program(
            plan.design, Program(plan.image, (plan,)), workload,
            RecordedMasks(recording, workload), keep_steps=True)
        return walk.steps if plan.image != NO_IMAGE else walk.steps[1:]


def random_values(
    rng: np.random.Generator, shape: tuple[int, ...], bits: int, density: float
) -> np.ndarray:
    """Integers of `bits` bits of which a share of `density` is not zero."""
    limit = 1 << bits - 1
    values = rng.integers(-limit, limit, shape)
    values[values == 0] = 1
    return np.where(rng.random(shape) < density, values, 0)


def random_prefetch(
    rng: np.random.Generator,
    design: AcceleratorDesign,
    shape: tuple[int, int],
    *,
    density: float = 0.5,
    has_biases: bool = True,
) -> Prefetch:
    """Make a weight of random rows, with a bias each or without.

    Parameters
    ----------
    shape : rows, and elements of each
    """
    values = random_values(rng, shape, design.bits, density)
    reach = 1 << design.accumulator_bits - 2
    biases = rng.integers(-reach, reach, shape[0] if has_biases else 0)
    words = value_words(AcceleratorSpec.of(design).weights, values)
    lines = shape[0] * -(-shape[1] // design.window)
    return Prefetch(values, biases, image(design, lines, words, len(biases)))


def _plan(
    design: AcceleratorDesign, extents: Iterable[int], operation: Operation, streams: bool = False
) -> Plan:
    """Give an operation whose activations are all resident a plan."""
    task = Task(operation, (1.0,) * len(operation.reads), 1.0, 1.0)
    reads = (True,) * len(operation.reads)
    sizes = dict(zip("bijk", extents, strict=True))
    return Plan(design, task, sizes, reads, True, True, 0, 0, not streams, NO_IMAGE)


def _declared(case: Case) -> Case:
    """Declare a weight as sparse as its fullest image is."""
    plan = case.plan
    if not plan.task.operation.has_weight:
        return case
    task = replace(plan.task, weight_density=least_density(plan, case.recorded))
    return replace(case, plan=replace(plan, task=task))


def random_product(
    rng: np.random.Generator,
    design: AcceleratorDesign,
    extents: tuple[int, int, int, int],
    *,
    has_weight: bool = True,
    streams: bool = False,
    heads: int = 1,
    densities: tuple[float, float] = (0.5, 0.5),
    activate: int = 0,
    shift: int | None = None,
    exponents: tuple[int, int] | None = None,
    threshold: int | None = None,
    transposed: bool = False,
    valid: tuple[int, int] | None = None,
    seed: int | None = None,
) -> Case:
    """Make a product of random operands.

    Parameters
    ----------
    extents : B, I, J, K; heads are part of B, head slowest
    has_weight : whether the right operand has no b, and biases
    streams : whether such a weight comes in blocks
    heads : more than one makes a score whose operands, or, transposed to its reader, a context
        whose right operand and result, hold the heads of a row side by side
    densities : of the left and the right operand
    activate, shift, threshold, transposed : of the lanes; a shift that leaves a few saturated and a
        threshold that prunes some where not given
    exponents : of the rounded sum and of the result
    valid : real rows and columns
    seed : of the noise of stochastic rounding, of a design that has it; None rounds to nearest
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
    if seed is not None:
        finished = partial(finish, shift=shift, spec=design.mac_lane, activate=activate,
                           i_exponent=rounded, o_exponent=output)
        sums = left @ right + (0 if bias is None else bias)
        value = _by_tile(design, sums, seed, transposed and heads == 1, finished)
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
    constants = Constants(rows, columns, seed=seed or 0, fields={
        "shift": shift, "activate": activate, "threshold": threshold,
        "stochastic": int(seed is not None), "i_exponent": rounded, "o_exponent": output})
    return _declared(Case(
        _plan(design, extents, operation, streams), recorded,
        np.swapaxes(result, 1, 2) if transposed else result, constants))


def _by_tile(
    design: AcceleratorDesign,
    sums: np.ndarray,
    seed: int,
    transposed: bool,
    finished: Callable[..., np.ndarray],
) -> np.ndarray:
    """Finish sums tile by tile, each with its own noise, in the order in which a lane does."""
    result = np.empty_like(sums)
    tiles = design.tile_b, design.tile_x, design.tile_y
    counts = (range(-(-size // tile)) for size, tile in zip(sums.shape, tiles, strict=True))
    for at in itertools.product(*counts):
        part = tuple(slice(n * tile, (n + 1) * tile) for n, tile in zip(at, tiles, strict=True))
        tile = np.swapaxes(sums[part], 1, 2) if transposed else sums[part]
        own = tile_seed(seed, at[0], at[1], at[2], design.mac_lane.noise_bits)
        value = finished(tile.reshape(-1), seed=own).reshape(tile.shape)
        result[part] = np.swapaxes(value, 1, 2) if transposed else value
    return result


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
    real_of = np.zeros((sequences, sequence, width), dtype=bool)
    real_of[:, :rows, :columns if kind == "softmax" else width] = True
    real = real_of.reshape(-1, width)
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
