"""Multiplication and piecewise quadratic polynomials in pipelines that never stall."""

from amaranth.hdl import Cat, Const, Value
from amaranth.lib import data
from amaranth.lib.memory import Memory

LIMBS = 4


def multiply(flow, lefts, rights, **carried):
    """Products of two lists of unsigned values in three stages.

    Yosys does not pipeline `*`: each right factor is cut into four limbs, whose partial products
    are registered and summed in two further stages.

    Parameters
    ----------
    flow : the pipeline
    lefts, rights : factors, one of each a lane
    carried : values or lists of values that pass along

    Returns
    -------
    (products, carried) : registers, the carried ones as a namespace
    """
    lanes = range(len(lefts))
    step = -(-max(len(Value.cast(right)) for right in rights) // LIMBS)
    limbs = {
        f"limb{i}": [left * right[i * step:(i + 1) * step]
                     for left, right in zip(lefts, rights, strict=True)]
        for i in range(LIMBS)
    }
    s = flow.stage(**limbs, **carried)
    s = flow.stage(
        low=[s.limb0[i] + (s.limb1[i] << step) for i in lanes],
        high=[s.limb2[i] + (s.limb3[i] << step) for i in lanes],
        **_again(s, carried),
    )
    widths = [len(Value.cast(left)) + len(right) for left, right in zip(lefts, rights, strict=True)]
    s = flow.stage(
        product=[(s.low[i] + (s.high[i] << (2 * step)))[:widths[i]] for i in lanes],
        **_again(s, carried),
    )
    return s.product, s


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


def quadratic(m, flow, table, arguments, name, **carried):
    """Evaluate `table` (hwgen.units.quadratic.Quadratic) at a list of arguments in nine stages.

    Bit for bit what `Quadratic.evaluate` computes: coefficients are read from a synchronous memory
    with a read port a lane, and each product loses its last `offset_bits` bits.

    Returns
    -------
    (values, carried) : registers of fraction_bits + 1 bits, the carried ones as a namespace
    """
    lanes = range(len(arguments))
    offset_bits, fraction_bits = table.offset_bits, table.fraction_bits
    shape = data.StructLayout({
        key: max(values).bit_length()
        for key, values in (("c0", table.c0), ("c1", table.c1), ("c2", table.c2))
    })
    memory = Memory(shape=shape, depth=len(table.c0), init=[
        {"c0": c0, "c1": c1, "c2": c2}
        for c0, c1, c2 in zip(table.c0, table.c1, table.c2, strict=True)
    ])
    m.submodules[name] = memory
    ports = [memory.read_port() for _ in lanes]
    m.d.comb += [port.en.eq(1) for port in ports]
    m.d.comb += [port.addr.eq(argument[offset_bits:])
                 for port, argument in zip(ports, arguments, strict=True)]
    s = flow.stage(offset=[argument[:offset_bits] for argument in arguments], **carried)
    products, s = multiply(
        flow, s.offset, [port.data.c2 for port in ports], offset=s.offset,
        c0=[port.data.c0 for port in ports], c1=[port.data.c1 for port in ports],
        **_again(s, carried))
    s = flow.stage(
        slope=[(s.c1[i] - (products[i] >> offset_bits))[:len(s.c1[i])] for i in lanes],
        offset=s.offset, c0=s.c0, **_again(s, carried))
    products, s = multiply(flow, s.slope, s.offset, c0=s.c0, **_again(s, carried))
    s = flow.stage(
        value=[(s.c0[i] - (products[i] >> offset_bits))[:fraction_bits + 1] for i in lanes],
        **_again(s, carried))
    return s.value, s


def _again(registers, carried):
    return {name: getattr(registers, name) for name in carried}
