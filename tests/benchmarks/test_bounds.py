"""The lower bounds of benchmarks/units.py compute what they stand for, without streams."""

import sys
from pathlib import Path

import numpy as np
import pytest
from amaranth.hdl import Const, Module, Signal
from pipeline import got, put, run

from hwgen.units.activation.table import LARGEST_GAIN, LIMIT_LOG2
from hwgen.units.dynatran.golden import prune
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.fifo.spec import FifoSpec
from hwgen.units.mac_lane.golden import lane
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.post_sparsity.golden import compress
from hwgen.units.post_sparsity.spec import PostSparsitySpec
from hwgen.units.pre_sparsity.spec import PreSparsitySpec
from hwgen.units.residual_add.golden import golden as residual_sum
from hwgen.units.residual_add.spec import ResidualAddSpec
from hwgen.units.stochastic_rounding.golden import golden as rounded
from hwgen.units.stochastic_rounding.noise import states
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from constructions.elementwise import (  # noqa: E402
    DynatranBound,
    FifoBound,
    PostSparsityBound,
    PreSparsityBound,
    ResidualAddBound,
    StochasticRoundingBound,
)
from constructions.lane import LaneBound  # noqa: E402
from constructions.registers import Registers  # noqa: E402


def test_only_cuts_are_registers():
    m, value = Module(), Signal(4)
    pipe = Registers(m, "pipe", cuts=(1, 2))
    s = pipe.stage(value=value, constant=Const(5, 4))
    assert isinstance(s.constant, Const)
    s = pipe.stage(values=[s.value, value + 1])
    s = pipe.stage(value=s.values[0] + s.values[1])
    assert pipe.latency == 2
    numbers = [3, 1, 7]
    given = run(m, numbers, lambda ctx, number: ctx.set(value, number),
                lambda ctx: ctx.get(s.value), pipe.latency)
    assert given == [2 * number + 1 for number in numbers]


@pytest.mark.parametrize("further", [{}, {"with_initial": True, "with_sum": True}])
def test_lane(further):
    spec = MacLaneSpec(2, 8, 20, "gelu")
    rng = np.random.default_rng(1)
    component = LaneBound(spec, **further)
    shift, i_exponent, o_exponent = 6, -4, -5
    beats, wanted = [], []
    for _ in range(60):
        count = int(rng.integers(1, 4))
        left, right = rng.integers(-128, 128, (2, count, spec.macs))
        initial = int(rng.integers(-9000, 9000)) if further else 0
        value, total = lane(left.ravel(), right.ravel(), initial, shift, spec, activate=1,
                            i_exponent=i_exponent, o_exponent=o_exponent)
        for k in range(count):
            beats.append((left[k], right[k], k == 0, initial if k == 0 else 77))
            wanted.append((int(value), int(total)) if k == count - 1 else None)

    def drive(ctx, beat):
        put(ctx, component.left, beat[0])
        put(ctx, component.right, beat[1])
        ctx.set(component.first, beat[2])
        ctx.set(component.shift, shift)
        ctx.set(component.fall, LIMIT_LOG2 - i_exponent)
        ctx.set(component.rise, o_exponent - i_exponent + LARGEST_GAIN)
        if further:
            ctx.set(component.initial, beat[3])

    def read(ctx):
        return (ctx.get(component.value),
                ctx.get(component.accumulator) if further else None)

    for given, value in zip(run(component, beats, drive, read), wanted, strict=True):
        if value:
            assert given == (value if further else (value[0], None))


def test_lane_with_noise():
    spec = MacLaneSpec(1, 8, 20, "gelu", 8)
    component = LaneBound(spec)
    rng = np.random.default_rng(3)
    beats, shift, seen = rng.integers(-128, 128, (200, 2)), 6, []

    def drive(ctx, beat):
        seen.append(ctx.get(component.noise))
        ctx.set(component.load, len(seen) == 1)
        ctx.set(component.seed, 0x35)
        put(ctx, component.left, beat[:1])
        put(ctx, component.right, beat[1:])
        ctx.set(component.first, 1)
        ctx.set(component.shift, shift)
        # Exponents at which gelu of what is positive is itself.
        ctx.set(component.fall, LIMIT_LOG2 - 3)
        ctx.set(component.rise, LARGEST_GAIN)

    given = run(component, list(beats), drive, lambda ctx: ctx.get(component.value))
    # A sum is complete two cycles after its operands.
    noise = np.array(seen)[2:]
    sums = beats.prod(axis=1)
    rounded = np.clip((sums + (noise[:200] >> 2)) >> shift, -128, 127)
    assert len(set(noise.tolist())) > 100
    assert (np.array(given) == np.maximum(rounded, 0)).all()


def test_dynatran():
    spec = DynatranSpec(3, 5)
    component = DynatranBound(spec)
    rng = np.random.default_rng(2)
    # Every value meets every threshold, those beyond the largest magnitude among them.
    beats = [(np.array([value, -value - 1, value]), threshold, int(rng.integers(8)))
             for value in range(16) for threshold in range(32)]

    def drive(ctx, beat):
        put(ctx, component.value, beat[0])
        ctx.set(component.threshold, beat[1])
        ctx.set(component.valid_mask, beat[2])

    given = run(component, beats, drive, lambda ctx: (
        got(ctx, component.pruned), ctx.get(component.zero_mask)))
    for (values, mask), (value, threshold, valid) in zip(given, beats, strict=True):
        pruned, zero_mask = prune(value, threshold, np.array([valid >> k & 1 for k in range(3)]))
        assert values == pruned.tolist()
        assert mask == sum(int(bit) << k for k, bit in enumerate(zero_mask))


