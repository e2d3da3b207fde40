"""Squares, as rows that a bit heap sums: half as many bits as a product has."""

from amaranth.hdl import Cat, Const, Mux

from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.multiplier import add_product


def add_square(heap, value):
    """Add the square of a signed or unsigned value to a bit heap.

    A product of two different bits occurs twice in a square: once, and one place higher, here.
    With the sign bit s and the rest u, it is u² − s·u·2^n + s·4^(n − 1) for n bits.
    """
    signed, bits = value.shape().signed, len(value)
    value = value.as_unsigned()
    rest = value[:-1] if signed else value
    for k, bit in enumerate(rest):
        row = Cat(bit, Const(0, 1), heap.named(Mux(bit, rest[k + 1:], 0), f"row_{k}"))
        heap.add(row, 2 * k)
    if signed:
        heap.subtract(heap.named(Mux(value[-1], rest, 0), "sign_row"), bits)
        heap.add(value[-1], 2 * bits - 2)


def square_in_halves(m, value, name):
    """Parts of the square of a signed value, whose sums over many values need no carry.

    With value = u·2^half + v, v unsigned and half = ⌊bits/2⌋: "high" = u², "cross" = u·v (signed)
    and "low" = v², of which the square is high·4^half + cross·2^(half + 1) + low.

    Parameters
    ----------
    m : the module that gets the adders
    value : signed value of at least four bits
    name : prefix of signals
    """
    bits, half = len(value), len(value) // 2
    u, v = value[half:].as_signed(), value[:half]
    low = BitHeap(m, 2 * half, f"{name}_low")
    add_square(low, v)
    cross = BitHeap(m, bits, f"{name}_cross")
    add_product(cross, u, v)
    high = BitHeap(m, 2 * (bits - half) - 1, f"{name}_high")
    add_square(high, u)
    return {"low": low.total(), "cross": cross.total().as_signed(), "high": high.total()}
