"""Queues and pipelines that never stall, and truncated products, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.flow import Flow, Queue, room
from hwgen.lib.truncated import add_truncated
from hwgen.units.truncated import truncated


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


def test_lists_and_mappings_are_registered_as_they_are_nested():
    class Dut(wiring.Component):
        value: In(8)
        o: Out(data.ArrayLayout(8, 4))

        def elaborate(self, platform):
            m = Module()
            flow = Flow(m, Const(1), "line")
            s = flow.stage(one={"a": [self.value, (self.value + 1, self.value + 2)]},
                           other=self.value + 3)
            first, (second, third) = s.one["a"]
            m.d.comb += Value.cast(self.o).eq(
                Cat(part[:8] for part in (first, second, third, s.other)))
            return m

    dut = Dut()

    async def testbench(ctx):
        for value in (3, 90, 7):
            ctx.set(dut.value, value)
            await ctx.tick()
            assert list(ctx.get(dut.o)) == [value, value + 1, value + 2, value + 3]

    simulate(dut, testbench)


def test_copies_move_with_the_beats_that_need_them():
    class Dut(wiring.Component):
        value: In(8)
        o: Out(data.ArrayLayout(8, 2))

        def elaborate(self, platform):
            m = Module()
            flow = Flow(m, self.value[0], "line")
            first, second = flow.copies(self.value, "copy", [self.value[1], self.value[2]])
            assert flow.latency == 0
            m.d.comb += Value.cast(self.o).eq(Cat(first, second))
            return m

    dut, received = Dut(), []

    async def testbench(ctx):
        for value in range(10):
            ctx.set(dut.value, value)
            await ctx.tick()
            received.append(tuple(ctx.get(dut.o)))

    simulate(dut, testbench)
    assert received == [(0, 0)] * 3 + [(3, 0)] * 2 + [(3, 5)] * 2 + [(7, 7)] * 3


def test_a_flow_stands_still_without_enable_and_its_data_without_a_beat():
    class Dut(wiring.Component):
        value: In(8)
        enable: In(1)
        o: Out(8)
        valid: Out(1)

        def elaborate(self, platform):
            m = Module()
            flow = Flow(m, self.value[0], "line", self.enable)
            s = flow.stage(value=self.value)
            s = flow.stage(value=s.value)
            m.d.comb += [self.o.eq(s.value), self.valid.eq(flow.valid)]
            return m

    rng = np.random.default_rng(3)
    dut, entered, seen = Dut(), [0, 0], 0

    async def testbench(ctx):
        nonlocal seen
        for _ in range(200):
            value, enable = int(rng.integers(256)), bool(rng.integers(2))
            ctx.set(dut.value, value)
            ctx.set(dut.enable, enable)
            await ctx.tick()
            if enable:
                entered.append(value)
            # What has no beat, the even numbers, leaves the last beat's data where it was.
            valid = entered[-2] & 1
            seen = entered[-2] if valid else seen
            assert (ctx.get(dut.o), ctx.get(dut.valid)) == (seen, valid)

    simulate(dut, testbench)


class Truncated(wiring.Component):
    """A product by truncated rows, in as many bits as it can need."""

    def __init__(self, widths, cut, subtract):
        self.cut, self.subtract = cut, subtract
        super().__init__({"left": In(widths[0]), "right": In(widths[1]), "o": Out(40)})

    def elaborate(self, platform):
        m = Module()
        heap = BitHeap(m, 40, "product")
        add_truncated(heap, self.left, self.right.as_signed(), self.cut, self.subtract)
        m.d.comb += self.o.eq(sum(heap.rows())[:40])
        return m


@pytest.mark.parametrize("subtract", [False, True])
@pytest.mark.parametrize(("widths", "cut"), [((9, 4), 0), ((9, 4), 5), ((6, 7), 5), ((21, 16), 19)])
def test_truncated_products(widths, cut, subtract):
    rng = np.random.default_rng(cut)
    pairs = [(int(rng.integers(1 << widths[0])), int(rng.integers(1 << widths[1])))
             for _ in range(200)]
    dut = Truncated(widths, cut, subtract)

    async def testbench(ctx):
        for left, right in pairs:
            ctx.set(dut.left, left)
            ctx.set(dut.right, right)
            await ctx.delay(1e-6)
            value = right - (right >> (widths[1] - 1) << widths[1])
            wanted = truncated(left, value, widths[1], cut, subtract)
            assert ctx.get(dut.o) == wanted % (1 << 40)
            # Each row is rounded down, and a digit of zero counts −1 at most.
            error = wanted - (-1 if subtract else 1) * left * value / 2**cut
            assert -((widths[1] + 1) // 2) <= error <= 0

    simulator = Simulator(dut)
    simulator.add_testbench(testbench)
    simulator.run()


def test_a_queue_that_cannot_keep_up_is_refused():
    with pytest.raises(ValueError, match="at least 4 entries, not 3"):
        Queue(8, 3)