def test_post_sparsity():
    spec = PostSparsitySpec(6, 4, 8)
    component = PostSparsityBound(spec)
    values = [0, 5, 0, -32, 31, 0, -1, 0]
    place = np.cumsum([0, *(value != 0 for value in values)]).tolist()

    def drive(ctx, k):
        ctx.set(component.value, values[k])
        ctx.set(component.place, place[k])
        ctx.set(component.mask_place, k)

    word, mask = run(component, list(range(8)), drive, lambda ctx: (
        got(ctx, component.word), ctx.get(component.zero_mask)))[-1]
    packed, zero_mask = compress(np.array(values))
    assert word == packed.tolist()
    assert mask == sum(int(bit) << k for k, bit in enumerate(zero_mask))


def test_fifo():
    component = FifoBound(FifoSpec(7, 5))
    entries = list(range(1, 40, 3))
    given = run(component, entries, lambda ctx, entry: ctx.set(component.i, entry),
                lambda ctx: ctx.get(component.o))
    assert given == entries
    assert component.latency == 5


@pytest.mark.parametrize("cuts", [(), (0, 1)])
@pytest.mark.parametrize("shift", [0, 3, 9, 21])
def test_stochastic_rounding(shift, cuts):
    spec = StochasticRoundingSpec(22, 8, 8)
    component = StochasticRoundingBound(spec, cuts)
    rng = np.random.default_rng(shift)
    seed = 0x5A
    # Near the result's range, where rounding matters, and far beyond it.
    values = np.clip(rng.integers(-150 << shift, 150 << shift, 80), -(1 << 21), (1 << 21) - 1)
    noise = states(np.array(seed), 80, spec.noise_bits).tolist()
    seen = []

    def drive(ctx, k):
        seen.append(ctx.get(component.noise))
        ctx.set(component.load, k == -2)
        ctx.set(component.seed, seed)
        ctx.set(component.shift, shift)
        ctx.set(component.value, int(values[max(k, 0)]))

    # The first element's noise is a leap from the seed.
    given = run(component, list(range(-2, 80)), drive, lambda ctx: ctx.get(component.rounded))
    assert seen[2:82] == noise
    assert given[2:] == rounded(values[None], shift, seed, spec)[0].tolist()


@pytest.mark.parametrize("cuts", [(), (0, 1)])
def test_residual_add(cuts):
    spec = ResidualAddSpec(2, 6)
    component = ResidualAddBound(spec, cuts)
    rng = np.random.default_rng(3)
    beats = [(*rng.integers(-32, 32, (2, 2)), *map(int, rng.choice(14, 2)))
             for _ in range(1500)]
    # Ties of both signs, and what an addend that has fallen out does to them.
    beats += [(np.array([a, -a]), np.array([b, -b]), 1, 12) for a in (1, 3, 5, 31)
              for b in (0, 1, -1, 31)]

    def drive(ctx, beat):
        put(ctx, component.a, beat[0])
        put(ctx, component.b, beat[1])
        ctx.set(component.a_shift, beat[2])
        ctx.set(component.b_shift, beat[3])

    given = run(component, beats, drive, lambda ctx: got(ctx, component.o))
    for sums, (a, b, a_shift, b_shift) in zip(given, beats, strict=True):
        assert sums == residual_sum(a, -a_shift, b, -b_shift, 0, spec).tolist()


@pytest.mark.parametrize("spec", [PreSparsitySpec(4, 6, 16, 8), PreSparsitySpec(32, 4, 32, 32)])
def test_pre_sparsity(spec):
    component = PreSparsityBound(spec)
    rng = np.random.default_rng(4)
    stages, beats, wanted = component.MASK_STAGES, [], []
    for density in rng.random(20):
        left, right = (rng.integers(1, 8, spec.window) * (rng.random(spec.window) < density)
                       for _ in range(2))
        both = (left != 0) & (right != 0)
        row = int(rng.integers(spec.window // spec.macs))
        beats.append((left, right, row))
        part = slice(row * spec.macs, (row + 1) * spec.macs)
        wanted.append([np.pad(value[both][part], (0, spec.macs))[:spec.macs].tolist()
                       for value in (left, right)])

    def bits(value):
        return sum(int(one != 0) << k for k, one in enumerate(value))

    def drive(ctx, k):
        left, right, _ = beats[min(k, len(beats) - 1)]
        ctx.set(component.left_mask, bits(left))
        ctx.set(component.right_mask, bits(right))
        left, right, row = beats[max(min(k, len(beats) + stages - 1) - stages, 0)]
        put(ctx, component.left, left)
        put(ctx, component.right, right)
        ctx.set(component.row, row)

    given = run(component, list(range(len(beats) + stages)), drive, lambda ctx: [
        got(ctx, component.o_left), got(ctx, component.o_right)])
    assert given[stages:] == wanted
