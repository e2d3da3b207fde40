"""Products whose rows are cut off before they are summed."""

from amaranth.hdl import Cat, Mux, Value

from hwgen.lib.multiplier import digit_parts, negated, recode


def add_truncated(heap, left, right, cut, subtract=False):
    """Add what `hwgen.units.truncated.truncated` computes to a bit heap.

    Parameters
    ----------
    heap : hwgen.lib.bit_heap.BitHeap
    left : unsigned value
    right : signed value
    cut : bits that each row loses
    subtract : whether the product's sign is changed
    """
    digits = recode(heap.m, Value.cast(right).as_signed(), f"{heap.name}_right")
    if subtract:
        digits = negated(heap.m, digits, f"{heap.name}_right")
    once, twice, negative = digit_parts(digits)
    for place in range(len(once)):
        lost = cut - 2 * place
        length = len(left) + 1 - lost
        single = left[max(lost, 0):] << max(-lost, 0)
        double = left[max(lost - 1, 0):] << max(1 - lost, 0)
        row = heap.named((Mux(once[place], single, 0) | Mux(twice[place], double, 0))[:length],
                         "row")
        flipped = heap.named(Mux(negative[place], ~row, row), "flipped")
        heap.add(Cat(flipped, negative[place]).as_signed())
