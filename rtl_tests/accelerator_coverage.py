"""What cases have in them that a machine might do wrong: bins, and how often each was met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np

from hwgen.design import LOOP_ORDERS
from hwgen.fixed_point import round_shift
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.spec import BufferSpec
from model.recording import RecordedProduct
from rtl_tests.accelerator_cases import Case, prepare

OPERATIONS = ("product", "value", "score", "context", "softmax", "add_norm")

BINS = (
    *(f"order {order}" for order in LOOP_ORDERS),
    *(f"operation {name}" for name in OPERATIONS),
    "relu", "gelu",
    "spill", "spill in groups of lanes", "segments without spill, R = 1",
    "segments without spill, R = 2",
    *(f"partial edge {letter}" for letter in "bijk"), "partial window",
    "empty left operand", "empty right operand", "empty result", "full operands",
    "empty line and full line in one operand",
    *(f"{letter} = 1" for letter in "ijk"), "softmax of one element", "norm of one element",
    "product saturates", "norm saturates", "padded rows", "padded columns", "several sequences",
    "transposed result", "right operand with b", "several heads", "piece straddles words",
    "window < tile_y", "tile_x < tile_y", "tile_x > tile_y", "tile_b > 1",
    "one lane", "lanes that are no power of two", "one multiplier",
    "k_segment of one window", "k_segment of several windows", "softmax engines > lanes",
    "lane that can round stochastically", "bits <= 8", "bits >= 18",
    "weights stream in blocks", "a block copied more than once", "a weight larger than its buffer",
    "prefetch meanwhile", "prefetch with biases", "prefetch while weights stream",
    "image of several groups", "idle slots", "main memory slower than a word a cycle",
    "several biases a word",
)  # fmt: skip
"""Everything that the long suite must meet."""


def count_bins(cases: Iterable[Case]) -> Counter[str]:
    """Count the cases that have each of the bins.

    Raises
    ------
    ValueError
        If a case is in a bin that has no name in `BINS`.
    """
    counts: Counter[str] = Counter({name: 0 for name in BINS})
    for case in cases:
        for name in set(_bins(case)):
            if name not in BINS:
                raise ValueError(f"{name!r} is no bin")
            counts[name] += 1
    return counts


def report(counts: Counter[str]) -> str:
    """Return a line a bin, in their order."""
    return "\n".join(f"{counts[name]:6}  {name}" for name in BINS)


def _bins(case: Case) -> Iterator[str]:
    yield f"operation {case.plan.task.operation.name}"
    yield from _of_design(case)
    yield from _of_product(case) if isinstance(case.recorded, RecordedProduct) else _of_rows(case)
    if not case.result.any():
        yield "empty result"
    rows, columns = case.constants.valid_i, case.constants.valid_j
    extents = case.plan.extents
    product = isinstance(case.recorded, RecordedProduct)
    if rows < (extents["i"] if product else case.constants.sequence):
        yield "padded rows"
    if columns < extents["j" if product else "k"]:
        yield "padded columns"
    if _straddles(case):
        yield "piece straddles words"
    yield from _of_memory(case)


def _of_design(case: Case) -> Iterator[str]:
    design = case.plan.design
    if design.window < design.tile_y:
        yield "window < tile_y"
    if design.tile_x != design.tile_y:
        yield "tile_x < tile_y" if design.tile_x < design.tile_y else "tile_x > tile_y"
    if design.softmax_per_pe > design.lanes_per_pe:
        yield "softmax engines > lanes"
    if design.bits <= 8:
        yield "bits <= 8"
    if design.bits >= 18:
        yield "bits >= 18"


def _of_memory(case: Case) -> Iterator[str]:
    """What comes from main memory, and how."""
    plan, spec = case.plan, AcceleratorSpec.of(case.plan.design)
    images = [plan.image, plan.load]
    if plan.streams:
        yield "weights stream in blocks"
        copied = [step.copy for step in plan.steps() if step.copy is not None]
        images += [plan.block_image(block) for block in copied]
        first = next(plan.blocks())
        counts = Counter((block.j, block.k) for block in (first, *copied))
        if max(counts.values()) > 1:
            yield "a block copied more than once"
    if plan.task.operation.has_weight:
        lines = plan.extents["j"] * -(-plan.extents["k"] // plan.design.window)
        if lines > spec.weights.words:
            yield "a weight larger than its buffer"
    if case.prefetch is not None:
        yield "prefetch meanwhile"
        if case.prefetch.size.biases:
            yield "prefetch with biases"
        if plan.streams:
            yield "prefetch while weights stream"
    if any(one.groups > 1 for one in images):
        yield "image of several groups"
    if any(one.slots > 1 + one.values for one in images):
        yield "idle slots"
    if any(one.lines for one in images):
        loader = spec.loader
        if loader.rate_numerator < loader.word_bits * loader.rate_denominator:
            yield "main memory slower than a word a cycle"
        if spec.weights.biases_together > 1:
            yield "several biases a word"


def _of_product(case: Case) -> Iterator[str]:
    plan, recorded = case.plan, case.recorded
    assert isinstance(recorded, RecordedProduct)
    design, extents = plan.design, plan.extents
    yield f"order {design.loop_order}"
    if design.tile_b > 1:
        yield "tile_b > 1"
    if design.stochastic_rounding:
        yield "lane that can round stochastically"
    if design.lanes_per_pe == 1:
        yield "one lane"
    if design.lanes_per_pe & (design.lanes_per_pe - 1):
        yield "lanes that are no power of two"
    if design.macs_per_lane == 1:
        yield "one multiplier"
    several = design.k_segment > design.window
    yield "k_segment of several windows" if several else "k_segment of one window"
    for letter in "bijk":
        if extents[letter] % plan.tiles[letter]:
            yield f"partial edge {letter}"
        if extents[letter] == 1 and letter != "b":
            yield f"{letter} = 1"
    if extents["k"] % design.window:
        yield "partial window"
    if plan.spills:
        yield "spill"
        if plan.sum_groups > 1:
            yield "spill in groups of lanes"
    elif plan.trips["k"] > 1:
        yield f"segments without spill, R = {plan.waves_inside}"
    activate = case.constants.fields["activate"]
    if activate:
        yield "relu" if activate == 2 else design.nonlinearity
    if plan.task.transposed:
        yield "transposed result"
    if recorded.right.ndim == 3:
        yield "right operand with b"
    if plan.task.operation.heads > 1:
        yield "several heads"
    yield from _of_masks(recorded.left, np.swapaxes(recorded.right, -1, -2), design.window)
    initial = 0 if recorded.initial is None else recorded.initial
    rounded = round_shift(recorded.left @ recorded.right + initial, recorded.shift)
    limit = 1 << design.bits - 1
    if (rounded >= limit).any() or (rounded < -limit).any():
        yield "product saturates"


def _of_masks(left: np.ndarray, right: np.ndarray, window: int) -> Iterator[str]:
    if not left.any():
        yield "empty left operand"
    if not right.any():
        yield "empty right operand"
    if left.all() and right.all():
        yield "full operands"
    whole = left.shape[-1] // window * window
    lines = (left[..., :whole] != 0).reshape(-1, window)
    if len(lines) and lines.all(1).any() and (~lines.any(1)).any():
        yield "empty line and full line in one operand"


def _of_rows(case: Case) -> Iterator[str]:
    kind, width = case.plan.task.operation.kind, case.plan.extents["k"]
    if width == 1:
        yield "softmax of one element" if kind == "softmax" else "norm of one element"
    if case.constants.sequence < case.plan.extents["i"]:
        yield "several sequences"
    limit = 1 << case.plan.design.bits - 1
    if kind == "add_norm" and ((case.result == limit - 1) | (case.result == -limit)).any():
        yield "norm saturates"


def _straddles(case: Case) -> bool:
    """Whether a stored piece begins in one word and ends in the next."""
    prepared = prepare(case)
    spec: BufferSpec = prepared.image.spec
    for code in prepared.image.entries.values():
        count = (code & (1 << spec.piece) - 1).bit_count()
        if (code >> spec.piece) % spec.piece + count > spec.piece:
            return True
    return False
