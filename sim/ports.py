"""What every step of a design needs of its buffers and its main memory, for whole populations."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.units.accelerator import cost as accelerator
from hwgen.units.buffer import cost as buffer
from hwgen.units.loader import cost as loader

Ints = NDArray[np.int64]


class Ports:
    """Rates and constants of a population; arrays of shape (designs,).

    `lines` and `pieces` that a buffer gives and takes in a cycle, G and S; `memory_numerator` and
    `memory_denominator` of the bits a cycle from main memory into a buffer; cycles beyond those in
    which something moves, `read_overhead` and `store_overhead` of a buffer and `memory_overhead`;
    `step_constant`, and `program`, the cycles in which the next descriptor is taken.
    """

    def __init__(self, designs: DesignBatch) -> None:
        """Work them out."""
        window, bits = designs.window, designs.bits
        lines = accelerator.lines_per_cycle(
            designs.pes, designs.buffer_rate_numerator, designs.buffer_rate_denominator,
            window, bits)
        numerator, denominator = loader.rate(
            designs.memory_rate_numerator, designs.memory_rate_denominator, lines, window, bits)
        self._columns: dict[str, Ints] = {
            "lines": lines,
            "pieces": accelerator.pieces_per_cycle(designs.pes, window, designs.piece, lines),
            "memory_numerator": numerator,
            "memory_denominator": denominator,
            "memory_overhead": loader.overhead(designs.memory_latency_cycles, bits, lines),
            "read_overhead": buffer.read_overhead(designs),
            "store_overhead": buffer.store_overhead(designs) + 0 * lines,
            "step_constant": accelerator.step_constant(
                designs.pes, designs.lanes_per_pe, designs.softmax_per_pe),
            "program": accelerator.program_cycles(designs),
        }
        self._table = np.stack(list(self._columns.values())).astype(np.float64)

    def __getattr__(self, name: str) -> Ints:
        """Return a column."""
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(name)
        return self._columns[name]

    def at(self, design: Ints) -> SimpleNamespace:
        """All of them for steps, as whole numbers in float64.

        Parameters
        ----------
        design : of each step
        """
        return SimpleNamespace(**dict(zip(self._columns, self._table[:, design], strict=True)))
