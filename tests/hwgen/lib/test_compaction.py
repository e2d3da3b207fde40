"""Networks against plain lists, in Amaranth's own simulator."""

import numpy as np
import pytest
from amaranth.hdl import Const, Module, Signal
from amaranth.sim import Simulator

from hwgen.lib.compaction import (
    PrefixCounts,
    at_least,
    close_gaps,
    open_gaps,
    switches,
)

WIDTH = 5


def settled(m, signal, values, results):
    """Values of `results` for each value of `signal`."""
    found = []

    async def testbench(ctx):
        for value in values:
            ctx.set(signal, value)
            found.append([ctx.get(result) for result in results])

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()
    return found


def masks(size):
    """All masks of a small size, random and extreme ones of a larger one."""
    if size <= 8:
        return list(range(1 << size))
    rng = np.random.default_rng(size)
    density = rng.random((60, 1))
    drawn = [sum(1 << k for k in np.flatnonzero(row)) for row in rng.random((60, size)) < density]
    return [*map(int, drawn), 0, (1 << size) - 1]


@pytest.mark.parametrize("size", [1, 2, 8, 16, 64])
def test_counts_in_two_steps(size):
    m, bits, start = Module(), Signal(size), Signal(3, init=5)
    counts = PrefixCounts.of(m, list(bits), "ones").added(m, start, "counts")
    for mask, found in zip(masks(size), settled(m, bits, masks(size), counts), strict=True):
        assert found == [5 + (mask & ((1 << k) - 1)).bit_count() for k in range(size + 1)]


@pytest.mark.parametrize(("size", "network", "bits"), [
    (1, 1, 1), (4, 4, 3 + 4), (8, 4, 4 + 4 + 4 + 3), (16, 16, 5 + 26), (64, 16, 4 * (5 + 26)),
    (64, 64, 4 * (5 + 26))])
def test_what_is_packed_is_what_switches_need(size, network, bits):
    m, marks = Module(), Signal(size)
    counted = PrefixCounts.of(m, list(marks), "ones")
    packed = Signal(len(counted.packed(network)))
    assert len(packed) == bits
    m.d.comb += packed.eq(counted.packed(network))
    counts = counted.unpacked(packed, network).added(m, Const(0, 1), "counts")
    for mask, found in zip(masks(size), settled(m, marks, masks(size), counts), strict=True):
        for k, count in enumerate(found):
            modulo = 1 << 9 if k % network == 0 else 2 * (k & -k)
            assert (count - (mask & ((1 << k) - 1)).bit_count()) % modulo == 0


@pytest.mark.parametrize("bits", [0, 1, 3])
def test_what_reaches_a_bound(bits):
    m, bound = Module(), Signal(bits)
    for value, found in enumerate(settled(m, bound, range(1 << bits), at_least(1 << bits, bound))):
        assert found == [k >= value for k in range(1 << bits)]


@pytest.mark.parametrize(("size", "network"), [(1, 1), (2, 2), (8, 8), (32, 8), (32, 32), (64, 16)])
@pytest.mark.parametrize("start", [0, 5])
def test_marked_elements_come_together(size, network, start):
    m, bits = Module(), Signal(size)
    counts = PrefixCounts.of(m, list(bits), "ones").added(m, Const(start, 3), "counts")
    swap = Signal(len(switches(counts, network)))
    m.d.comb += swap.eq(switches(counts, network))
    placed = close_gaps(m, [Const(k, 6) for k in range(size)], list(swap), list(~swap), network,
                        "placed")
    for mask, found in zip(masks(size), settled(m, bits, masks(size), placed), strict=True):
        rank = start
        for block in range(0, size, network):
            places = found[block:block + network]
            assert sorted(places) == list(range(block, block + network))
            for k in range(block, block + network):
                if mask >> k & 1:
                    assert places[rank % network] == k
                    rank += 1


@pytest.mark.parametrize(("size", "network"), [(1, 1), (2, 2), (8, 8), (32, 8), (64, 16)])
@pytest.mark.parametrize("start", [0, 5])
def test_values_come_to_marked_places(size, network, start):
    m, bits = Module(), Signal(size)
    counts = PrefixCounts.of(m, list(bits), "ones").added(m, Const(start, 3), "counts")
    swap = Signal(len(switches(counts, network)))
    m.d.comb += swap.eq(switches(counts, network))
    placed = open_gaps(m, [Const(k, 6) for k in range(size)], list(swap), list(~swap), network,
                       "placed")
    for mask, found in zip(masks(size), settled(m, bits, masks(size), placed), strict=True):
        rank = start
        for k in range(size):
            if mask >> k & 1:
                assert found[k] == k // network * network + rank % network
                rank += 1
