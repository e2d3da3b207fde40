"""Products on an accelerator: operands in its buffers, a program, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.program import Descriptor
from hwgen.simulation.machine import MachineCase, MachineResult
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import Image, pack
from hwgen.units.buffer.spec import BIASES, EVEN_WORDS, LINE_ENTRIES, ODD_WORDS
from hwgen.units.dynatran.golden import prune
from hwgen.units.mac_lane.golden import product
from model.operations import Operation
from model.recording import RecordedProduct, Recording
from sim.assembly import Constants, Homes, Walk, descriptors, header
from sim.masks import RecordedMasks
from sim.schedule import Plan
from sim.workload import Task


@dataclass(frozen=True)
class Product:
    """One product with all that it needs.

    Parameters
    ----------
    plan : its waves and steps
    recorded : operands and constants
    result : what must be stored, [B, I, J]
    """

    plan: Plan
    recorded: RecordedProduct
    result: np.ndarray
    transposed: bool

    @property
    def masks(self) -> RecordedMasks:
        """The operands as the reference takes them in mask mode."""
        recording = Recording(
            "", "", self.plan.design.bits, self.plan.design.accumulator_bits,
            np.ones((self.plan.extents["b"], self.plan.extents["i"]), dtype=bool),
            (self.recorded,), (), {"product": self.result},
        )
        workload: Any = SimpleNamespace(
            model=SimpleNamespace(design_hash=""), sequence_length=self.plan.extents["i"],
            batch_size=self.plan.extents["b"],
        )
        return RecordedMasks(recording, workload)


def random_values(
    rng: np.random.Generator, shape: tuple[int, ...], bits: int, density: float
) -> np.ndarray:
    """Integers of `bits` bits of which a share of `density` is not zero."""
    limit = 1 << bits - 1
    values = rng.integers(-limit, limit, shape)
    values[values == 0] = 1
    return np.where(rng.random(shape) < density, values, 0)


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
) -> Product:
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
    wide = design.accumulator_bits - 2
    bias = rng.integers(-(1 << wide - 3), 1 << wide - 3, j) if has_weight else None
    pairs = max(1.0, k * densities[0] * densities[1])
    if shift is None:
        shift = design.bits - 2 + int(np.log2(pairs) / 2)
    if bias is not None:
        bias = bias >> max(0, wide - 3 - shift - design.bits + 2)
    if threshold is None:
        threshold = int(rng.integers(0, 1 << design.bits - 3))
    exponents = {"left": -4, "right": -4, "rounded": -design.bits // 2, "output": -design.bits // 2}
    value = product(
        left, right, 0 if bias is None else bias, shift, design.mac_lane, activate=activate,
        i_exponent=exponents["rounded"], o_exponent=exponents["output"])
    rows, columns = valid or (i, j)
    mask = np.zeros((b, i, j), dtype=bool)
    mask[:, :rows, :columns] = True
    result, _ = prune(value, threshold, mask)
    operation = Operation(
        "product", None, "product", 1 if has_weight else b, has_weight, bool(activate),
        "sequence", k, j, ("left",) if has_weight else ("left", "right"), "product")
    task = Task(operation, densities[: 1 + (not has_weight)], densities[1], 1.0)
    plan = Plan(
        design, task, dict(zip("bijk", extents, strict=True)), (True, True), True, True, 0, 0,
        True, 0)
    recorded = RecordedProduct(
        None, "product", left, right, bias, shift, bool(activate), exponents, threshold, mask)
    return Product(plan, recorded, result, transposed)


def machine_case(case: Product) -> MachineCase:
    """Lay the operands out, and make the program and what is read back."""
    plan, recorded = case.plan, case.recorded
    spec = AcceleratorSpec.of(plan.design)
    b, i, j, k = (plan.extents[letter] for letter in "bijk")
    lines = -(-k // spec.lane.window)
    left = pack(spec.activations, recorded.left.reshape(b * i, k))
    after = _end(spec, left)
    loads: dict[str, dict[tuple[int, int, int], int]] = {
        "activations": _words(left), "weights": {}}
    left_walk = Walk(0, lines, i * lines)
    if recorded.right.ndim == 2:
        right = pack(spec.weights, recorded.right.T)
        loads["weights"] |= _words(right)
        assert recorded.initial is not None
        for number, bias in enumerate(recorded.initial.tolist()):
            loads["weights"][BIASES, 0, number] = bias % (1 << spec.weights.bias_bits)
        right_walk, base = Walk(0, lines), b * i * lines
    else:
        base = b * i * lines
        rows = np.swapaxes(recorded.right, 1, 2).reshape(b * j, k)
        right = pack(spec.activations, rows, base, after)
        loads["activations"] |= _words(right)
        right_walk = Walk(base, lines, j * lines)
        base, after = base + b * j * lines, _end(spec, right, after)
    stored = np.swapaxes(case.result, 1, 2) if case.transposed else case.result
    wide = -(-stored.shape[2] // spec.lane.window)
    result = Walk(base, wide, stored.shape[1] * wide)
    homes = Homes((left_walk, right_walk), result, after, spec.activations.positions, 0, 0,
                  case.transposed)
    parts = [header(plan.design), *descriptors(plan, homes, _constants(case)), Descriptor("end")]
    entries = {
        (LINE_ENTRIES, bank, line)
        for bank in range(spec.activations.pieces)
        for line in range(base, base + b * stored.shape[1] * wide)
    }
    half = spec.activations.words // 2
    words = {
        (memory, bank, address)
        for memory in (EVEN_WORDS, ODD_WORDS)
        for bank in range(spec.activations.pieces)
        for address in range(after // spec.lane.piece // 2, half)
    }
    return MachineCase(parts, loads, {"activations": sorted(entries | words)})


def _constants(case: Product) -> Constants:
    recorded = case.recorded
    assert recorded.valid_mask is not None
    return Constants(
        int(recorded.valid_mask[0].any(1).sum()),
        int(recorded.valid_mask[0].any(0).sum()),
        fields={
            "shift": recorded.shift,
            "activate": int(recorded.activate),
            "threshold": recorded.threshold,
            "i_exponent": recorded.exponents["rounded"],
            "o_exponent": recorded.exponents["output"],
        },
    )


def _words(image: Image) -> dict[tuple[int, int, int], int]:
    return {(memory, bank, address): data for memory, bank, address, data in image.writes()}


def _end(spec: AcceleratorSpec, image: Image, start: int = 0) -> int:
    """Position of the first word that is free in all banks."""
    piece = spec.lane.piece
    return start + -(-int(image.used.max()) // piece) * piece


def stored_result(case: Product, found: MachineResult) -> np.ndarray:
    """Read the result out of what the buffer holds, [B, I, J]."""
    spec = AcceleratorSpec.of(case.plan.design)
    memories: dict[int, dict[tuple[int, int], int]] = {0: {}, 1: {}, 2: {}}
    for (memory, bank, address), data in found.unloads["activations"].items():
        memories[memory][bank, address] = data
    image = Image(spec.activations, memories[LINE_ENTRIES], memories[EVEN_WORDS],
                  memories[ODD_WORDS], np.zeros(spec.activations.pieces, dtype=np.int64))
    shape = case.result.shape
    if case.transposed:
        shape = shape[0], shape[2], shape[1]
    base = min(line for _, line in memories[LINE_ENTRIES])
    values = image.rows(base, shape[0] * shape[1], shape[2]).reshape(shape)
    return np.swapaxes(values, 1, 2) if case.transposed else values
