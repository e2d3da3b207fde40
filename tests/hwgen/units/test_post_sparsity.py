"""post_sparsity: cycles."""

from __future__ import annotations

from hwgen.units.post_sparsity import cost
from hwgen.units.post_sparsity.spec import PostSparsitySpec


def test_cycles() -> None:
    spec = PostSparsitySpec(8, 4, 16)
    assert cost.cycles(spec, 10) == 10 + cost.latency(spec) == 12
    assert cost.cycles_back_to_back(spec, 10) == 10
