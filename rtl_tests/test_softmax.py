"""The softmax module's Verilog against golden and cost."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.sim import Simulator  # noqa: E402  (after the skip)

from hwgen.emit import unit_module  # noqa: E402
from hwgen.simulation import check_unit, run_jobs  # noqa: E402
from hwgen.units.softmax import cost, jobs  # noqa: E402
from hwgen.units.softmax.rtl import Softmax  # noqa: E402
from hwgen.units.softmax.spec import SoftmaxSpec  # noqa: E402

pytestmark = pytest.mark.rtl

SPECS = [
    SoftmaxSpec(1, 8, 16),
    SoftmaxSpec(8, 20, 64),
    SoftmaxSpec(16, 20, 512),
    SoftmaxSpec(4, 24, 33),
    pytest.param(SoftmaxSpec(32, 4, 1), marks=pytest.mark.slow),
]


def full(spec, lengths, i_exponent=-3, seed=1, name="rows"):
    """Job of random rows without masks."""
    rng = np.random.default_rng(seed)
    low, high = -(2 ** (spec.bits - 1)), 2 ** (spec.bits - 1)
    rows = [rng.integers(low, high, n) for n in lengths]
    return jobs.make_job(spec, rows, [np.ones(n) for n in lengths], i_exponent, name)


def edges(spec):
    """Rows that are constant, one-hot, masked, of one element, pruned to zero."""
    low, high, n = -(2 ** (spec.bits - 1)), 2 ** (spec.bits - 1) - 1, spec.max_row
    one_hot = np.where(np.arange(n) == n // 2, high, low)
    half = np.arange(n) < (n + 1) // 2
    rows = [np.full(n, low), np.full(n, high), one_hot, one_hot, -one_hot - 1, [low], [high], [0],
            np.zeros(n), np.arange(n) % high]
    masks = [np.ones(len(row)) for row in rows]
    masks[3], masks[4], masks[6] = half, np.zeros(n), [0]
    return [jobs.make_job(spec, rows, masks, i_exponent, f"edges, exponent {i_exponent}")
            for i_exponent in (2 - spec.bits, -128, 127)]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_exact_and_on_time(spec, simulator):
    rng = np.random.default_rng(spec.bits)
    drawn = [jobs.random_job(spec, rng) for _ in range(5)]
    alone = full(spec, [spec.max_row], 3 - spec.bits)
    assert alone.cycles == cost.cycles(spec, spec.max_row)
    check_unit(Softmax, spec, [alone, *edges(spec), *drawn], simulator)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_specs(seed, simulator):
    """Ten jobs of rows back to back a spec, 200 in all."""
    rng = np.random.default_rng(100 + seed)
    spec = SoftmaxSpec(2 ** int(rng.integers(6)), int(rng.integers(4, 25)),
                       int(2 ** rng.uniform(0, 12)))
    check_unit(Softmax, spec, [jobs.random_job(spec, rng) for _ in range(10)], simulator)


def test_every_length_takes_its_cycles(simulator):
    spec = SoftmaxSpec(4, 6, 20)
    single = [full(spec, [n], name=f"{n} elements") for n in range(1, 21)]
    assert [job.cycles for job in single] == [cost.cycles(spec, n) for n in range(1, 21)]
    check_unit(Softmax, spec, single, simulator, [])


def test_rows_follow_without_a_gap(simulator):
    spec = SoftmaxSpec(4, 8, 64)
    longest, short = [64] * 6, [1] * 80
    drawn = [
        full(spec, longest, name="longest rows"),
        full(spec, short, name="rows of one beat"),
        full(spec, [64, *short, 64, *short, 64, 64], name="short after long"),
        full(spec, [1, 64, 8, 8, 64, 33, 2, 5, 64], name="mixed"),
    ]
    assert drawn[0].cycles == cost.cycles(spec, 64) + 5 * 16
    assert drawn[1].cycles == cost.cycles(spec, 1) + 79
    check_unit(Softmax, spec, drawn, simulator)


def test_all_segments_of_all_tables(simulator):
    # Rows of two whose sums are spread over 1 to 2, and so the terms over 0 to 1.
    spec = SoftmaxSpec(2, 20, 2)
    share = (np.arange(600) + 0.5) / 600
    second = -np.rint(-np.log(share) * 2**15).astype(np.int64)
    rows = [[0, value] for value in second]
    check_unit(Softmax, spec, [jobs.make_job(spec, rows, [[1, 1]] * 600, -15, "sums")], simulator)


def test_every_pair_of_four_bits_and_every_exponent_in_reach(simulator):
    spec = SoftmaxSpec(2, 4, 2)
    rows = [[a, b] for a in range(-8, 8) for b in range(-8, 8)]
    drawn = [jobs.make_job(spec, rows, [[1, 1]] * 256, e, f"exponent {e}") for e in range(-9, 9)]
    check_unit(Softmax, spec, drawn, simulator, [])


def test_nothing_is_lost_while_the_sink_stands_still():
    """Fill every queue with rows of one beat, the most descriptors there can be, then drain."""
    spec = SoftmaxSpec(1, 4, 6)
    job = full(spec, [1, 1, 2, 1] * 60)
    sent, wanted = jobs.stimulus(spec, job)["i"], jobs.expected(spec, job)["o"]
    dut, received, taken = Softmax(spec), [], 0

    async def testbench(ctx):
        nonlocal taken
        ctx.set(dut.i_exponent, job.exponents["i"])
        for cycle in range(1000):
            ctx.set(dut.i.valid, taken < len(sent))
            if taken < len(sent):
                ctx.set(dut.i.payload, sent[taken])
            # Long stops, each after room for a few more rows was made.
            ctx.set(dut.o.ready, cycle >= 300 and (cycle > 700 or cycle % 60 < 3))
            taken += ctx.get(dut.i.valid & dut.i.ready)
            if ctx.get(dut.o.valid & dut.o.ready):
                out = ctx.get(dut.o.payload)
                received.append({"value": list(out.value), "last": out.last})
            if cycle == 299:
                assert taken == stored(spec)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert received == wanted


def stored(spec):
    """Beats that the module takes while nothing leaves it: two queues, and pass 3's registers.

    One of its three is empty: the third row has two beats, and its reciprocal comes a cycle late.
    """
    assert spec.parallel == 1
    return (spec.max_row + 3) + (spec.max_row + 13) + 2


def test_every_parameter_changes_the_verilog():
    base = unit_module(Softmax(SoftmaxSpec(4, 8, 32)), "softmax").verilog
    for spec in (SoftmaxSpec(2, 8, 32), SoftmaxSpec(4, 9, 32), SoftmaxSpec(4, 8, 33)):
        assert unit_module(Softmax(spec), "softmax").verilog != base


@pytest.mark.parametrize(("table", "entry", "bit"), [
    ("exponential_table", 2, 5),
    *(pytest.param(*which, marks=pytest.mark.slow) for which in (
        ("ln2_table", 1, 4), ("whole_table", 8, 0), ("square_table", 7, 2),
        ("reciprocal_table", 6, 5), ("power_table", 1, 7)))])
def test_one_constant_changed_in_the_verilog_is_found(table, entry, bit, simulator):
    spec = SoftmaxSpec(2, 8, 16)
    module = unit_module(Softmax(spec), "softmax")
    old = re.search(rf"{table}\[{entry}\] = \d+'h(\w+);", module.verilog)
    new = old[0].replace(f"h{old[1]};", f"h{int(old[1], 16) ^ 1 << bit:x};")
    changed = replace(module, verilog=module.verilog.replace(old[0], new))
    rows = [[0, -value] for value in range(128)] + [[value, 0, 90] for value in range(-30, 90)]
    job = jobs.make_job(spec, rows, [np.ones(len(row)) for row in rows], -5, "rows")
    assert run_jobs(module, spec, [job], simulator)[0].ok
    assert not run_jobs(changed, spec, [job], simulator)[0].ok
