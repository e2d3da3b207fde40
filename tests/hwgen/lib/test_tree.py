"""Trees of registers, in Amaranth's simulator: when something arrives, and what each drives."""

import numpy as np
import pytest
from amaranth.hdl import ClockDomain, Const, Fragment, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hwgen.lib.tree import Down, delayed, lasting, up
from hwgen.units.stages import BRANCH, branch_levels

LEAVES = [1, 2, 4, 5, 16, 17]
LAYOUT = data.StructLayout({"low": 3, "high": 5})


def simulate(component, testbench):
    top = Module()
    top.domains.sync = ClockDomain()  # which a tree of one place does not need
    top.submodules.dut = component
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


class Broadcast(wiring.Component):
    """A bus to some places."""

    def __init__(self, leaves):
        self._leaves = leaves
        super().__init__({
            "valid": In(1), "data": In(LAYOUT), "valids": Out(leaves),
            "values": Out(data.ArrayLayout(LAYOUT, leaves))})

    def elaborate(self, platform):
        m = Module()
        self.tree = Down(m, self._leaves, self.valid, self.data, "bus")
        for number in range(self._leaves):
            valid, value = self.tree.leaf(number)
            m.d.comb += [self.valids[number].eq(valid),
                         self.values[number].low.eq(value.low),
                         self.values[number].high.eq(value.high)]
        return m


@pytest.mark.parametrize("leaves", LEAVES)
def test_a_bus_reaches_all_places_together_and_then_stays(leaves):
    dut, rng = Broadcast(leaves), np.random.default_rng(leaves)
    latency = branch_levels(leaves)
    sent = [(int(rng.integers(2)), int(rng.integers(256))) for _ in range(40)]

    async def testbench(ctx):
        kept = None
        for cycle, (valid, value) in enumerate(sent):
            ctx.set(dut.valid, valid)
            ctx.set(dut.data, LAYOUT.from_bits(value))
            if cycle >= latency:
                there, expected = sent[cycle - latency]
                assert ctx.get(dut.valids) == (2**leaves - 1) * there
                kept = expected if there or not latency else kept
                for number in range(leaves if kept is not None else 0):
                    # Registers move only with what is valid.
                    assert ctx.get(dut.values[number].as_value()) == kept
            await ctx.tick()

    simulate(dut, testbench)
    assert dut.tree.latency == latency


@pytest.mark.parametrize("leaves", LEAVES)
def test_no_register_of_a_bus_drives_more_than_some(leaves):
    m, valid = Module(), Signal()
    tree = Down(m, leaves, valid, Const(0, 1), "bus")
    places = [tree.leaf(number)[0] for number in range(leaves)]
    driven = {}
    for statement in Fragment.get(m, None).statements.get("sync", ()):
        for target in statement._lhs_signals():
            for source in statement._rhs_signals():
                if source is not target:
                    driven.setdefault(source.name, set()).add(target.name)
    for name, targets in driven.items():
        # What a register says is valid moves the data beside as many valid bits.
        assert len({target for target in targets if target.endswith("_valid")}) <= BRANCH, name
    for place in places:
        if place is not valid:
            assert sum(place is other for other in places) <= BRANCH


def test_a_bus_may_carry_a_plain_value_or_nothing():
    m = Module()
    valid, value = Signal(), Signal(5)
    assert len(Down(m, 5, valid, value, "plain").leaf(4)[1]) == 5
    assert len(Down(m, 5, valid, Const(0, 0), "empty").leaf(0)[1]) == 0


class Gather(wiring.Component):
    """OR of some values, and values that wait and last."""

    def __init__(self, number, cycles):
        self._cycles = cycles
        super().__init__({
            "values": In(data.ArrayLayout(6, number)), "o": Out(6), "late": Out(6),
            "lasts": Out(1)})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [
            self.o.eq(up(m, list(self.values), "up")),
            self.late.eq(delayed(m, self.values[0], self._cycles, "late")),
            self.lasts.eq(lasting(m, self.values[0][0], self._cycles, "lasts")),
        ]
        return m


@pytest.mark.parametrize(("number", "cycles"), [(1, 0), (2, 1), (4, 5), (5, 2), (17, 3)])
def test_what_comes_up_waits_and_lasts(number, cycles):
    dut, rng = Gather(number, cycles), np.random.default_rng(number)
    latency = branch_levels(number)
    sent = np.where(rng.random((60, number)) < 0.3, rng.integers(0, 64, (60, number)), 0)

    async def testbench(ctx):
        for cycle, values in enumerate(sent.tolist()):
            for place, value in enumerate(values):
                ctx.set(dut.values[place], value)
            joined = int(np.bitwise_or.reduce(sent[cycle - latency])) if cycle >= latency else 0
            assert ctx.get(dut.o) == joined
            assert ctx.get(dut.late) == (int(sent[cycle - cycles, 0]) if cycle >= cycles else 0)
            recent = sent[max(0, cycle - cycles):cycle + 1, 0]
            assert ctx.get(dut.lasts) == int((recent & 1).any())
            await ctx.tick()

    simulate(dut, testbench)
