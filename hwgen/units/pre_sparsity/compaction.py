"""Networks that close or open gaps in a vector, in log-many levels of two-way multiplexers.

A vector is one flat signal of equal elements, the first in the lowest bits.
"""

from amaranth.hdl import Cat, Const, Mux, Signal


def elements(vector, width):
    """Cut a flat vector into its elements."""
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
    """Number of zeros before each bit, as a flat vector of elements of log2(len(bits)) bits.

    Sklansky's parallel prefix: in level s, the upper half of each block of 2^(s+1) adds the sum of
    the lower half. A vector of one bit has no element to shift, and the result no bits.
    """
    width = (len(bits) - 1).bit_length()
    counts = Signal(len(bits) * width, name=f"{name}_0")
    m.d.comb += counts.eq(Cat(
        (Const(0, width) if k == 0 else Cat(~bits[k - 1], Const(0, width - 1)))
        for k in range(len(bits))) if width else 0)
    for level in range(width):
        old = elements(counts, width)
        counts = Signal(len(counts), name=f"{name}_{level + 1}")
        m.d.comb += counts.eq(Cat(
            (old[k] + old[(k >> level << level) - 1])[:width] if k >> level & 1 else old[k]
            for k in range(len(old))))
    return counts


def close_gaps(m, vector, valid, shifts, levels, name):
    """Move each valid element towards the first by the bits `levels` of its shift.

    With shifts that count the gaps before each element, and levels in rising order, no two
    elements meet: neighbours whose shifts differ by g are g + 1 apart, and modulo 2^s the
    difference of their shifts never exceeds g.

    Parameters
    ----------
    m : module that the network is added to
    vector, valid, shifts : flat vectors of the elements, their valid bits and their shifts
    levels : bits of the shifts that are applied
    name : prefix of signals

    Returns
    -------
    vector, valid and shifts after the moves; elements that are not valid hold anything.
    """
    count = len(valid)
    width, shift_width = len(vector) // count, len(shifts) // count
    for level in levels:
        old_vector, old_shifts = elements(vector, width), elements(shifts, shift_width)
        moves = Signal(count, name=f"{name}_{level}_moves")
        old_valid = valid
        vector = Signal.like(vector, name=f"{name}_{level}")
        shifts = Signal.like(shifts, name=f"{name}_{level}_shifts")
        valid = Signal(count, name=f"{name}_{level}_valid")
        m.d.comb += moves.eq(Cat(old_valid[k] & old_shifts[k][level] for k in range(count)))
        source = [k + (1 << level) for k in range(count)]
        come = [moves[k] if k < count else Const(0, 1) for k in source]
        m.d.comb += [
            vector.eq(Cat(_choose(old_vector, come[k], source[k], k) for k in range(count))),
            shifts.eq(Cat(_choose(old_shifts, come[k], source[k], k) for k in range(count))),
            valid.eq(Cat(come[k] | (old_valid[k] & ~moves[k]) for k in range(count))),
        ]
    return vector, valid, shifts


def _choose(old, come, source, stay):
    return Mux(come, old[source], old[stay]) if source < len(old) else old[stay]


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
