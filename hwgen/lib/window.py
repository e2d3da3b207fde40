"""Where a value's leading digit is, and shifts into a window of bits that saturate."""

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value


def named(m, name, value):
    """Give an expression that is used several times one signal."""
    value = Value.cast(value)
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


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
    found = named(m, f"{name}_found", high_found)
    place = named(m, f"{name}_place", Cat(Mux(found, high, low), found))
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
    moved = named(m, f"{name}_bytes", value >> Cat(Const(0, 3), amount[3:]))
    near, above = moved[:width + 7], moved[width + 7:]
    return Cat(near, sign), (above ^ sign.replicate(len(above))).any()


def shift_bits(m, near, far, amount, width, name):
    """Shift right by 0 to 7 bits and saturate to a signed window: the second of two stages."""
    sign = near[-1]
    moved = named(m, f"{name}_bits", near.as_signed() >> amount[:3])
    over = far | (moved[width - 1:] ^ sign.replicate(len(moved) - width + 1)).any()
    return named(m, f"{name}_window", Mux(over, limit(m, sign, width, name), moved[:width]))


def limit(m, sign, width, name):
    """The signed value of `width` bits that is furthest from zero on a sign's side."""
    inverse = named(m, f"{name}_inverse", ~sign)
    return Cat(inverse.replicate(width - 1), sign)


def fallen(value, count, step):
    """Whether a shift right by `count` times `step` bits loses a 1."""
    return Array(value[:step * k].any() for k in range(1 << len(count)))[count]


def round_half(m, total, rest, fraction, bits, name):
    """A signed sum that holds a half already, cut to `bits` bits: ties to even, saturated.

    Parameters
    ----------
    m : the module that the logic is added to
    total : the sum, a half of the result's last bit included
    rest : whether any bit below the sum's is 1
    fraction : bits of the sum below the result's
    bits : width of the result
    name : prefix of signals
    """
    below, value = total[:fraction], total[fraction:]
    tie = ~(rest | below.any())
    sign = value[-1]
    over = (value[bits - 1:-1] ^ sign.replicate(len(value) - bits)).any()
    return Mux(over, limit(m, sign, bits, name), Cat(value[0] & ~tie, value[1:bits]))
