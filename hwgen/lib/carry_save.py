"""Sums of many rows in carry-save form: Booth's partial products, compression, addition.

A row is a pair (offset, value): the bits of `value`, taken as unsigned, from bit `offset` on. Sums
are modulo a power of two, so that two's complement needs no sign extension.
"""

from amaranth.hdl import Cat, Const, Signal

DIGIT = 3
"""Bits of a recoded digit: whether it is ±1, whether it is ±2, whether it is negative."""


def recode(m, factor, name):
    """Booth's radix-4 digits of a signed value, the lowest first, as one word of digits.

    An unsigned factor is recoded with a zero above its highest bit.

    Parameters
    ----------
    m : the module that the recoder is added to
    factor : value of any width
    name : of the signal

    Returns
    -------
    ⌈bits/2⌉ digits of `DIGIT` bits, each whether it is ±1, whether ±2, whether negative.
    """
    bits = [Const(0, 1), *factor]
    if len(bits) % 2 == 0:
        bits.append(factor[-1])
    digits = []
    for low in range(0, len(bits) - 1, 2):
        right, middle, left = bits[low:low + 3]
        one = right ^ middle
        digits += [one, ~one & (left ^ middle), left & ~(right & middle)]
    word = Signal(len(digits), name=f"{name}_digits")
    m.d.comb += word.eq(Cat(digits))
    return word


def negate(digits):
    """The word of digits of opposite sign."""
    return Cat(bit if place % DIGIT < DIGIT - 1 else ~bit for place, bit in enumerate(digits))


def partial_products(m, left, digits, width, name, constant=0):
    """Rows whose sum modulo 2^width is `left` times a recoded factor plus a constant.

    Parameters
    ----------
    m : the module that the rows are added to
    left : signed value
    digits : from `recode`, as they are or registered
    width : bits of the sum
    name : prefix of signals
    constant : integer that is added
    """
    rows, below, size = [], None, len(left) + 1
    once, twice = Cat(left, left[-1]), Cat(Const(0, 1), left)
    for number in range(len(digits) // DIGIT):
        one, two, negative = digits[DIGIT * number:DIGIT * (number + 1)]
        chosen = (once & one.replicate(size)) | (twice & two.replicate(size))
        row = Signal(size, name=f"{name}_partial_{number}")
        m.d.comb += row.eq(chosen ^ Cat(negative.replicate(size - 1), ~negative))
        # −s·2^k = (1 − s)·2^k − 2^k for the sign bit s.
        constant -= 1 << (2 * number + size - 1)
        # ¬v = −v − 1: the missing 1 has its place below the next row.
        rows.append((0, row) if below is None else (2 * number - 2, Cat(below, Const(0, 1), row)))
        below = negative
    last = 2 * (len(digits) // DIGIT) - 2
    constant %= 1 << width
    if constant & ((1 << (last + 1)) - 1) == 0:
        above = Const(constant >> (last + 1), max(width - last - 1, 1))
        return [*rows, (last, Cat(below, above))]
    return [*rows, (last, below), (0, Const(constant, width))]


def square(m, value, name):
    """Rows whose sum is the square of an unsigned value: each product of two bits once, doubled."""
    rows = []
    for k, bit in enumerate(value):
        row = Signal(len(value) - k - 1, name=f"{name}_partial_{k}")
        m.d.comb += row.eq(value[k + 1:] & bit.replicate(len(row)))
        rows.append((2 * k, Cat(bit, Const(0, 1), row)))
    return rows


def square_in_halves(m, value, name):
    """Parts of the square of a signed value of at least four bits, whose sums need no carry.

    With value = u·2^half + v, v unsigned and half = ⌊bits/2⌋: "high" = u², "cross" = u·v (signed)
    and "low" = v², of which the square is high·4^half + cross·2^(half + 1) + low.
    """
    bits, half = len(value), len(value) // 2
    u, v = value[half:].as_signed(), value[:half]
    top = 2 * (bits - half) - 1
    v_digits = recode(m, Cat(v, Const(0, 1)), f"{name}_low")
    u_digits = recode(m, u, f"{name}_high")
    parts = {}
    for part, rows, width in (
        ("low", square(m, v, f"{name}_low"), 2 * half),
        ("cross", partial_products(m, u, v_digits, bits, f"{name}_cross"), bits),
        ("high", partial_products(m, u, u_digits, top, f"{name}_high"), top),
    ):
        left, right = compress(m, rows, width, 2, f"{name}_{part}")
        parts[part] = (left + right)[:width]
    return {**parts, "cross": parts["cross"].as_signed()}


def sum_rows(values, width):
    """Rows whose sum modulo 2^width is that of some signed or unsigned values of one shape."""
    if len(values) == 1:
        value = values[0]
        sign = value[-1] if value.shape().signed else Const(0, 1)
        return [(0, Cat(value, sign.replicate(width)))]
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
            a, b, c = (Signal(size, name=f"{name}_{level}_{number}_{row}") for row in range(3))
            m.d.comb += [signal.eq(Cat(Const(0, offset - low), value)[:size])
                         for signal, (offset, value) in zip((a, b, c), three, strict=True)]
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
