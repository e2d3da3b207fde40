"""The layer-norm module's Verilog against golden and cost."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("amaranth")

from amaranth.sim import Simulator  # noqa: E402  (after the skip)

from hwgen.emit import unit_module  # noqa: E402
from hwgen.simulation import check_unit, run_jobs  # noqa: E402
from hwgen.units.layer_norm import cost, jobs  # noqa: E402
from hwgen.units.layer_norm.rtl import LayerNorm  # noqa: E402
from hwgen.units.layer_norm.spec import LayerNormSpec  # noqa: E402

pytestmark = pytest.mark.rtl

SPECS = [
    LayerNormSpec(1, 8, 16, 1e-5),
    LayerNormSpec(8, 20, 64, 1e-12),
    LayerNormSpec(4, 24, 33, 0.3),
    LayerNormSpec(2, 4, 1, 0.9),
    pytest.param(LayerNormSpec(16, 20, 4096, 1e-12), marks=pytest.mark.slow),
    pytest.param(LayerNormSpec(32, 5, 100, 1e-3), marks=pytest.mark.slow),
    pytest.param(LayerNormSpec(1, 24, 4096, 1e-300), marks=pytest.mark.slow),
]

CALIBRATED = {"i": -3, "gamma": -5, "beta": -4, "o": -3}


def full(spec, lengths, exponents=None, seed=1, name="rows"):
    """Job of random rows without masks."""
    rng = np.random.default_rng(seed)
    low, high = -(2 ** (spec.bits - 1)), 2 ** (spec.bits - 1)
    rows = [rng.integers(low, high, n) for n in lengths]
    gamma, beta = rng.integers(low, high, (2, max(lengths)))
    masks = [np.ones(n) for n in lengths]
    return jobs.make_job(spec, rows, masks, gamma, beta, exponents or CALIBRATED, name)


def edges(spec):
    """Rows that are constant, nearly so, one-hot, masked, extreme, of one element; saturation."""
    low, high, n = -(2 ** (spec.bits - 1)), 2 ** (spec.bits - 1) - 1, spec.max_row
    rng = np.random.default_rng(n)
    one_hot = np.where(np.arange(n) == n // 2, high, low)
    rows = [np.full(n, low), np.full(n, high), one_hot, one_hot, -one_hot - 1, [low], [high], [0],
            np.where(np.arange(n) == 0, 1, 0), np.where(np.arange(n) % 2, low, high),
            np.arange(n) % high]
    masks = [np.ones(len(row)) for row in rows]
    masks[3], masks[4], masks[6] = np.arange(n) < (n + 1) // 2, np.zeros(n), [0]
    drawn = []
    for gamma, exponents in (
        (np.full(n, low), {"i": 2 - spec.bits, "gamma": 0, "beta": 0, "o": 0}),
        (np.full(n, high), {"i": -128, "gamma": -9, "beta": 4, "o": -40}),
        (rng.integers(low, high, n), {"i": 127, "gamma": -5, "beta": -14, "o": -3}),
        (rng.integers(low, high, n), {"i": 0, "gamma": 127, "beta": -128, "o": -128}),
        (rng.integers(low, high, n), {"i": -2, "gamma": -128, "beta": 127, "o": 127}),
    ):
        beta = rng.integers(low, high + 1, n)
        name = f"edges, exponents {exponents}"
        drawn.append(jobs.make_job(spec, rows, masks, gamma, beta, exponents, name))
    return drawn


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_exact_and_on_time(spec, simulator):
    rng = np.random.default_rng(spec.bits)
    drawn = [jobs.random_job(spec, rng) for _ in range(5)]
    alone = full(spec, [spec.max_row])
    loading = cost.load_cycles(spec, spec.max_row)
    assert alone.cycles == loading + cost.cycles(spec, spec.max_row)
    check_unit(LayerNorm, spec, [alone, *edges(spec), *drawn], simulator)


def test_every_length_takes_its_cycles(simulator):
    spec = LayerNormSpec(4, 6, 20, 1e-5)
    single = [full(spec, [n], name=f"{n} elements") for n in range(1, 21)]
    assert [job.cycles for job in single] == [
        -(-n // 4) + cost.cycles(spec, n) for n in range(1, 21)]
    check_unit(LayerNorm, spec, single, simulator, [])


def test_rows_follow_without_a_gap(simulator):
    spec = LayerNormSpec(4, 8, 64, 1e-5)
    short = [1] * 80
    drawn = [
        full(spec, [64] * 6, name="longest rows"),
        full(spec, short, name="rows of one beat"),
        full(spec, [64, *short, 64, *short, 64, 64], name="short after long"),
        full(spec, [1, 64, 8, 8, 64, 33, 2, 5, 64], name="mixed"),
    ]
    assert drawn[0].cycles == 16 + cost.cycles(spec, 64) + 5 * 16
    assert drawn[1].cycles == 1 + cost.cycles(spec, 1) + 79
    check_unit(LayerNorm, spec, drawn, simulator)


def test_every_pair_of_four_bits(simulator):
    spec = LayerNormSpec(2, 4, 2, 0.01)
    rows = [[a, b] for a in range(-8, 8) for b in range(-8, 8)]
    drawn = []
    for i_exponent in range(-6, 5):
        for gamma, beta, o_exponent in (([7, -8], [0, 5], -3), ([3, 1], [-8, 7], -6)):
            exponents = {"i": i_exponent, "gamma": -3, "beta": -4, "o": o_exponent}
            name = f"pairs, exponents {exponents}"
            masks = [[1, 1]] * len(rows)
            drawn.append(jobs.make_job(spec, rows, masks, gamma, beta, exponents, name))
    check_unit(LayerNorm, spec, drawn, simulator, [])


def test_every_shift_of_both_terms(simulator):
    # From where all saturates to where nothing is left but the sticky bit.
    spec = LayerNormSpec(2, 5, 4, 1e-12)
    rows = [[a, b, 0, 3] for a in (-16, -3, 0, 1, 15) for b in (-16, 0, 15)]
    masks = [[1] * 4] * len(rows)
    drawn = [
        jobs.make_job(spec, rows, masks, [1, -1, 15, -16], [1, -16, 15, 8],
                      {"i": 0, "gamma": 0, "beta": beta, "o": shift}, f"shifts {shift} {beta}")
        for shift in range(-24, 26) for beta in (shift, -shift)
    ]
    check_unit(LayerNorm, spec, drawn, simulator, [])


def test_all_segments_of_the_table(simulator):
    # n·Σx² − (Σx)² of rows of two is the square of their difference: all mantissas from 1 to 4.
    spec = LayerNormSpec(2, 12, 2, 1e-12)
    rows = [[-(1024 + value // 2), 1024 + value - value // 2] for value in range(0, 2048, 3)]
    job = jobs.make_job(spec, rows, [[1, 1]] * len(rows), [2047, 2047], [0, 0],
                        {"i": 0, "gamma": 0, "beta": 0, "o": 0}, "differences")
    check_unit(LayerNorm, spec, [job], simulator, [])
    # Under a large ε they are those of the square's sum with it.
    spec = LayerNormSpec(2, 12, 2, 0.3)
    job = jobs.make_job(spec, [[0, value] for value in range(1, 2048, 3)], [[1, 1]] * 683,
                        [2047, -2047], [0, 0], {"i": -9, "gamma": 0, "beta": 0, "o": 0}, "sums")
    check_unit(LayerNorm, spec, [job], simulator, [])


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck),
          derandomize=True)
@given(data=st.data())
def test_any_rows_under_any_exponents(simulator, data):
    spec = LayerNormSpec(2, 7, 12, 1e-4)
    number = st.integers(-64, 63)
    drawn = []
    for index in range(12):
        rows = data.draw(st.lists(st.lists(number, min_size=1, max_size=12), min_size=1,
                                  max_size=6))
        masks = [data.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row)))
                 for row in rows]
        gamma, beta = (data.draw(st.lists(number, min_size=12, max_size=12)) for _ in range(2))
        exponents = {key: data.draw(st.one_of(st.integers(-9, 4), st.integers(-128, 127)))
                     for key in jobs.EXPONENTS}
        drawn.append(jobs.make_job(spec, rows, masks, gamma, beta, exponents, f"drawn {index}"))
    check_unit(LayerNorm, spec, drawn, simulator)


def random_specs(count):
    """Specs of 4 to 24 bits, rows of 1 to 4,096, 1 to 32 elements a beat."""
    rng = np.random.default_rng(7)
    for _ in range(count):
        yield LayerNormSpec(
            2 ** int(rng.integers(0, 6)), int(rng.integers(4, 25)),
            int(2 ** rng.uniform(0, 12)), float(10 ** rng.uniform(-13, -0.1)))


@pytest.mark.parametrize(
    "index", [k if k in (3, 13) else pytest.param(k, marks=pytest.mark.slow) for k in range(40)])
def test_random_specs_and_data(index, simulator):
    """Of 2 and 40 specs five jobs each: 10 cases here, 200 with the long suite."""
    spec = list(random_specs(40))[index]
    rng = np.random.default_rng(index)
    check_unit(LayerNorm, spec, [jobs.random_job(spec, rng) for _ in range(5)], simulator, [index])


def play(spec, job, ready, cycles, check=None):
    """Run a job in Amaranth's simulator; `ready` says in which cycles the sink takes a beat."""
    sent, wanted = jobs.stimulus(spec, job), jobs.expected(spec, job)["o"]
    dut, received, taken = LayerNorm(spec), [], {"i": 0, "weights": 0}

    async def testbench(ctx):
        for name, value in jobs.signals(spec, job).items():
            ctx.set(getattr(dut, name), value)
        for cycle in range(cycles):
            for name, beats in sent.items():
                port = getattr(dut, name)
                ctx.set(port.valid, taken[name] < len(beats))
                if taken[name] < len(beats):
                    ctx.set(port.payload, beats[taken[name]])
            ctx.set(dut.o.ready, ready(cycle))
            for name in sent:
                port = getattr(dut, name)
                taken[name] += ctx.get(port.valid & port.ready)
            if ctx.get(dut.o.valid & dut.o.ready):
                out = ctx.get(dut.o.payload)
                received.append({"value": list(out.value), "last": out.last})
            if check:
                check(cycle, taken)
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert received == wanted


