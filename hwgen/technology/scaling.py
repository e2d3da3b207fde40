"""Published factors from one technology node to another (scaling.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml


@dataclass(frozen=True)
class Scaling:
    """Factors by which figures of a node are multiplied to project them to another.

    Parameters
    ----------
    area, delay, energy : factors of area, of a gate's delay, of the energy of an operation
    source : publication
    notes : what a reader of a projected figure must know
    """

    area: float
    delay: float
    energy: float
    source: str
    notes: tuple[str, ...]

    @classmethod
    def between(cls, origin: str, target: str) -> Scaling:
        """Factors from node `origin` to node `target`, "45nm", "14nm" or "7nm".

        Raises
        ------
        ValueError
            If there are no factors for a node.
        """
        table = _table()
        for node in (origin, target):
            if node not in table["nodes"]:
                known = ", ".join(table["nodes"])
                raise ValueError(f"node must be one of {known}, not {node!r}")
        first, second = table["nodes"][origin], table["nodes"][target]
        return cls(
            second["area"] / first["area"],
            _at_supply(second, "delay") / _at_supply(first, "delay"),
            _at_supply(second, "energy") / _at_supply(first, "energy"),
            table["source"],
            tuple(table["notes"]),
        )


def _at_supply(node: dict[str, Any], quantity: str) -> float:
    return float(np.polyval(node[quantity], node["supply_v"]))


@cache
def _table() -> dict[str, Any]:
    return dict(yaml.safe_load((files("hwgen") / "technology" / "scaling.yaml").read_text()))
