"""Products whose rows are cut off before they are summed."""

from amaranth.hdl import Cat, Const


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
    bits = [Const(0, 1), *right, right[-1]]
    for digit in range(-(-len(right) // 2)):
        low, middle, high = bits[2 * digit:2 * digit + 3]
        one = heap.named(low ^ middle, "one")
        two = heap.named((low ^ high) & ~one, "two")
        negative = heap.named(~high if subtract else high, "negative")
        lost = cut - 2 * digit
        length = len(left) + 1 - lost
        once = left[max(lost, 0):] << max(-lost, 0)
        twice = left[max(lost - 1, 0):] << max(1 - lost, 0)
        row = (once & one.replicate(length)) | (twice & two.replicate(length))
        row = heap.named(row[:length] ^ negative.replicate(length), "row")
        heap.add(Cat(row, negative).as_signed())
