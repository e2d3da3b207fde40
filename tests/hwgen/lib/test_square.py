"""Squares in a bit heap against Python's integers, in Amaranth's simulator."""

import pytest
from amaranth.hdl import signed, unsigned
from amaranth.lib.wiring import In, Out
from cases import Case, check

from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.square import add_square, square_in_halves


@pytest.mark.parametrize("width", [0, -3])
@pytest.mark.parametrize("shape", [*map(unsigned, (1, 2, 3, 10)), *map(signed, (1, 2, 3, 4, 9))],
                         ids=str)
def test_squares(shape, width):
    width = max(2 * shape.width + width, 1)

    def make(m, flow, ports):
        heap = BitHeap(m, width, "square")
        add_square(heap, ports.a)
        return heap.total()

    dut = Case(make, a=In(shape), o=Out(width))
    low = -(1 << (shape.width - 1)) if shape.signed else 0
    cases = [({"a": a}, a * a % (1 << width)) for a in range(low, low + (1 << shape.width))]
    check(dut, cases, 0)


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_squares_in_halves(bits):
    half = bits // 2

    def make(m, flow, ports):
        parts = square_in_halves(m, ports.a, "a")
        return (parts["high"] << (2 * half)) + (parts["cross"] << (half + 1)) + parts["low"]

    dut = Case(make, a=In(signed(bits)), o=Out(signed(2 * bits)))
    check(dut, [({"a": a}, a * a) for a in range(-(1 << (bits - 1)), 1 << (bits - 1))], 0)
