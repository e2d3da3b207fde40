"""Multiplication by radix-4 Booth digits, as rows that a bit heap sums."""

from amaranth.hdl import Cat, Const, Value


def add_product(heap, left, right, shift=0):
    """Add left · right · 2**shift to a bit heap.

    `right` is written in digits of −2, −1, 0, 1, 2 (Booth, 1951; radix 4: MacSorley, "High-speed
    arithmetic in binary computers", Proceedings of the IRE 49, 1961), each of which makes one row:
    ⌈n / 2⌉ rows for n signed bits, one more where n is even and unsigned.

    Parameters
    ----------
    heap : hwgen.lib.bit_heap.BitHeap
    left, right : signed or unsigned values; the one with fewer bits is best at the right
    shift : weight of the product's last bit
    """
    left = heap.named(_signed_bits(left), "left")
    right = heap.named(_signed_bits(right), "right")
    digits = list(right)
    if len(digits) % 2:
        digits.append(digits[-1])
    below = Const(0, 1)
    for place in range(0, len(digits), 2):
        low, high = digits[place:place + 2]
        _add_row(heap, left, high, low, below, shift + place)
        below = high


def _signed_bits(value):
    """Bits of a value in two's complement."""
    value = Value.cast(value)
    return value.as_unsigned() if value.shape().signed else Cat(value, Const(0, 1))


def _add_row(heap, left, high, low, below, weight):
    """Add one digit's multiple of `left`: its ones' complement and a 1 where the digit is < 0."""
    digit = heap.named(Cat(low ^ below, (high & ~low & ~below) | (~high & low & below)), "digit")
    once, twice = digit[0], digit[1]
    flipped = heap.named(left ^ high.replicate(len(left)), "flipped")
    # One bit more than the factor for the doubled one; neither of the two for a digit of 0.
    row = ((Cat(flipped, flipped[-1]) & once.replicate(len(left) + 1))
           | (Cat(high, flipped) & twice.replicate(len(left) + 1)))
    heap.add(heap.named(row, "row")[1:].as_signed(), weight + 1)
    # The last bit and the 1 together are the factor's last bit and a carry.
    last = once & left[0]
    ends = heap.named(Cat(last, high & ~(low & below) & ~last), "ends")
    heap.add_bits(list(ends), weight)
