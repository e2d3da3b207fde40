"""Carry-save sums against Python's integers, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.sim import Simulator

from hwgen.lib import bit_heap
from hwgen.lib.bit_heap import BitHeap
from hwgen.units.stages import DADDA, carry_save_levels


def heap_of(rows, width=8):
    """Return a heap of `rows` words, and the words as one signal."""
    m = Module()
    words = Signal(rows * width)
    heap = BitHeap(m, width, "heap")
    for row in range(rows):
        heap.add(words[row * width:(row + 1) * width])
    return m, heap, words


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 13, 14, 70])
@pytest.mark.parametrize("longest", [3, 64])
def test_sum_of_words(rows, longest, monkeypatch):
    monkeypatch.setattr(bit_heap, "LONGEST_VECTOR", longest)
    m, heap, words = heap_of(rows)
    total = Signal(8)
    m.d.comb += total.eq(heap.total())
    rng = np.random.default_rng(rows)

    async def testbench(ctx):
        for _ in range(20):
            numbers = rng.integers(0, 256, size=rows).tolist()
            ctx.set(words, sum(number << (8 * row) for row, number in enumerate(numbers)))
            assert ctx.get(total) == sum(numbers) % 256

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize("rows", [*range(3, 30), *DADDA[8:12], *(n + 1 for n in DADDA[8:12])])
def test_levels_are_the_fewest(rows):
    _, heap, _ = heap_of(rows, 40)
    levels = carry_save_levels(rows)
    assert heap.compress(levels - 1).height == 3
    assert heap.compress(1).height == 2


def test_a_full_adder_removes_a_bit_and_a_half_adder_none():
    _, heap, _ = heap_of(3, 4)
    assert len(heap.bits()) == 12
    # Four columns of three: four adders, and the last one's carry is beyond the width.
    assert len(heap.compress(1).bits()) == 7
    # Columns of four get to three by one full adder each, carries included: no half adder.
    _, heap, _ = heap_of(4, 4)
    assert len(heap.compress(1).bits()) == 4 * 4 - 4 - 1


def test_two_rows_stay_as_they_are():
    _, heap, _ = heap_of(2)
    assert len(heap.compress(5).bits()) == 16


def test_constants_signs_and_shifts():
    m = Module()
    a, b, c = Signal(signed(5)), Signal(unsigned(4)), Signal(signed(1))
    heap = BitHeap(m, 12, "heap")
    heap.add(a, 3)
    heap.add(b)
    heap.add(c, 1)
    heap.add(-77)
    heap.add(5, 4)
    heap.subtract(a, 2)
    heap.subtract(b, 5)
    heap.add_bits(b[:2], 11)  # the second is beyond the sum
    left, right = heap.from_register(heap.named(heap.compress(1).bits(), "register")).rows()
    total = Signal(12)
    m.d.comb += total.eq(left + right)

    async def testbench(ctx):
        for number in range(1 << 10):
            ctx.set(Cat(a, b, c), number)
            wanted = ((ctx.get(a) << 3) + ctx.get(b) + (ctx.get(c) << 1) - 77 + 80
                      - (ctx.get(a) << 2) - (ctx.get(b) << 5)
                      + ((ctx.get(b) & 1) << 11))
            assert ctx.get(total) == wanted % 4096

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()
