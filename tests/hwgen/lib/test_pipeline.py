"""Register slices and pipelines under random stalls, in Amaranth's own simulator."""

import numpy as np
import pytest
from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hwgen.lib.pipeline import Pipeline, RegisterSlice


def drive(component, beats, source_stall=0.0, sink_stall=0.0, seed=0, cycles=400):
    """Send integer beats; return what came out and the cycles of each transfer in and out."""
    rng = np.random.default_rng(seed)
    sent, received, times_in, times_out = iter(beats), [], [], []

    async def testbench(ctx):
        offered = None
        for cycle in range(cycles):
            if offered is None and rng.random() >= source_stall:
                offered = next(sent, None)
                if offered is not None:
                    ctx.set(component.i.payload, offered)
            ctx.set(component.i.valid, offered is not None)
            ctx.set(component.o.ready, bool(rng.random() >= sink_stall))
            if ctx.get(component.i.valid) and ctx.get(component.i.ready):
                times_in.append(cycle)
                offered = None
            if ctx.get(component.o.valid) and ctx.get(component.o.ready):
                times_out.append(cycle)
                received.append(ctx.get(component.o.payload))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return received, times_in, times_out


@pytest.mark.parametrize(("source_stall", "sink_stall"), [(0, 0), (0.5, 0), (0, 0.5), (0.3, 0.6)])
def test_slice_keeps_every_beat_in_order(source_stall, sink_stall):
    beats = np.random.default_rng(1).integers(0, 256, 100).tolist()
    assert drive(RegisterSlice(8), beats, source_stall, sink_stall)[0] == beats


def test_slice_has_latency_one_and_full_throughput():
    _, times_in, times_out = drive(RegisterSlice(8), list(range(50)))
    assert times_in == list(range(50))
    assert times_out == list(range(1, 51))


def test_slice_takes_exactly_two_beats_while_its_sink_stands_still():
    _, times_in, times_out = drive(RegisterSlice(8), list(range(9)), sink_stall=1.1)
    assert (times_in, times_out) == ([0, 1], [])


def test_slice_has_no_path_from_one_side_to_the_other():
    dut = RegisterSlice(8)

    async def testbench(ctx):
        ctx.set(dut.i.payload, 1)
        ctx.set(dut.i.valid, 1)
        assert not ctx.get(dut.o.valid)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.i.ready)
        ctx.set(dut.o.ready, 1)
        assert not ctx.get(dut.i.ready)
        await ctx.tick()
        assert ctx.get(dut.i.ready)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


class SumOfRuns(wiring.Component):
    """Sums runs of values up to `last`, through `stages` registers of copying."""

    i: In(stream.Signature(data.StructLayout({"value": signed(8), "last": 1})))
    o: Out(stream.Signature(data.StructLayout({"total": signed(16)})))

    def __init__(self, stages, group):
        self._stages, self._group = stages, group
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        total = Signal(signed(16))
        pipe = Pipeline(m, self.i, group=self._group)
        s = self.i.p
        for _ in range(self._stages):
            s = pipe.stage(value=s.value, last=s.last)
        with m.If(pipe.advance):
            m.d.sync += total.eq(Mux(s.last, 0, total + s.value))
        s = pipe.stage(keep=s.last, total=(total + s.value)[:16].as_signed())
        pipe.finish(self.o, total=s.total)
        self.latency = pipe.latency
        return m


class Held(wiring.Component):
    """Three stages, of which the last keeps its beat until the sink takes it."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        pipe = Pipeline(m, self.i, group=4)
        s = pipe.stage(value=self.i.p)
        s = pipe.stage(value=s.value + 1)
        s = pipe.stage(value=s.value + 1)
        m.d.comb += [self.o.valid.eq(pipe.valid), self.o.p.eq(s.value)]
        pipe.hold(self.o.ready)
        return m


@pytest.mark.parametrize(("source_stall", "sink_stall"), [(0, 0), (0.4, 0.6)])
def test_held_pipeline_keeps_every_beat(source_stall, sink_stall):
    beats = list(range(50))
    received, times_in, times_out = drive(Held(), beats, source_stall, sink_stall, seed=1)
    assert received == [beat + 2 for beat in beats]
    if not sink_stall:
        assert times_in == beats
        assert times_out == [time + 3 for time in times_in]


def test_held_pipeline_takes_a_beat_a_stage_while_its_sink_stands_still():
    _, times_in, _ = drive(Held(), list(range(9)), sink_stall=1.0)
    assert times_in == [0, 1, 2]


def runs(seed):
    rng = np.random.default_rng(seed)
    beats, sums, total = [], [], 0
    for _ in range(60):
        value, last = int(rng.integers(-128, 128)), int(rng.random() < 0.4)
        beats.append({"value": value, "last": last})
        total += value
        if last:
            sums.append(total)
            total = 0
    return beats, sums


@pytest.mark.parametrize("group", [1, 2, 3, 5, None])
@pytest.mark.parametrize(("source_stall", "sink_stall"), [(0, 0), (0.4, 0.6)])
def test_pipeline_with_state_and_dropped_beats(group, source_stall, sink_stall):
    beats, sums = runs(seed=group or 0)
    received, _, _ = drive(SumOfRuns(4, group), beats, source_stall, sink_stall, seed=group or 0)
    assert [beat.total for beat in received] == sums


@pytest.mark.parametrize("stages", [0, 1, 4, 9])
@pytest.mark.parametrize("group", [1, 3, 4, None])
def test_latency_is_the_number_of_stages(stages, group):
    dut = SumOfRuns(stages, group)
    beats = [{"value": 1, "last": 1}] * 20
    _, times_in, times_out = drive(dut, beats)
    assert dut.latency == stages + 2
    assert times_in == list(range(20))
    assert times_out == [time + dut.latency for time in times_in]


def test_a_group_of_no_stage_is_refused():
    with pytest.raises(ValueError, match="at least 1 stage, not 0"):
        Pipeline(Module(), None, group=0)


def test_a_missing_field_is_refused():
    m = Module()
    dut = SumOfRuns(0, 2)
    with pytest.raises(ValueError, match="fields .'total'., not .'value'."):
        Pipeline(m, dut.i).finish(dut.o, value=dut.i.p.value)
