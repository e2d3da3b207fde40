"""Multiplication by radix-4 Booth digits, as rows that a bit heap sums."""

from amaranth.hdl import Cat, Const, Mux, Value

from hwgen.lib.arithmetic import named


def recode(m, factor, name):
    """Write a factor in digits of −2, −1, 0, 1, 2.

    Booth, "A signed binary multiplication technique", 1951; radix 4: MacSorley, "High-speed
    arithmetic in binary computers", Proceedings of the IRE 49, 1961.

    Parameters
    ----------
    m : the module that the recoder is added to
    factor : signed or unsigned value
    name : prefix of signals

    Returns
    -------
    One word, for `add_recoded`, as it is or from a register: three bits for each of the ⌈n / 2⌉
    digits of n signed bits, one digit more where n is even and unsigned.
    """
    bits = list(_signed_bits(factor))
    if len(bits) % 2:
        bits.append(bits[-1])
    below = named(m, Cat(Const(0, 1), bits[1:-1:2]), f"{name}_below")
    low, high = (named(m, Cat(bits[k::2]), f"{name}_{side}")
                 for k, side in enumerate(("low", "high")))
    return named(m, Cat(low ^ below, (high & ~low & ~below) | (~high & low & below), high),
                 f"{name}_digits")


def negated(m, digits, name):
    """Word of digits of opposite sign."""
    once, twice, negative = digit_parts(digits)
    return named(m, Cat(once, twice, ~negative), f"{name}_negated")


def digit_parts(digits):
    """Which digits of a word are ±1, which ±2, and which are negative, should they not be 0."""
    count = len(digits) // 3
    return [digits[start:start + count] for start in range(0, 3 * count, count)]


def add_product(heap, left, right, shift=0):
    """Add left · right · 2**shift to a bit heap, one row for each digit of `right`.

    Parameters
    ----------
    heap : hwgen.lib.bit_heap.BitHeap
    left, right : signed or unsigned values; the one with fewer bits is best at the right
    shift : weight of the product's last bit
    """
    add_recoded(heap, left, recode(heap.m, right, f"{heap.name}_right"), shift)


def add_recoded(heap, left, digits, shift=0):
    """Add left · right · 2**shift to a bit heap, `digits` being `right`, recoded.

    Parameters
    ----------
    heap : hwgen.lib.bit_heap.BitHeap
    left : signed or unsigned value
    digits : word from `recode` or `negated`
    shift : weight of the product's last bit
    """
    left = heap.named(_signed_bits(left), "left")
    inverse = heap.named(~left, "inverse")
    once, twice, negative = digit_parts(digits)
    # A negative digit's row is a ones' complement, short of 1. The row's last bit and this 1
    # together are the factor's last bit and a carry.
    last = heap.named(Mux(left[0], once, 0), "last")
    carry = heap.named(negative & (twice | Mux(left[0], 0, once)), "carry")
    for place in range(len(once)):
        flipped = heap.named(Mux(negative[place], inverse, left), f"flipped_{place}")
        # One bit more than the factor for the doubled one; neither of the two for a digit of 0.
        row = heap.named(Mux(once[place], Cat(flipped, flipped[-1]), 0)
                         | Mux(twice[place], Cat(negative[place], flipped), 0), f"row_{place}")
        weight = shift + 2 * place
        heap.add(row[1:].as_signed(), weight + 1)
        heap.add_bits(last[place], weight)
        heap.add_bits(carry[place], weight + 1)


def _signed_bits(value):
    """Bits of a value in two's complement."""
    value = Value.cast(value)
    return value.as_unsigned() if value.shape().signed else Cat(value, Const(0, 1))
