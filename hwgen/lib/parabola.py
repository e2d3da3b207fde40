"""Piecewise quadratic polynomials in carry-save form."""

from amaranth.lib import data
from amaranth.lib.memory import Memory

from hwgen.lib.arithmetic import add_in_halves
from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.multiplier import add_recoded, negated, recode

STAGES = 7
"""Table, product and sum (three stages), product and sum (three stages)."""


def parabola(m, flow, table, argument, name, guard=0):
    """Evaluate `table` (hwgen.units.quadratic.Quadratic) at an argument in `STAGES` stages.

    What `Quadratic.evaluate` computes, rounded to `guard` bits fewer, halves upwards. c − ⌊p⌋ of a
    product p is ⌈c − p⌉: a coefficient and the constant that rounds are rows of the product's sum.

    Returns
    -------
    The register of the value, fraction_bits + 1 − guard bits.
    """
    cut, fraction = table.offset_bits, table.fraction_bits
    shape = data.StructLayout({
        key: max(values).bit_length()
        for key, values in (("c0", table.c0), ("c1", table.c1), ("c2", table.c2))
    })
    memory = Memory(shape=shape, depth=len(table.c0), init=[
        {"c0": c0, "c1": c1, "c2": c2}
        for c0, c1, c2 in zip(table.c0, table.c1, table.c2, strict=True)
    ])
    m.submodules[name] = memory
    port = memory.read_port()
    m.d.comb += [port.en.eq(1), port.addr.eq(argument[cut:])]
    # Negative digits, for the products are subtracted.
    digits = negated(m, recode(m, argument[:cut], f"{name}_place"), f"{name}_place")

    def product(left, digits, coefficient, width, constant, label):
        heap = BitHeap(m, width, f"{name}_{label}")
        add_recoded(heap, left, digits)
        heap.add(coefficient, cut)
        heap.add(constant)
        return heap.rows()

    s = flow.stage(digits=digits)
    size = len(port.data.c1)
    rows = product(port.data.c2, s.digits, port.data.c1, size + cut, (1 << cut) - 1, "slope")
    s = flow.stage(rows=rows, c0=port.data.c0, digits=s.digits)
    (slope,), s = add_in_halves(flow, [s.rows], c0=s.c0, digits=s.digits)
    half = (1 << (cut + guard)) >> 1 if guard else 0
    rows = product(slope[cut:], s.digits, s.c0, fraction + 1 + cut, half + (1 << cut) - 1, "value")
    s = flow.stage(rows=rows)
    (value,), _ = add_in_halves(flow, [s.rows])
    return value[cut + guard:]
