"""Where a value's leading digit is, and shifts into a window of bits that saturate."""

from amaranth.hdl import Array, Cat, Const, Mux


def leading(bits):
    """Index of the highest 1 of a value, 0 if there is none; ⌈log2 of the width⌉ bits."""
    return _leading(bits, (len(bits) - 1).bit_length())[1]


def _leading(bits, levels):
    """Whether there is a 1, and where the highest is; a tree."""
    if levels == 0 or len(bits) == 0:
        return bits.any(), Const(0, levels)
    half = 1 << (levels - 1)
    if len(bits) <= half:
        found, place = _leading(bits, levels - 1)
        return found, Cat(place, Const(0, 1))
    low_found, low = _leading(bits[:half], levels - 1)
    high_found, high = _leading(bits[half:], levels - 1)
    return low_found | high_found, Cat(Mux(high_found, high, low), high_found)


def shift_bytes(value, amount, width):
    """Shift right by the whole bytes of `amount`: the first of two stages.

    Parameters
    ----------
    value : signed value of at least `width` + 7 bits
    amount : unsigned value of at least three bits
    width : bits of the window that `shift_bits` leaves

    Returns
    -------
    (near, far) : for `shift_bits`: the bits that may still reach the window with the sign above
        them, and whether one beyond them differs from the sign
    """
    sign = value[-1]
    moved = value >> Cat(Const(0, 3), amount[3:])
    near, above = moved[:width + 7], moved[width + 7:]
    return Cat(near, sign), (above ^ sign.replicate(len(above))).any()


def shift_bits(near, far, amount, width):
    """Shift right by 0 to 7 bits and saturate to a signed window: the second of two stages."""
    sign = near[-1]
    moved = near.as_signed() >> amount[:3]
    over = far | (moved[width - 1:] ^ sign.replicate(len(moved) - width + 1)).any()
    return Mux(over, Cat((~sign).replicate(width - 1), sign), moved[:width]).as_signed()


def fallen(value, count, step):
    """Whether a shift right by `count` times `step` bits loses a 1."""
    return Array(value[:step * k].any() for k in range(1 << len(count)))[count]