def test_nothing_is_lost_while_the_sink_stands_still():
    """Fill every queue with rows of one beat, the most descriptors there can be, then drain."""
    spec = LayerNormSpec(1, 4, 6, 1e-3)
    job = full(spec, [1, 1, 2, 1] * 40)

    def stop(cycle, taken):
        if cycle == 299:
            assert taken["i"] == 6 + 18 + 15

    # Long stops, each after room for a few more rows was made.
    play(spec, job, lambda cycle: cycle >= 300 and (cycle > 700 or cycle % 60 < 3),
         1000, stop)


def test_weights_are_loaded_between_rows_alone():
    spec = LayerNormSpec(2, 8, 8, 1e-5)
    dut = LayerNorm(spec)
    rng = np.random.default_rng(3)
    rows = [rng.integers(-128, 128, 8) for _ in range(6)]
    values = rng.integers(-128, 128, (2, 2, 8))
    parts = [jobs.make_job(spec, rows, [np.ones(8)] * 6, *pair, CALIBRATED, "part")
             for pair in values]
    loads = [beat for part in parts for beat in jobs.stimulus(spec, part)["weights"]]
    beats = jobs.stimulus(spec, parts[0])["i"]
    wanted = [jobs.expected(spec, part)["o"] for part in parts]
    received, events = [], []

    async def testbench(ctx):
        for name, value in jobs.signals(spec, parts[0]).items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.o.ready, 1)
        sent = loaded = 0
        for cycle in range(400):
            # The second load is offered while rows go in; its last two beats come late.
            offered = loaded < 4 or (cycle > 12 and (loaded < 6 or cycle > 150))
            ctx.set(dut.weights.valid, offered and loaded < 8)
            ctx.set(dut.weights.payload, loads[min(loaded, 7)])
            # Six rows, then six more as soon as the second load has begun.
            ctx.set(dut.i.valid, sent < 24 or (loaded > 4 and sent < 48))
            ctx.set(dut.i.payload, beats[sent % 24])
            if ctx.get(dut.weights.valid & dut.weights.ready):
                loaded += 1
                events.append("load")
            if ctx.get(dut.i.valid & dut.i.ready):
                sent += 1
                events.append("row")
            if ctx.get(dut.o.valid & dut.o.ready):
                out = ctx.get(dut.o.payload)
                received.append({"value": list(out.value), "last": out.last})
                events.append("out")
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
    assert received == wanted[0] + wanted[1]
    # No row before the load is complete, no load before the last result.
    first = events.index("row")
    assert events[:first] == ["load"] * 4
    again = events.index("load", first)
    assert events[first:again].count("out") == 24
    assert events[again:again + 4] == ["load"] * 4


