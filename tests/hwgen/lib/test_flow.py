"""Queues and pipelines that never stall, and the arithmetic in them, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hwgen.lib.flow import Flow, Queue, room
from hwgen.lib.polynomial import multiply, quadratic
from hwgen.units.quadratic import Quadratic


def simulate(component, testbench):
    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


class Feed(wiring.Component):
    """Entries that take `delay` cycles to a queue, sent whenever there is room."""

    def __init__(self, depth, delay):
        self.depth, self.delay = depth, delay
        super().__init__({"ready": Out(1), "read": In(1), "data": Out(8), "sent": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = Queue(8, self.depth)
        send = Signal()
        flow = Flow(m, send, "line")
        value = self.sent
        for _ in range(self.delay):
            value = flow.stage(value=value).value
        m.d.comb += [
            send.eq(room(m, queue, send, "queue")),
            queue.write.eq(flow.valid), queue.w_data.eq(value),
            self.ready.eq(queue.ready), queue.read.eq(self.read), self.data.eq(queue.r_data),
        ]
        m.d.sync += self.sent.eq(self.sent + send)
        return m


@pytest.mark.parametrize(("depth", "delay", "reading"), [(4, 3, 0.3), (8, 3, 1.0), (9, 12, 0.6)])
def test_nothing_is_lost_on_the_way_to_a_queue(depth, delay, reading):
    rng = np.random.default_rng(1)
    dut, received = Feed(depth, delay), []

    async def testbench(ctx):
        for cycle in range(400):
            ctx.set(dut.read, bool(cycle > 60 and rng.random() < reading))
            if ctx.get(dut.ready & dut.read):
                received.append(ctx.get(dut.data))
            if cycle == 60:
                assert ctx.get(dut.sent) == depth
            await ctx.tick()

    simulate(dut, testbench)
    assert len(received) > 60
    assert received == [n % 256 for n in range(len(received))]


@pytest.mark.parametrize(("delay", "seen"), [(1, [0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]),
                                             (2, [0, 0, 0, 0, 1, 1, 1, 1, 0, 1, 1])])
def test_an_entry_is_there_two_cycles_after_its_write_and_free_after_its_read(delay, seen):
    # Four entries are enough for four cycles from the reservation to the cycle after the read.
    dut, got = Feed(4, delay), []

    async def testbench(ctx):
        ctx.set(dut.read, 1)
        for _ in seen:
            got.append(ctx.get(dut.ready))
            await ctx.tick()

    simulate(dut, testbench)
    assert got == seen


def test_keep_ends_a_beat():
    class Dut(wiring.Component):
        i: In(data.StructLayout({"value": 8, "keep": 1, "valid": 1}))
        o: Out(8)
        valid: Out(1)

        def elaborate(self, platform):
            m = Module()
            flow = Flow(m, self.i.valid, "line")
            s = flow.stage(keep=self.i.keep, value=self.i.value)
            m.d.comb += [self.o.eq(s.value), self.valid.eq(flow.valid)]
            assert flow.latency == 1
            return m

    dut, received = Dut(), []

    async def testbench(ctx):
        for value in range(16):
            ctx.set(dut.i, {"value": value, "keep": value >> 1 & 1, "valid": value & 1})
            await ctx.tick()
            if ctx.get(dut.valid):
                received.append(ctx.get(dut.o))

    simulate(dut, testbench)
    assert received == [3, 7, 11, 15]


class Arithmetic(wiring.Component):
    """A product, or a polynomial, of inputs that change every cycle."""

    def __init__(self, widths, table=None):
        self.table = table
        super().__init__({"left": In(widths[0]), "right": In(widths[1]), "o": Out(64),
                          "carried": Out(widths[0])})

    def elaborate(self, platform):
        m = Module()
        flow = Flow(m, 1, "line")
        if self.table is None:
            values, s = multiply(flow, [self.left], [self.right], carried=self.left)
            assert flow.latency == 3
        else:
            values, s = quadratic(m, flow, self.table, [self.left], "table", carried=self.left)
            assert flow.latency == 9
        m.d.comb += [self.o.eq(values[0]), self.carried.eq(s.carried)]
        return m


def through(dut, pairs, latency):
    """Outputs and carried inputs for each pair of inputs, which follow in every cycle."""
    received = []

    async def testbench(ctx):
        for cycle in range(len(pairs) + latency):
            if cycle >= latency:
                received.append((ctx.get(dut.o), ctx.get(dut.carried)))
            if cycle < len(pairs):
                ctx.set(dut.left, int(pairs[cycle][0]))
                ctx.set(dut.right, int(pairs[cycle][1]))
            await ctx.tick()

    simulate(dut, testbench)
    return received


@pytest.mark.parametrize("widths", [(1, 1), (5, 2), (3, 3), (9, 4), (20, 17), (26, 30)])
def test_products(widths):
    rng = np.random.default_rng(widths[1])
    ends = [(2 ** widths[0] - 1, 2 ** widths[1] - 1), (0, 0), (1, 2 ** widths[1] - 1)]
    pairs = ends + [tuple(rng.integers(0, 1 << w) for w in widths) for _ in range(60)]
    got = through(Arithmetic(widths), pairs, 3)
    assert got == [(int(a) * int(b), a) for a, b in pairs]


@pytest.mark.parametrize(("index_bits", "argument_bits", "fraction_bits"),
                         [(1, 7, 9), (2, 8, 13), (3, 9, 25)])
def test_every_argument_of_polynomials(index_bits, argument_bits, fraction_bits):
    table = Quadratic.interpolate(lambda f: 1 / (1 + f), index_bits, argument_bits, fraction_bits)
    every = np.arange(1 << argument_bits)
    got = through(Arithmetic((argument_bits, 1), table), [(a, 0) for a in every], 9)
    assert got == list(zip(table.evaluate(every).tolist(), every.tolist(), strict=True))


def test_a_queue_that_cannot_keep_up_is_refused():
    with pytest.raises(ValueError, match="at least 4 entries, not 3"):
        Queue(8, 3)
