"""Cycles of the layer-norm module, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hwgen.technology.sram import memory
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.layer_norm.table import Format, fraction_bits
from hwgen.units.ppa import Ppa
from hwgen.units.stages import MACRO_BITS, MEMORY, beats

MULTIPLY_ADD = 3
"""Compression of partial products and what is added to them, two stages of addition."""

SUMS = 5
"""Mask, products of the elements' halves, sums of a beat (two stages), running sums."""

LENGTH = 3
"""Those of SUMS after which the running number of elements is there."""

VARIANCE = 5
"""Σx² from its parts (two stages), n·Σx² − (Σx)² (compression, two stages of addition)."""

EPSILON = 8
"""ε·n², beside the variance: normalise n, n² (two stages), recode it, times ε (three stages),
normalise."""

TOTAL = 4
"""Leading digit, normalise, align, add."""

RECIPROCAL_ROOT = 1 + 1 + MULTIPLY_ADD + MULTIPLY_ADD
"""Argument, a piecewise quadratic polynomial: table, product and sum, product and sum."""

SCALE = 6
"""Stages of pass 2 that need no root yet: register, n·x − Σx (two stages), times γ (three)."""

NORMALISE = SCALE + 6
"""Pass 2: shift by bytes, shift by bits, times the root, plus β (three stages), round and
saturate."""

START = SUMS + VARIANCE + TOTAL + RECIPROCAL_ROOT + MEMORY - SCALE
"""Cycles from a row's last beat until pass 2 starts on it, in time to meet the root, which can be
read `MEMORY` cycles after it is written."""


def latency(spec: Any) -> Any:
    """Cycles of a row beyond its two passes; `spec` may hold arrays.

    The second pass ends in a queue, whose entry can be read `MEMORY` cycles after the write.
    """
    return START + NORMALISE + MEMORY + 0 * spec.parallel


def load_cycles(spec: Any, n: Any) -> Any:
    """Cycles in which γ and β of rows of up to `n` elements are loaded, before the first row."""
    return beats(n, spec.parallel)


def cycles(spec: Any, n: Any) -> Any:
    """Cycles of one row of `n` elements from reset: 2·(⌈n/parallel⌉ − 1) + 1 + latency.

    One pass forms the sums while it stores the row, one normalises it. γ and β are there.

    Parameters
    ----------
    spec : LayerNormSpec, or an object whose fields are arrays that broadcast with `n`
    n : elements of the row, number or array
    """
    return 2 * (beats(n, spec.parallel) - 1) + 1 + latency(spec)


def cycles_back_to_back(spec: Any, n: Any, rows: Any) -> Any:
    """Cycles of `rows` equal rows without a gap: each further row takes its ⌈n/parallel⌉ beats."""
    return cycles(spec, n) + (rows - 1) * beats(n, spec.parallel)


def cycles_of_rows(spec: Any, lengths: Iterable[int]) -> int:
    """Cycles of rows of `lengths` elements without a gap, from reset.

    The second pass starts on a row once the first has finished it, and takes a beat a cycle. The
    times below leave out the fixed delay between the passes, which `latency` holds.
    """
    first = second = 0
    for n in lengths:
        row = beats(n, spec.parallel)
        first += row
        second = max(second, first - 1) + row
    return int(second + latency(spec))


def memories(spec: LayerNormSpec) -> dict[str, tuple[int, int]]:
    """Entries and their width, in bits, of each of the module's memories, by its name.

    Those of queues hold an entry less than the queue: an output register holds one.
    """
    fraction = fraction_bits(spec.bits)
    form = Format(spec.bits, (spec.max_row - 1).bit_length(), fraction, fraction)
    row = beats(spec.max_row, spec.parallel)
    stored = row + START - 1
    return {
        "rows": (stored, spec.parallel * (spec.bits + 1) + 1),
        "sums": (stored, spec.max_row.bit_length() + spec.bits + form.growth),
        "roots": (stored, fraction + (form.window + form.product - 1).bit_length()),
        "gamma": (row, spec.parallel * spec.bits),
        "beta": (row, spec.parallel * spec.bits),
        "results": (NORMALISE + MEMORY, spec.parallel * spec.bits + 1),
    }


def macros(spec: LayerNormSpec) -> dict[str, tuple[int, int]]:
    """Entries and width of each memory that is a macro."""
    return {name: size for name, size in memories(spec).items() if size[0] * size[1] > MACRO_BITS}


def memory_pj(spec: LayerNormSpec) -> float:
    """Energy of the macros an element: each beat, and each row of the longest, is written and read.

    γ and β are read for every beat; what loads them counts for nothing, for it does so once for
    many rows.
    """
    energy = 0.0
    for name, size in macros(spec).items():
        made = memory(*size)
        if name in ("gamma", "beta"):
            energy += made.read_pj / spec.parallel
        else:
            elements = spec.parallel if name in ("rows", "results") else spec.max_row
            energy += (made.write_pj + made.read_pj) / elements
    return energy


def _terms(spec: Any) -> tuple[Any, ...]:
    """An element's products and registers; the variance, its root and ε, which a row has once."""
    return (
        spec.parallel * spec.bits**2,
        spec.parallel * spec.bits,
        spec.parallel,
        spec.bits,
    )


PPA = Ppa(
    "layer_norm",
    ("parallel", "bits", "max_row", "epsilon"),
    _terms,
    operations=lambda spec: spec.parallel,
)
"""What a module's standard cells cost; an operation is an element."""
