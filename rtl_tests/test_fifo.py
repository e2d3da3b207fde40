"""The FIFO's RTL against its golden model and its cost."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator  # noqa: E402  (after the skip)

from hwgen.emit import unit_module  # noqa: E402
from hwgen.program import Job  # noqa: E402
from hwgen.simulation import check_unit, run_jobs  # noqa: E402
from hwgen.units.fifo import cost, jobs  # noqa: E402
from hwgen.units.fifo.golden import trace  # noqa: E402
from hwgen.units.fifo.rtl import Fifo  # noqa: E402
from hwgen.units.fifo.spec import FifoSpec  # noqa: E402

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("spec", [FifoSpec(1, 4), FifoSpec(33, 7), FifoSpec(40, 128)], ids=str)
def test_random_entries(spec: FifoSpec, simulator: str) -> None:
    rng = np.random.default_rng(spec.bits)
    made = [jobs.random_job(spec, rng) for _ in range(16)]
    check_unit(Fifo, spec, made, simulator, stall_seeds=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [4, 5, 16, 100, 4096])
def test_more_random_entries(depth: int, simulator: str) -> None:
    rng = np.random.default_rng(depth)
    for bits in (int(rng.integers(1, 33)), 320):
        spec = FifoSpec(bits, depth)
        made = [jobs.random_job(spec, rng) for _ in range(25)]
        # Further than once round the deepest.
        value = rng.integers(0, 1 << min(bits, 32), (depth + 9, -(-bits // 32)))
        made.append(jobs.with_prediction(spec, Job("fifo", "round", {"value": value})))
        check_unit(Fifo, spec, made, simulator)


def requests(spec, rng):
    """Random requests of all rates: full and empty for a while, then anything between."""
    rates = [(1.0, 0.0), (1.0, 1.0), (0.0, 1.0), (1.0, 0.5), (0.5, 1.0), (0.5, 0.5), (1.0, 0.1)]
    write, read = (np.concatenate([rng.random(2 * spec.depth + 5) < rate[side] for rate in rates])
                   for side in (0, 1))
    return write, read


def followed(dut, write, read):
    """What the RTL takes, gives and holds in each cycle, its entries being numbered."""
    taken, given, level, received = [], [], [], []

    async def testbench(ctx):
        sent = 0
        for offer, want in zip(write.tolist(), read.tolist(), strict=True):
            ctx.set(dut.i.valid, offer)
            ctx.set(dut.i.payload, sent % 256)
            ctx.set(dut.o.ready, want)
            taken.append(bool(offer and ctx.get(dut.i.ready)))
            given.append(bool(want and ctx.get(dut.o.valid)))
            level.append(ctx.get(dut.level))
            if given[-1]:
                received.append(ctx.get(dut.o.payload))
            sent += taken[-1]
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    return taken, given, level, received


@pytest.mark.parametrize("depth", [4, 5, 8, 33])
def test_every_cycle_is_as_golden_says(depth: int) -> None:
    spec = FifoSpec(8, depth)
    write, read = requests(spec, np.random.default_rng(depth))
    taken, given, level, received = followed(Fifo(spec), write, read)
    assert [found.tolist() for found in trace(write, read, spec)] == [taken, given, level]
    assert max(level) == depth and received == [n % 256 for n in range(sum(given))]


def test_ready_and_valid_do_not_depend_on_the_other_side() -> None:
    dut, seen = Fifo(FifoSpec(8, 4)), []

    async def testbench(ctx):
        for _ in range(8):
            ctx.set(dut.i.valid, 1)
            await ctx.tick()
        # Full: what the sink and the source want shows in the next cycle alone.
        for offer in (0, 1):
            for want in (0, 1):
                ctx.set(dut.i.valid, offer)
                ctx.set(dut.o.ready, want)
                seen.append((ctx.get(dut.i.ready), ctx.get(dut.o.valid), ctx.get(dut.level)))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert seen == [(0, 1, 4)] * 4


def test_entries_follow_without_a_gap(simulator: str) -> None:
    spec = FifoSpec(16, 4)
    job = jobs.with_prediction(spec, Job("fifo", "many", {"value": np.arange(1000)[:, None]}))
    assert job.cycles == 1000 + cost.LATENCY
    check_unit(Fifo, spec, [job], simulator)


def test_every_parameter_changes_the_verilog() -> None:
    specs = (FifoSpec(8, 6), FifoSpec(9, 6), FifoSpec(8, 7), FifoSpec(8, 64), FifoSpec(8, 65))
    texts = {unit_module(Fifo(spec), "fifo").verilog for spec in specs}
    assert len(texts) == len(specs)


def test_depth_is_that_of_the_memory() -> None:
    for depth in (4, 6, 7, 100):
        text = unit_module(Fifo(FifoSpec(8, depth)), "fifo").verilog
        # One entry is in the memory's output register.
        assert re.findall(r"reg \[7:0\] \w+ \[(\d+):0\];", text) == [str(depth - 2)]


@pytest.mark.parametrize(("right", "wrong"), [("== 4'h8", "== 4'h9"), ("== 3'h7", "== 3'h6")])
def test_a_changed_depth_is_found(right: str, wrong: str, simulator: str) -> None:
    spec = FifoSpec(8, 8)
    module = unit_module(Fifo(spec), "fifo")
    assert right in module.verilog, module.verilog
    changed = replace(module, verilog=module.verilog.replace(right, wrong))
    rng = np.random.default_rng(1)
    made = [jobs.random_job(spec, rng) for _ in range(8)]
    assert all(found.ok for found in run_jobs(module, spec, made, simulator, (None, 1, 2, 3)))
    assert not all(found.ok for found in run_jobs(changed, spec, made, simulator, (None, 1, 2, 3)))
