"""Sums in two stages against Python's integers, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.hdl import Cat
from amaranth.lib.wiring import In, Out
from cases import Case, check

from hwgen.lib.arithmetic import add_in_halves, add_with_carry


@pytest.mark.parametrize("width", [2, 7, 40])
def test_sums_of_pairs_in_two_stages(width):
    def make(m, flow, ports):
        sums, s = add_in_halves(flow, [(ports.a, ports.b), (ports.b, ports.b)], along=ports.a)
        assert flow.latency == 2
        return Cat(*sums, s.along)

    rng = np.random.default_rng(width)
    top = (1 << width) - 1
    pairs = [(0, 0), (top, 1), (1, top), (top, top), (top >> 1, 1), (1 << (width // 2), top),
             *rng.integers(0, top, (40, 2), endpoint=True).tolist()]
    cases = [({"a": a, "b": b}, (a + b & top) | (2 * b & top) << width | a << (2 * width))
             for a, b in pairs]
    check(Case(make, a=In(width), b=In(width), o=Out(3 * width)), cases, 2)


def test_a_carry_goes_in():
    dut = Case(lambda m, flow, ports: add_with_carry(ports.a, ports.b, ports.c),
               a=In(3), b=In(3), c=In(1), o=Out(3))
    cases = [({"a": a, "b": b, "c": c}, (a + b + c) % 8)
             for a in range(8) for b in range(8) for c in range(2)]
    check(dut, cases, 0)
