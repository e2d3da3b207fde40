"""Carry-save sums, polynomials in them, and saturating windows, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Const, Module, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hwgen.lib import carry_save, parabola, window
from hwgen.lib.flow import Flow
from hwgen.units.layer_norm.table import reciprocal_root


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
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return [low, high, -1, 0, 1, *rng.integers(low, high + 1, count).tolist()]


@pytest.mark.parametrize(("left", "right"), [(8, 7), (5, 9), (20, 33), (4, 4), (3, 12), (2, 2)])
@pytest.mark.parametrize("constant", [0, 37, -5])
def test_products_of_signed_values(left, right, constant):
    width = left + right + 7

    def make(m, flow, ports):
        s = flow.stage(digits=carry_save.recode(m, ports.b, "b"))
        rows = carry_save.partial_products(m, ports.a, s.digits, width, "p", constant)
        pair = carry_save.compress(m, rows, width, 2, "t")
        sums, _ = carry_save.add(flow, pair[:1], pair[1:])
        return sums[0].as_signed()

    rng = np.random.default_rng(left)
    pairs = list(zip(numbers(left, rng), numbers(right, rng), strict=True))
    pairs += [(-(1 << (left - 1)), -(1 << (right - 1))), (-1, -(1 << (right - 1)))]
    dut = Case(make, a=In(signed(left)), b=In(signed(right)), o=Out(signed(width)))
    check(dut, [({"a": a, "b": b}, a * b + constant) for a, b in pairs], 3)


def test_negated_digits_subtract():
    def make(m, flow, ports):
        digits = carry_save.negate(carry_save.recode(m, ports.b, "b"))
        rows = carry_save.partial_products(m, ports.a, digits, 12, "p")
        left, right = carry_save.compress(m, rows, 12, 2, "t")
        return (left + right)[:12].as_signed()

    dut = Case(make, a=In(signed(6)), b=In(signed(5)), o=Out(signed(12)))
    cases = [({"a": a, "b": b}, -a * b) for a in range(-32, 32, 3) for b in range(-16, 16)]
    check(dut, cases, 0)


@pytest.mark.parametrize("shape", [signed(5), unsigned(5)])
@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_sums_of_many_values(shape, count):
    def make(m, flow, ports):
        values = [ports.a[5 * k:5 * k + 5] for k in range(count)]
        if shape.signed:
            values = [value.as_signed() for value in values]
        rows = carry_save.sum_rows(values, 10)
        left, right = carry_save.compress(m, rows, 10, 2, "t")
        total = (left + right)[:10]
        return total.as_signed() if shape.signed else total

    rng = np.random.default_rng(count)
    cases = []
    for _ in range(60):
        drawn = rng.choice([0, 15, 16, 31, int(rng.integers(32))], count).tolist()
        value = sum(int(one) << (5 * k) for k, one in enumerate(drawn))
        cases.append(({"a": value}, sum(one - 32 * (one > 15) * shape.signed for one in drawn)))
    check(Case(make, a=In(5 * count), o=Out(signed(10) if shape.signed else 10)), cases, 0)


@pytest.mark.parametrize("bits", [1, 2, 3, 10])
def test_squares(bits):
    def make(m, flow, ports):
        rows = carry_save.square(m, ports.a, "a")
        left, right = carry_save.compress(m, rows, 2 * bits, 2, "t")
        return (left + right)[:2 * bits]

    dut = Case(make, a=In(bits), o=Out(2 * bits))
    check(dut, [({"a": value}, value * value) for value in range(1 << bits)], 0)


@pytest.mark.parametrize("guard", [0, 2])
@pytest.mark.parametrize("fraction", [9, 13, 25])
def test_parabola_equals_the_table_rounded(fraction, guard):
    table = reciprocal_root(fraction)

    def make(m, flow, ports):
        value = parabola.parabola(m, flow, table, ports.a, "table", guard)
        assert flow.latency == parabola.STAGES
        return value

    last = (1 << (fraction + 1)) - 1
    arguments = [0, last, *np.random.default_rng(1).integers(0, last, 150).tolist()]
    wanted = (table.evaluate(np.asarray(arguments)) + ((1 << guard) >> 1)) >> guard
    dut = Case(make, a=In(fraction + 1), o=Out(fraction + 3 - guard))
    check(dut, [({"a": a}, w) for a, w in zip(arguments, wanted.tolist(), strict=True)], 7)


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_the_leading_digit(bits):
    size = (bits - 1).bit_length()
    dut = Case(lambda m, flow, ports: window.leading(m, ports.a, "lead"), a=In(bits), o=Out(size))
    cases = [({"a": value}, max(value.bit_length() - 1, 0)) for value in range(1 << bits)]
    check(dut, cases, 0)


def test_windows_saturate():
    def make(m, flow, ports):
        near, far = window.shift_bytes(m, ports.a, ports.shift, 6, "w")
        s = flow.stage(near=near, far=far)
        return window.shift_bits(m, s.near, s.far, ports.shift, 6, "w").as_signed()

    rng = np.random.default_rng(2)
    cases = []
    for shift in range(32):
        for value in numbers(20, rng, 12) + [sign << min(shift + 5, 18) for sign in (1, -1)]:
            wanted = min(max(value >> shift, -32), 31)
            cases.append(({"a": value, "shift": shift}, wanted))
    check(Case(make, a=In(signed(20)), shift=In(5), o=Out(signed(6))), cases, 1)


def test_what_falls_out_is_seen():
    dut = Case(lambda m, flow, ports: Cat(window.fallen(ports.a, ports.shift, 1),
                                          window.fallen(ports.a, ports.shift, 3)),
               a=In(12), shift=In(2), o=Out(2))
    cases = [
        ({"a": a, "shift": k}, (a % (1 << k) > 0) + 2 * (a % (1 << 3 * k) > 0))
        for a in (0, 1, 4, 8, 64, 512, 4095) for k in range(4)
    ]
    check(dut, cases, 0)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_squares_in_halves(bits):
    half = bits // 2

    def make(m, flow, ports):
        parts = carry_save.square_in_halves(m, ports.a, "a")
        return (parts["high"] << (2 * half)) + (parts["cross"] << (half + 1)) + parts["low"]

    dut = Case(make, a=In(signed(bits)), o=Out(signed(2 * bits)))
    check(dut, [({"a": a}, a * a) for a in range(-(1 << (bits - 1)), 1 << (bits - 1))], 0)


def test_halves_round_to_even_and_saturate():
    dut = Case(lambda m, flow, ports: window.round_half(m, ports.a, ports.rest, 2, 4, "r"),
               a=In(signed(9)), rest=In(1), o=Out(signed(4)))
    cases = []
    for quarters in range(-200, 200):
        for rest in (0, 1):
            # Python rounds halves to even, too.
            value = min(max(round(quarters / 4 + rest / 100), -8), 7)
            cases.append(({"a": quarters + 2, "rest": rest}, value))
    check(dut, cases, 0)
