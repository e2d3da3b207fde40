"""Networks that count, and that bring marked elements together or apart, of logarithmic depth."""

from amaranth.hdl import Cat, Const, Signal, Value

BLOCK = 16
"""Bits counted together in a first step; what a second step adds to them is short for any vector of
this project."""


class PrefixCounts:
    """Ones before each bit of a vector, counted in two steps between which a register may lie.

    Parameters
    ----------
    totals : ones in each block of up to `BLOCK` bits
    local : for each block, the ones in it before each of its bits
    """

    def __init__(self, totals, local):
        self._totals, self._local = totals, local
        self._block = len(local[0])

    @classmethod
    def of(cls, m, bits, name):
        """Take the first step for `bits`, a list of a power of two of them."""
        blocks = [bits[start:start + BLOCK] for start in range(0, len(bits), BLOCK)]
        sums = [_prefix_sums(m, block, f"{name}_{k}") for k, block in enumerate(blocks)]
        return cls([block[-1] for block in sums], [[Const(0, 1), *block[:-1]] for block in sums])

    def packed(self, size):
        """Pack what the second step needs for `switches` of this size."""
        return Cat(value[:width] for value, width in self._needed(size))

    def unpacked(self, vector, size):
        """Take apart what `packed` made."""
        values, start = [], 0
        for _, width in self._needed(size):
            values.append(vector[start:start + width])
            start += width
        blocks = len(self._totals)
        rest = iter(values[blocks:])
        local = [[Const(0, 1), *(next(rest) for _ in block[1:])] for block in self._local]
        return PrefixCounts(values[:blocks], local)

    def added(self, m, start, name):
        """Take the second step: ones before each bit and among all, counted from `start`.

        After `packed`, counts before what is no multiple of its size are right in the bits that
        `switches` needs, those before the others in all.
        """
        bases = [start, *_prefix_sums(m, [start + self._totals[0], *self._totals[1:]], name)]
        counts = []
        for block, (base, local) in enumerate(zip(bases, self._local, strict=False)):
            for k, count in enumerate(local):
                total = Signal((base + count).shape(), name=f"{name}_{block}_{k}")
                m.d.comb += total.eq(base + count)
                counts.append(total)
        return [*counts, bases[-1]]

    def _needed(self, size):
        """The parts that are not constant, totals first, and how many of their bits are needed."""
        for total in self._totals:
            yield total, len(total)
        for block in self._local:
            for k, value in enumerate(block[1:], 1):
                # The middle of 2·s elements is an odd multiple of s, and its count modulo 2·s.
                modulo = (k & -k).bit_length()
                yield value, len(value) if k % size == 0 else min(modulo, len(value))


def _prefix_sums(m, terms, name):
    """Sums of the first one, two, … terms: Sklansky's parallel prefix.

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
    """Which of 0 to `size` − 1, a power of two, are at least `bound`."""
    return [Const(1, 1) if len(bound) == 0 else number >= bound for number in range(size)]


def switches(counts, size):
    """Set the switches of `close_gaps`.

    The marked elements of a block fill places from the count before it to the count after it,
    modulo the block's size 2·s: those of its lower half up to the border, those of its upper half
    from there on. Of two places s apart, the lower half therefore fills the one among the s before
    the border, the upper half the one among the s from it, if they fill them at all.

    Parameters
    ----------
    counts : marked elements before each and among all; they may begin anywhere
    size : elements that a network places, a power of two

    Returns
    -------
    A bit a switch, for each network, ordered by level, block and place.
    """
    found = []
    for level in range((size - 1).bit_length()):
        half = 1 << level
        for middle in range(half, len(counts) - 1, 2 * half):
            border = counts[middle][:level + 1]
            found += [reached ^ border[level] for reached in at_least(half, border[:level])]
    return Cat(found)


def close_gaps(m, values, swap, keep, size, name):
    """Bring the marked elements of each `size` to neighbouring places, cyclically and in order.

    The n-th marked element of all comes to place n modulo `size` of its network, n from where the
    counts begin. A network has log2 `size` levels of switches of two; what is not marked comes to
    the places that are left.

    Parameters
    ----------
    m : module that the networks are added to
    values : list of a multiple of `size` elements
    swap, keep : settings of the switches and their complements. Where both come from registers, a
        switch is two AND-OR-invert gates, which are smaller than two multiplexers
    size : elements that a network places, a power of two
    name : prefix of signals
    """
    settings = list(zip(swap, keep, strict=True))
    for level in range((size - 1).bit_length()):
        values = _switched(m, values, settings, level, name)
    return values


def open_gaps(m, values, swap, keep, size, name):
    """Bring values to the marked places: what `close_gaps` does, backwards.

    The value for the n-th marked place of all comes from place n modulo `size` of its network, n
    from where the counts begin. The places that are not marked get the values that are left.

    Parameters
    ----------
    m, swap, keep, size, name : as `close_gaps` takes them
    values : list of a multiple of `size` values, as `close_gaps` returns them
    """
    settings = list(zip(swap, keep, strict=True))
    for level in reversed(range((size - 1).bit_length())):
        values = _switched(m, values, settings, level, name)
    return values


def _switched(m, values, settings, level, name):
    """Values behind one level of switches, each of which is between two places 2^level apart."""
    half, count = 1 << level, len(values) // 2
    lower = [k for k in range(len(values)) if not k & half]
    own = settings[level * count:(level + 1) * count]
    moved = list(values)
    for low, (swapped, kept) in zip(lower, own, strict=True):
        for k, other in ((low, low + half), (low + half, low)):
            width = len(values[k])
            moved[k] = Signal(width, name=f"{name}_{level}_{k}")
            m.d.comb += moved[k].eq((values[other] & swapped.replicate(width))
                                    | (values[k] & kept.replicate(width)))
    return moved
