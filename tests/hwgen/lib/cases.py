"""A function of its inputs as a component, checked against wanted results."""

from amaranth.hdl import Const, Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hwgen.lib.flow import Flow


class Case(wiring.Component):
    """A function of its inputs, given by a test, in some stages."""

    def __init__(self, make, **ports):
        self._make = make
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.o.eq(self._make(m, Flow(m, Const(1), "line"), self))
        return m


def check(dut, cases, cycles):
    """Assert that each case's inputs give its result, that many cycles later."""
    async def testbench(ctx):
        for inputs, wanted in cases:
            for name, value in inputs.items():
                ctx.set(getattr(dut, name), int(value))
            if cycles:
                await ctx.tick().repeat(cycles)
            else:
                await ctx.delay(1e-7)
            assert ctx.get(dut.o) == wanted, inputs

    simulator = Simulator(dut)
    if cycles:
        simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


def numbers(bits, rng, count=40):
    """Edges of a signed width, and random numbers."""
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return [low, high, -1, 0, 1, *rng.integers(low, high + 1, count).tolist()]