def test_a_row_taken_with_a_load_gets_the_new_weights():
    spec = LayerNormSpec(1, 8, 2, 1e-5)
    dut = LayerNorm(spec)
    old, new = [[3, 4], [5, 6]], [[70, -80], [9, -10]]
    # A row of one element is β.
    exponents = {"i": 0, "gamma": 0, "beta": 0, "o": 0}
    job = jobs.make_job(spec, [[5]], [[1]], *new, exponents, "new")
    received = []

    async def testbench(ctx):
        for name, value in jobs.signals(spec, job).items():
            ctx.set(getattr(dut, name), value)
        ctx.set(dut.o.ready, 1)

        async def step(weights=None, beat=None):
            ctx.set(dut.weights.valid, weights is not None)
            ctx.set(dut.i.valid, beat is not None)
            if weights is not None:
                ctx.set(dut.weights.payload, weights)
                assert ctx.get(dut.weights.ready)
            if beat is not None:
                ctx.set(dut.i.payload, beat)
                assert ctx.get(dut.i.ready)
            if ctx.get(dut.o.valid):
                received.append(ctx.get(dut.o.payload.value[0]))
            await ctx.tick()

        for at in range(2):
            await step({"gamma": [old[0][at]], "beta": [old[1][at]], "last": at})
        only = {"value": [5], "valid_mask": 1, "last": 1}
        sent = jobs.stimulus(spec, job)["weights"]
        await step(sent[0], only)
        for _ in range(60):
            await step()
            assert not ctx.get(dut.i.ready)
        assert not received
        await step(sent[1])
        for _ in range(60):
            await step()
        assert received == [9]

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize(
    "constant", [r"root\[6\] = 35'h(\w+)",
                 pytest.param(r"root\[15\] = 35'h(\w+)", marks=pytest.mark.slow),
                 pytest.param(r"root\[0\] = 35'h(\w+)", marks=pytest.mark.slow)])
