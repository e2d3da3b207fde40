"""Networks that count and close gaps in a vector, of logarithmic depth."""

from amaranth.hdl import Cat, Const, Signal, Value

BLOCK = 8
"""Bits that are counted together before blocks are: it sets how deep and how large the adders are."""


def counts_before(m, bits, name):
    """Count the ones before each bit, and among all: len(bits) + 1 values.

    Blocks of up to `BLOCK` bits are counted by themselves, then blocks by a parallel prefix, and
    one adder a bit joins the two: fewer adders than a prefix over the whole.
    """
    size = min(BLOCK, len(bits))
    local = [_prefix(m, bits[block:block + size], f"{name}_{block}")
             for block in range(0, len(bits), size)]
    bases = [Const(0, 1), *_prefix(m, [one[-1] for one in local], f"{name}_blocks")]
    counts = [Const(0, 1)]
    for number, one in enumerate(local):
        for k, count in enumerate(one):
            if number == 0 or k == size - 1:
                counts.append(bases[number + 1] if k == size - 1 else count)
                continue
            total = Signal((number * size + k + 1).bit_length(), name=f"{name}_{number}_{k}")
            m.d.comb += total.eq(bases[number] + count)
            counts.append(total)
    return counts


def _prefix(m, terms, name):
    """Sums of the first terms, up to each: Sklansky's parallel prefix.

    In level s, the upper half of each block of 2^(s+1) adds the sum of the lower half.
    """
    sums = [Value.cast(term) for term in terms]
    most = [(1 << len(term)) - 1 for term in sums]
    for level in range((len(terms) - 1).bit_length()):
        following = list(sums)
        for k in range(len(terms)):
            if k >> level & 1:
                following[k] = Signal(range(sum(most[:k + 1]) + 1), name=f"{name}_{level}_{k}")
                m.d.comb += following[k].eq(sums[k] + sums[(k >> level << level) - 1])
        sums = following
    return sums


def at_least(size, bound):
    """Which of 0 to `size` − 1 are at least `bound`."""
    return [Const(1, 1) if len(bound) == 0 else number >= bound for number in range(size)]


def borders(slots, size):
    """Bits of the slots that `switches` needs"""
    found = []
    for level in range((size - 1).bit_length()):
        half = 1 << level
        found += [slots[k][:level + 1] for k in range(half, len(slots) - 1, 2 * half)]
    return found


def switches(found):
    controls = []
    for border in found:
        controls += [reach ^ border[-1] for reach in at_least(1 << (len(border) - 1), border[:-1])]
    return Cat(controls)


def close_gaps(m, values, swaps, keeps, size, name):
    controls = iter(zip(swaps, keeps, strict=True))
    for level in range((size - 1).bit_length()):
        half = 1 << level
        moved = list(values)
        for block in range(0, len(values), 2 * half):
            for low in range(block, block + half):
                swap, keep = next(controls)
                for k, other in ((low, low + half), (low + half, low)):
                    width = len(values[k])
                    moved[k] = Signal(width, name=f"{name}_{level}_{k}")
                    m.d.comb += moved[k].eq((values[other] & swap.replicate(width))
                                            | (values[k] & keep.replicate(width)))
        values = moved
    return values
