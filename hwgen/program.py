"""What the hardware is asked to do, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


def _plain(value: Any) -> Any:
    """Arrays and NumPy scalars as lists and Python integers."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


@dataclass(frozen=True)
class Job:
    """One job of one unit: what it gets and how long the model says that it takes.

    Parameters
    ----------
    unit : name of the unit's folder
    name : what the job is, for people
    operands : integers and arrays of integers by name; a list of unequal rows stays a list
    exponents : power-of-two exponents by tensor name
    shapes : the extents that the operands belong to
    cycles : predicted cycles, or None until a cost function has filled them in
    """

    unit: str
    name: str
    operands: Mapping[str, Any]
    exponents: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, list[int]] = field(default_factory=dict)
    cycles: int | None = None

    def with_cycles(self, cycles: int) -> Job:
        """Give the same job another prediction."""
        return replace(self, cycles=int(cycles))

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON types."""
        return {
            "unit": self.unit,
            "name": self.name,
            "operands": {name: _plain(value) for name, value in self.operands.items()},
            "exponents": {name: int(value) for name, value in self.exponents.items()},
            "shapes": {name: [int(n) for n in shape] for name, shape in self.shapes.items()},
            "cycles": self.cycles,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """Read a job back; rectangular lists of integers become int64 arrays."""
        operands = {name: _array(value) for name, value in data["operands"].items()}
        return cls(
            data["unit"],
            data["name"],
            operands,
            dict(data["exponents"]),
            {name: list(shape) for name, shape in data["shapes"].items()},
            data["cycles"],
        )


def _array(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        return np.asarray(value, dtype=np.int64)
    except ValueError:
        return value
