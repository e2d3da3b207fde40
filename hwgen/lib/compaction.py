"""Networks that count and close gaps in a vector, of logarithmic depth."""

from amaranth.hdl import Const, Mux, Signal, Value


def counts_before(m, bits, name):
    """Count the ones before each bit, and among all: len(bits) + 1 values.

    Sklansky's parallel prefix: in level s, the upper half of each block of 2^(s+1) adds the sum of
    the lower half.
    """
    counts = [Value.cast(bit) for bit in bits]
    for level in range((len(bits) - 1).bit_length()):
        sums = list(counts)
        for k in range(len(bits)):
            if k >> level & 1:
                sums[k] = Signal((k + 1).bit_length(), name=f"{name}_{level}_{k}")
                m.d.comb += sums[k].eq(counts[k] + counts[(k >> level << level) - 1])
        counts = sums
    return [Const(0, 1), *counts]


def at_least(size, bound):
    """Which of 0 to `size` − 1 are at least `bound`."""
    return [Const(1, 1) if len(bound) == 0 else number >= bound for number in range(size)]


def switches(slots, size):
    controls = []
    for level in range((size - 1).bit_length()):
        half = 1 << level
        for block in range(0, len(slots) - 1, 2 * half):
            border = slots[block + half]
            if len(border) <= level:
                raise ValueError
            controls += [reach ^ border[level] for reach in at_least(half, border[:level])]
    return controls


def close_gaps(m, values, controls, size, name):
    controls = iter(controls)
    for level in range((size - 1).bit_length()):
        half = 1 << level
        moved = list(values)
        for block in range(0, len(values), 2 * half):
            for low in range(block, block + half):
                swap = next(controls)
                for k, other in ((low, low + half), (low + half, low)):
                    moved[k] = Signal(len(values[k]), name=f"{name}_{level}_{k}")
                    m.d.comb += moved[k].eq(Mux(swap, values[other], values[k]))
        values = moved
    return values
