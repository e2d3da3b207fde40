"""Where a value's leading digit is, and shifts into a window of bits that saturate."""

from amaranth.hdl import Array, Cat, Const, Mux

from hwgen.lib.arithmetic import named


def leading(m, bits, name):
    """Index of the highest 1 of a value, 0 if there is none; ⌈log2 of the width⌉ bits."""
    return _leading(m, bits, (len(bits) - 1).bit_length(), name)[1]


def _leading(m, bits, levels, name):
    """Whether there is a 1, and where the highest is; a tree."""
    if levels == 0 or len(bits) == 0:
        return bits.any(), Const(0, levels)
    half = 1 << (levels - 1)
    if len(bits) <= half:
        found, place = _leading(m, bits, levels - 1, name)
        return found, Cat(place, Const(0, 1))
    low_found, low = _leading(m, bits[:half], levels - 1, f"{name}_0")
    high_found, high = _leading(m, bits[half:], levels - 1, f"{name}_1")
    found = named(m, high_found, f"{name}_found")
    place = named(m, Cat(Mux(found, high, low), found), f"{name}_place")
    return low_found | found, place


def shift_bytes(m, value, amount, width, name):
    """Shift right by the whole bytes of `amount`: the first of two stages.

    Parameters
    ----------
    m : the module that the shifter is added to
    value : signed value of at least `width` + 7 bits
    amount : unsigned value of at least three bits
    width : bits of the window that `shift_bits` leaves
    name : prefix of signals

    Returns
    -------
    (near, far) : for `shift_bits`: the bits that may still reach the window with the sign above
        them, and whether one beyond them differs from the sign
    """
    sign = value[-1]
    moved = named(m, value >> Cat(Const(0, 3), amount[3:]), f"{name}_bytes")
    near, above = moved[:width + 7], moved[width + 7:]
    return Cat(near, sign), _differs(above, sign)


def shift_bits(m, near, far, amount, width, name):
    """Shift right by 0 to 7 bits and saturate to a signed window: the second of two stages."""
    sign = near[-1]
    moved = named(m, near.as_signed() >> amount[:3], f"{name}_bits")
    over = far | _differs(moved[width - 1:], sign)
    return named(m, Mux(over, _limit(sign, width), moved[:width]), f"{name}_window")


def _differs(bits, sign):
    """Whether any of some bits is not as the sign."""
    return Mux(sign, ~bits.all(), bits.any())


def _limit(sign, width):
    """The signed value of `width` bits that is furthest from zero on a sign's side."""
    return Mux(sign, Const(1 << (width - 1), width), Const((1 << (width - 1)) - 1, width))


def fallen(value, count, step):
    """Whether a shift right by `count` times `step` bits loses a 1."""
    return Array(value[:step * k].any() for k in range(1 << len(count)))[count]


def round_half(total, rest, fraction, bits):
    """A signed sum that holds a half already, cut to `bits` bits: ties to even, saturated.

    Parameters
    ----------
    total : the sum, a half of the result's last bit included
    rest : whether any bit below the sum's is 1
    fraction : bits of the sum below the result's
    bits : width of the result
    """
    below, value = total[:fraction], total[fraction:]
    tie = ~(rest | below.any())
    sign = value[-1]
    over = _differs(value[bits - 1:-1], sign)
    return Mux(over, _limit(sign, bits), Cat(value[0] & ~tie, value[1:bits]))
