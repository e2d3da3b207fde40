"""dynatran: cycles."""

from __future__ import annotations

from hwgen.units.dynatran import cost
from hwgen.units.dynatran.spec import DynatranSpec


def test_cycles() -> None:
    spec = DynatranSpec(4, 8)
    assert cost.cycles(spec, 10) == 10 + cost.latency(spec) == 11
    assert cost.cycles_back_to_back(spec, 10) == 10
