"""Cycles of the softmax module, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hwgen.technology.sram import memory
from hwgen.units.ppa import Ppa
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import Format
from hwgen.units.stages import MACRO_BITS, MEMORY, beats, tree_levels

MAXIMUM = 1
"""Register of phase 1 beside the comparator tree: running maximum."""

EXPONENTIAL = 4
"""Phase 2: distance, split into k·ln 2 and a rest, look-up, product; the shift is the queue's."""

RECIPROCAL = 1 + 2 + 4
"""Running sum; its power of two, and its shift; look-up, product, look-up, product."""

NORMALISE = 3
"""Phase 3: operands, product in two rows, their sum."""

LONGEST_RECORDED = 64
"""Beats of the longest row whose power is recorded."""


def maximum_stages(parallel: Any) -> Any:
    """Registers of the comparator tree, one every two levels."""
    return (tree_levels(parallel) + 1) // 2


def sum_stages(parallel: Any) -> Any:
    """Registers of the carry-save tree, one for every factor of 16."""
    return (tree_levels(parallel) + 3) // 4


def latency(spec: Any) -> Any:
    """Cycles of a row beyond its three passes; `spec` may hold arrays.

    Each of the first two passes ends in a queue, whose entry the next pass can read `MEMORY` cycles
    after the write.
    """
    return (
        MAXIMUM + MEMORY + EXPONENTIAL + RECIPROCAL + MEMORY + NORMALISE
        + maximum_stages(spec.parallel) + sum_stages(spec.parallel)
    )


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of one row of `n` elements from reset: 3·(⌈n/parallel⌉ − 1) + 1 + latency.

    Parameters
    ----------
    spec : SoftmaxSpec, or an object whose fields are arrays that broadcast with `n`
    n : elements of the row, number or array
    """
    return 3 * (beats(n, spec.parallel) - 1) + 1 + latency(spec)


def cycles_back_to_back(spec: Any, n: Any, rows: Any) -> Any:
    """Cycles of `rows` equal rows without a gap: each further row takes its ⌈n/parallel⌉ beats."""
    return cycles(spec, n) + (rows - 1) * beats(n, spec.parallel)


def cycles_of_rows(spec: Any, lengths: Iterable[int]) -> int:
    """Cycles of rows of `lengths` elements without a gap, from reset.

    A pass starts on a row once the pass before has finished it, and takes a beat a cycle. The
    times below leave out the fixed delays between the passes, which `latency` holds.
    """
    first = second = third = 0
    for n in lengths:
        row = beats(n, spec.parallel)
        first += row
        second = max(second, first - 1) + row
        third = max(third, second - 1) + row
    return int(third + latency(spec))


def queues(spec: SoftmaxSpec) -> dict[str, tuple[int, int]]:
    """Entries and their width, in bits, of each of the module's queues, by its name."""
    form = Format(spec.bits, (spec.max_row - 1).bit_length())
    row = beats(spec.max_row, spec.parallel)
    rows = row + MAXIMUM + maximum_stages(spec.parallel) + MEMORY
    terms = row + EXPONENTIAL + sum_stages(spec.parallel) + RECIPROCAL + MEMORY
    return {
        "rows": (rows, spec.parallel * (spec.bits + 1) + 1),
        "maxima": (rows, spec.bits),
        "terms": (terms, spec.parallel * (form.kept + 1) + 1),
        "inverses": (terms, form.inverse),
    }


def macros(spec: SoftmaxSpec) -> dict[str, tuple[int, int]]:
    """Entries and width of each queue's memory that is a macro; an output register holds one."""
    stored = {name: (depth - 1, width) for name, (depth, width) in queues(spec).items()}
    return {name: size for name, size in stored.items() if size[0] * size[1] > MACRO_BITS}


def memory_pj(spec: SoftmaxSpec) -> float:
    """Energy of the macros an element: each beat of a row, and each row, is written and read.

    Rows are taken as long as the longest, which matters where the queues of an entry a row are
    macros.
    """
    energy = 0.0
    for name, size in macros(spec).items():
        made = memory(*size)
        elements = spec.parallel if name in ("rows", "terms") else spec.max_row
        energy += (made.write_pj + made.read_pj) / elements
    return energy


def _terms(spec: Any) -> tuple[Any, ...]:
    """An element's products, its registers, the reciprocal; queues that are registers; rows' ends.

    What a row takes once counts by the beats of the rows whose power was recorded (workload.py).
    """
    held = sum(depth * width for name, (depth, width) in queues(spec).items()
               if name not in macros(spec))
    return (
        spec.parallel * spec.bits**2,
        spec.parallel * spec.bits,
        spec.bits,
        held,
        1 / min(beats(spec.max_row, spec.parallel), LONGEST_RECORDED),
    )


PPA = Ppa(
    "softmax", ("parallel", "bits", "max_row"), _terms, operations=lambda spec: spec.parallel
)
"""What a module's standard cells cost; an operation is an element."""
