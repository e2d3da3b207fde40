"""Where an operation's tensors lie in an accelerator, and what its units are set to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from model.recording import RecordedProduct, RecordedRows
from sim.weights import Images

LINE_BITS = 20
"""Strides are modulo this many bits, and so may be negative."""


@dataclass(frozen=True)
class Walk:
    """Where the rows of an operand or a result lie in a buffer.

    Row r of index b = head · `wrap` + batch begins at line
    `base` + batch · `batch_lines` + head · `head_lines` + r · `row_lines`.

    Parameters
    ----------
    base : line of the first row
    row_lines, batch_lines, head_lines : lines from a row, a batch, a head to the next
    wrap : batches, where b has heads and batches; 0 where it has none but batches
    """

    base: int
    row_lines: int
    batch_lines: int = 0
    head_lines: int = 0
    wrap: int = 0

    def line(self, b: int, row: int) -> int:
        """First line of a row."""
        head, batch = divmod(b, self.wrap) if self.wrap else (0, b)
        return (
            self.base + batch * self.batch_lines + head * self.head_lines + row * self.row_lines
        )

    def phase(self, b: int) -> int:
        """Batches of b's head that come before it."""
        return b % self.wrap if self.wrap else 0

    def strides(self, port: str) -> dict[str, int]:
        """Fields of a configuration."""
        mask = (1 << LINE_BITS) - 1
        return {
            f"{port}_row_stride": self.row_lines & mask,
            f"{port}_b_stride": self.batch_lines & mask,
            f"{port}_wrap_stride": (self.head_lines - (self.wrap - 1) * self.batch_lines) & mask,
            f"{port}_wrap": self.wrap,
        }


@dataclass(frozen=True)
class Homes:
    """Where the tensors of an operation lie.

    Parameters
    ----------
    reads : of each tensor that is read (the right operand of a linear layer included; of one that
        streams, of the first of its two places)
    result : of the result
    start, limit : positions of the result's values in each bank, from the first to behind the last
    sums : word of the first partial sum that leaves the lanes
    images : of the operation's weight, or of γ and β, if it has any
    """

    reads: tuple[Walk, ...]
    result: Walk
    start: int
    limit: int
    sums: int = 0
    images: Images | None = None


@dataclass(frozen=True)
class Constants:
    """What an operation's units are set to.

    Parameters
    ----------
    valid_i, valid_j : real rows and columns
    sequence : rows after which their count starts again, of operations on rows
    fields : further fields of a configuration: shift, threshold, exponents, …
    seed : of the tensor's noise, where `fields` has `stochastic`
    """

    valid_i: int
    valid_j: int
    sequence: int = 1
    fields: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0

    @classmethod
    def of(cls, recorded: RecordedProduct | RecordedRows, sequence: int = 1) -> Constants:
        """Read an operation's constants from its recording.

        Parameters
        ----------
        recorded : of one operation
        sequence : rows of a sequence, of operations on rows

        Raises
        ------
        ValueError
            If the real positions of its sequences are not the same, and not the first.
        """
        exponents = recorded.exponents
        if isinstance(recorded, RecordedProduct):
            real = recorded.valid_mask
            if real is None:
                real = np.ones((1, recorded.left.shape[1], recorded.right.shape[-1]), dtype=bool)
            fields = {
                "shift": recorded.shift,
                "activate": int(recorded.activate),
                "i_exponent": exponents["rounded"],
                "o_exponent": exponents["output"],
            }
        else:
            real = recorded.valid_mask.reshape(-1, sequence, recorded.valid_mask.shape[-1])
            fields = {"i_exponent": exponents["rows"]}
            if recorded.kind == "add_norm":
                parts = ("sum", "gamma", "beta")
                fields |= {f"{name}_exponent": exponents[name] for name in parts}
                fields |= {
                    "addend_exponent": exponents["residual"],
                    "o_exponent": exponents["output"],
                }
        rows, columns = int(real[0].any(1).sum()), int(real[0].any(0).sum())
        first = np.zeros_like(real)
        first[:, :rows, :columns] = True
        if not np.array_equal(real, first):
            raise ValueError(
                f"{recorded.operation}: the real positions of every sequence must be the same, and "
                f"its first; run sequences of different lengths one by one")
        return cls(rows, columns, sequence, {"threshold": recorded.threshold, **fields})
