"""Networks that count, close and open gaps in a vector, of logarithmic depth."""

from amaranth.hdl import Cat, Const, Mux, Signal


def elements(vector, width):
    """Cut a flat vector, its first element in the lowest bits, into a list of its elements."""
    return [vector[start:start + width] for start in range(0, len(vector), width)]


def popcount(m, bits, name):
    """Count the ones among `bits`, by a tree of adders."""
    terms = list(bits)
    level = 0
    while len(terms) > 1:
        sums = []
        for number in range(0, len(terms) - 1, 2):
            total = Signal(len(terms[number]) + 1, name=f"{name}_{level}_{number // 2}")
            m.d.comb += total.eq(terms[number] + terms[number + 1])
            sums.append(total)
        terms = sums + terms[len(terms) & ~1:]
        level += 1
    return terms[0]


def zeros_before(m, bits, name):
    """Number of zeros before each bit, as a list of values of log2(len(bits)) bits.

    Sklansky's parallel prefix: in level s, the upper half of each block of 2^(s+1) adds the sum of
    the lower half. A vector of one bit has nowhere to shift, and its count no bits.
    """
    width = (len(bits) - 1).bit_length()
    counts = [Const(0, width), *(~bits[k] for k in range(len(bits) - 1))]
    for level in range(width):
        sums = list(counts)
        for k in range(len(bits)):
            if k >> level & 1:
                # No more than the positions that precede it.
                sums[k] = Signal(k.bit_length(), name=f"{name}_{level}_{k}")
                m.d.comb += sums[k].eq(counts[k] + counts[(k >> level << level) - 1])
        counts = sums
    return [Cat(count, Const(0, width))[:width] for count in counts]


def close_gaps(m, values, valid, shifts, levels, name):
    """Move each valid element towards the first by the bits `levels` of its shift.

    With shifts that count the gaps before each element, and levels in rising order, no two
    elements meet: neighbours whose shifts differ by g are g + 1 apart, and modulo 2^s the
    difference of their shifts never exceeds g.

    Parameters
    ----------
    m : module that the network is added to
    values, valid, shifts : lists of the elements, their valid bits and their shifts, of which the
        bits below the first level are left out
    levels : bits of the shifts that are applied
    name : prefix of signals

    Returns
    -------
    values, valid and shifts after the moves; elements that are not valid hold anything.
    """
    def choose(kind, old, k, comes):
        source = k + (1 << level)
        if source >= len(old) or len(old[k]) == 0:
            return old[k]
        signal = Signal(len(old[k]), name=f"{name}_{level}_{kind}_{k}")
        m.d.comb += signal.eq(Mux(comes[k], old[source], old[k]))
        return signal

    for level in levels:
        moves = Signal(len(values), name=f"{name}_{level}_moves")
        m.d.comb += moves.eq(Cat(ok & shift[0] for ok, shift in zip(valid, shifts, strict=True)))
        comes = moves[1 << level:]
        left = [shift[1:] for shift in shifts]
        values = [choose("value", values, k, comes) for k in range(len(values))]
        shifts = [choose("shift", left, k, comes) for k in range(len(values))]
        present = Signal(len(values), name=f"{name}_{level}_valid")
        m.d.comb += present.eq((Cat(valid) & ~moves) | comes)
        valid = list(present)
    return values, valid, shifts


def open_front(m, vector, width, distance, slots, name):
    """Move all elements away from the first by `distance`, into a vector of `slots` elements."""
    vector = Cat(vector, Const(0, slots * width - len(vector)))
    for level in range(len(distance)):
        moved = Signal(slots * width, name=f"{name}_{level}")
        m.d.comb += moved.eq(Mux(distance[level], vector << (width << level), vector))
        vector = moved
    return vector


def rotate(m, vector, width, distance, name):
    """Rotate the elements away from the first by `distance`, for any number of elements."""
    for level in range(len(distance)):
        rotated = Signal(len(vector), name=f"{name}_{level}")
        amount = width * ((1 << level) % (len(vector) // width))
        m.d.comb += rotated.eq(Mux(distance[level], vector.rotate_left(amount), vector))
        vector = rotated
    return vector
