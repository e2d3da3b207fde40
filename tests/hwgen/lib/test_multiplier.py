"""Booth's rows in a bit heap against Python's integers, in Amaranth's simulator."""

from itertools import product

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.multiplier import add_product, add_recoded, negated, recode


def values(shape):
    low = -(1 << (shape.width - 1)) if shape.signed else 0
    return range(low, low + (1 << shape.width))


def check(shapes, width, cases, *, shift=0, constant=0, cut=None):
    """Simulate the sum of products of pairs of `shapes`; `cases` are their factors in order."""
    m = Module()
    factors = [Signal(shape, name=f"factor_{index}") for index, shape in enumerate(shapes)]
    heap = BitHeap(m, width, "heap")
    for left, right in zip(factors[::2], factors[1::2], strict=True):
        add_product(heap, left, right, shift)
    heap.add(constant)
    if cut is not None:
        heap = heap.from_register(heap.named(heap.compress(cut).bits(), "register"))
    left, right = heap.rows()
    total = Signal(width)
    m.d.comb += total.eq(left + right)

    async def testbench(ctx):
        for case in cases:
            ctx.set(Cat(*factors), sum((value % (1 << shape.width)) << start for value, shape, start
                                       in zip(case, shapes, starts, strict=True)))
            wanted = (sum(a * b for a, b in zip(case[::2], case[1::2], strict=True)) << shift)
            assert ctx.get(total) == (wanted + constant) % (1 << width), case

    starts = np.cumsum([0, *(shape.width for shape in shapes)])[:-1].tolist()
    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("left", [signed(1), signed(3), signed(4), unsigned(1), unsigned(4)],
                         ids=str)
@pytest.mark.parametrize("right", [signed(1), signed(4), signed(5), unsigned(2), unsigned(3)],
                         ids=str)
def test_every_product_of_narrow_factors(left, right):
    check([left, right], left.width + right.width + 1, product(values(left), values(right)))


def drawn(shapes, rng, count):
    """Random factors, a third of them at either end of their range."""
    for _ in range(count):
        ends = [(values(shape)[0], values(shape)[-1]) for shape in shapes]
        yield [int(rng.choice((rng.integers(low, high, endpoint=True), low, high)))
               for low, high in ends]


@pytest.mark.parametrize("shapes", [
    [signed(20), signed(20)] * 4, [signed(24), signed(23)], [unsigned(20), signed(26)],
    [unsigned(19), unsigned(24), signed(9), unsigned(13), signed(17), signed(2)]], ids=str)
@pytest.mark.parametrize("cut", [0, 2, 9])
def test_sums_of_wide_products(shapes, cut):
    rng = np.random.default_rng(cut)
    check(shapes, 52, drawn(shapes, rng, 60), constant=-12345, cut=cut)


def test_products_are_shifted_and_wrap():
    shapes = [signed(8), signed(8)] * 3
    for width in (3, 11, 18):
        check(shapes, width, drawn(shapes, np.random.default_rng(width), 100), shift=2, cut=1)


@pytest.mark.parametrize("shapes", [(signed(6), signed(5)), (unsigned(5), unsigned(4)),
                                    (signed(3), unsigned(5)), (signed(1), signed(1))], ids=str)
def test_registered_digits_add_and_negated_ones_subtract(shapes):
    width = sum(shape.width for shape in shapes) + 3
    m = Module()
    left, right = (Signal(shape, name=name) for shape, name in zip(shapes, "ab", strict=True))
    digits = recode(m, right, "right")
    register = Signal.like(digits)
    m.d.sync += register.eq(digits)
    added, subtracted = BitHeap(m, width, "added"), BitHeap(m, width, "subtracted")
    add_recoded(added, left, register, 2)
    add_recoded(subtracted, left, negated(m, digits, "right"))
    sums = [Signal(width, name=heap.name) for heap in (added, subtracted)]
    m.d.comb += [total.eq(heap.total()) for total, heap in zip(sums, (added, subtracted),
                                                               strict=True)]

    async def testbench(ctx):
        for a, b in product(*map(values, shapes)):
            ctx.set(left, a)
            ctx.set(right, b)
            await ctx.tick()
            assert ctx.get(sums[0]) == 4 * a * b % (1 << width)
            assert ctx.get(sums[1]) == -a * b % (1 << width)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()
