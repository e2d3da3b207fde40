"""Sums of many rows in carry-save form: Booth's partial products, compression, addition in two stages.

A row is a pair (offset, value): the bits of `value`, taken as unsigned, from bit `offset` on. Sums
are modulo a power of two, so that two's complement needs no sign extension.
"""

from amaranth.hdl import Cat, Const, Signal

DIGIT = 3
"""Bits of a recoded digit: whether it is ±1, whether it is ±2, whether it is negative."""


def recode(factor):
    """Booth's radix-4 digits of a signed value, the lowest first: ⌈bits/2⌉ values of `DIGIT` bits.

    An unsigned factor is recoded with a zero above its highest bit.
    """
    bits = [Const(0, 1), *factor]
    top = factor[-1]
    if len(bits) % 2 == 0:
        bits.append(top)
    digits = []
    for low in range(0, len(bits) - 1, 2):
        right, middle, left = bits[low:low + 3]
        one = right ^ middle
        digits.append(Cat(one, ~one & (left ^ middle), left & ~(right & middle)))
    return digits


def partial_products(left, digits, width, constant=0):
    """Rows whose sum modulo 2^width is `left` times a recoded factor plus a constant.

    Parameters
    ----------
    left : signed value
    digits : from `recode`, as they are or registered
    width : bits of the sum
    constant : integer that is added
    """
    rows, negative = [], None
    for number, digit in enumerate(digits):
        one, two, minus = digit[0], digit[1], digit[2]
        size = len(left) + 1
        once, twice = Cat(left, left[-1]), Cat(Const(0, 1), left)
        chosen = (once & one.replicate(size)) | (twice & two.replicate(size))
        value = chosen ^ minus.replicate(size)
        # −s·2^k = (1 − s)·2^k − 2^k for the sign bit s.
        value = Cat(value[:-1], ~value[-1])
        constant -= 1 << (2 * number + size - 1)
        if negative is None:
            rows.append((0, value))
        else:
            rows.append((2 * number - 2, Cat(negative, Const(0, 1), value)))
        # ¬v = −v − 1: the missing 1 has its place below the next row.
        negative = minus
    last = 2 * len(digits) - 2
    constant %= 1 << width
    below = constant & ((1 << (last + 1)) - 1)
    if below == 0:
        rows.append((last, Cat(negative, Const(constant >> (last + 1), max(width - last - 1, 1)))))
    else:
        rows += [(last, negative), (0, Const(constant, width))]
    return rows


def square(value):
    """Rows whose sum is the square of an unsigned value: each product of two bits once, doubled."""
    return [
        (2 * k, Cat(bit, Const(0, 1), value[k + 1:] & bit.replicate(len(value) - k - 1)))
        for k, bit in enumerate(value)
    ]


def split_digits(word):
    """Digits that were registered as one word."""
    return [word[low:low + DIGIT] for low in range(0, len(word), DIGIT)]


def sum_rows(values, width):
    """Rows whose sum modulo 2^width is that of some signed or unsigned values of one shape."""
    if len(values) == 1:
        value = values[0]
        return [(0, Cat(value, (value[-1] if value.shape().signed else Const(0, 1)).replicate(width)))]
    if not values[0].shape().signed:
        return [(0, value) for value in values]
    # −s·2^k = (1 − s)·2^k − 2^k for the sign bit s.
    constant = -len(values) << (len(values[0]) - 1)
    rows = [(0, Cat(value[:-1], ~value[-1])) for value in values]
    return [*rows, (0, Const(constant % (1 << width), width))]


def compress(m, rows, width, count, name):
    """Reduce rows to `count` by full adders, three to two; a list of values of `width` bits.

    Parameters
    ----------
    m : the module that the adders are added to
    rows : rows, at least one
    width : bits of the sum
    count : number of rows, at least 2, whose sum is that of all modulo 2^width
    name : prefix of signals
    """
    level = 0
    while len(rows) > count:
        rows = sorted(rows, key=lambda row: row[0])
        # No more triples than it takes to reach `count`.
        triples = min(len(rows) // 3, len(rows) - count)
        reduced = []
        for number in range(triples):
            three = rows[3 * number:3 * number + 3]
            low = min(offset for offset, _ in three)
            high = min(max(offset + len(value) for offset, value in three), width)
            size = high - low
            a, b, c = (Cat(Const(0, offset - low), value, Const(0, size))[:size]
                       for offset, value in three)
            total = Signal(size, name=f"{name}_{level}_{number}_sum")
            carry = Signal(min(size, width - low - 1), name=f"{name}_{level}_{number}_carry")
            m.d.comb += [total.eq(a ^ b ^ c), carry.eq((a & b) | (a & c) | (b & c))]
            reduced += [(low, total), (low + 1, carry)]
        rows = reduced + rows[3 * triples:]
        level += 1
    values = [Cat(Const(0, offset), value, Const(0, width))[:width] for offset, value in rows]
    return values + [Const(0, width)] * (count - len(values))


def add(flow, lefts, rights, **carried):
    """Sums of two lists of values of one width in two stages: lower halves, then upper ones.

    Parameters
    ----------
    flow : the pipeline
    lefts, rights : unsigned terms, one of each a lane; a sum is modulo 2^width
    carried : values or lists of values that pass along

    Returns
    -------
    (sums, carried) : registers, the carried ones as a namespace
    """
    lanes, width = range(len(lefts)), len(lefts[0])
    cut = width // 2
    s = flow.stage(
        low=[lefts[i][:cut] + rights[i][:cut] for i in lanes],
        left=[left[cut:] for left in lefts], right=[right[cut:] for right in rights], **carried)
    # The carry enters below one adder.
    upper = [Cat(Const(1, 1), s.left[i]) + Cat(s.low[i][cut], s.right[i]) for i in lanes]
    s = flow.stage(
        sum=[Cat(s.low[i][:cut], upper[i][1:width - cut + 1]) for i in lanes],
        **{name: getattr(s, name) for name in carried})
    return s.sum, s