def test_one_constant_changed_in_the_verilog_is_found(constant, simulator):
    spec = LayerNormSpec(2, 8, 16, 1e-5)
    module = unit_module(LayerNorm(spec), "layer_norm")
    old = re.search(constant, module.verilog)
    # Bit 7 of c0, the lowest field of a table's entry.
    new = old[0].replace(old[1], format(int(old[1], 16) ^ 128, "x"))
    changed = replace(module, verilog=module.verilog.replace(old[0], new))
    rows = [[-(value // 2), value - value // 2] for value in range(1, 255)]
    job = jobs.make_job(spec, rows, [[1, 1]] * len(rows), [127, 127], [0, 0],
                        {"i": 0, "gamma": 0, "beta": 0, "o": 0}, "rows")
    assert run_jobs(module, spec, [job], simulator)[0].ok
    assert not run_jobs(changed, spec, [job], simulator)[0].ok


def test_every_parameter_changes_the_verilog():
    base = LayerNormSpec(2, 6, 16, 1e-5)
    plain = unit_module(LayerNorm(base), "layer_norm").verilog
    for change in ({"parallel": 1}, {"bits": 7}, {"max_row": 17}, {"epsilon": 1.1e-5}):
        assert unit_module(LayerNorm(replace(base, **change)), "layer_norm").verilog != plain


def test_four_lanes_share_a_register_of_what_all_lanes_multiply_by():
    verilog = unit_module(LayerNorm(LayerNormSpec(8, 4, 8, 1e-5)), "layer_norm").verilog
    for name in ("root", "length"):
        assert len(set(re.findall(rf"reg \[\d+:0\] (normalise_\d+_{name}_\d+)\b", verilog))) == 2
