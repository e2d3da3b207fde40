"""Networks that count, and that bring marked elements together, of logarithmic depth."""

from amaranth.hdl import Cat, Const, Signal, Value

BLOCK = 8
"""Bits counted together before blocks are: of little effect on the area, some on the depth."""


class PrefixCounts:
    """Ones before each bit of a vector, as those before its block and those before it in the block.

    The two are added where a count is used, so that a register may lie between.

    Parameters
    ----------
    bases : ones before each block, and among all: one value more than blocks
    local : for each block, the ones in it before each of its bits
    """

    def __init__(self, bases, local):
        self.bases, self.local = bases, local
        self.block = len(local[0])
        self.length = self.block * len(local)

    @classmethod
    def of(cls, m, bits, name):
        """Count `bits`, a list of a power of two of them, in about three and log2 blocks adders."""
        blocks = [bits[start:start + BLOCK] for start in range(0, len(bits), BLOCK)]
        sums = [_prefix_sums(m, block, f"{name}_{k}") for k, block in enumerate(blocks)]
        zero = Const(0, 1)
        bases = _prefix_sums(m, [block[-1] for block in sums], f"{name}_blocks")
        return cls([zero, *bases], [[zero, *block[:-1]] for block in sums])

    def before(self, k):
        """Ones before bit k, or among all."""
        block, rest = divmod(k, self.block)
        return self.bases[block] + self.local[block][rest] if rest else self.bases[block]

    def plus(self, m, offset, name):
        """Counts that begin at `offset`."""
        bases = []
        for k, base in enumerate(self.bases):
            total = Signal((base + offset).shape(), name=f"{name}_{k}")
            m.d.comb += total.eq(base + offset)
            bases.append(total)
        return PrefixCounts(bases, self.local)

    def packed(self, whole):
        """Pack what `switches` needs and the whole counts before multiples of `whole`."""
        return Cat(value[:width] for value, width in self._needed(whole))

    def unpacked(self, vector, whole):
        """Take what `packed` made apart; counts whose upper bits it left out are without them."""
        values, start = [], 0
        for _, width in self._needed(whole):
            values.append(vector[start:start + width])
            start += width
        values = iter(values)
        local = [[Const(0, 1), *(next(values) for _ in block[1:])] for block in self.local]
        return PrefixCounts([Const(0, 1), *values], local)

    def _needed(self, whole):
        """Each part that is not constant, and how many of its bits are needed."""
        parts = [(block * self.block + k, value) for block, values in enumerate(self.local)
                 for k, value in enumerate(values) if k]
        parts += [(block * self.block, value) for block, value in enumerate(self.bases) if block]
        for k, value in parts:
            # The border of a switch of size 2·s is an odd multiple of s, and counts modulo 2·s.
            modulo = (k & -k).bit_length()
            yield value, len(value) if k % whole == 0 else min(modulo, len(value))


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
    counts : PrefixCounts of the marks; they may begin anywhere
    size : elements that a network places, a power of two

    Returns
    -------
    A bit a switch, for each network, ordered by level, block and place.
    """
    found = []
    for level in range((size - 1).bit_length()):
        half = 1 << level
        for middle in range(half, counts.length, 2 * half):
            border = counts.before(middle)[:level + 1]
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
    settings = iter(zip(swap, keep, strict=True))
    for level in range((size - 1).bit_length()):
        half = 1 << level
        moved = list(values)
        for block in range(0, len(values), 2 * half):
            for low in range(block, block + half):
                swapped, kept = next(settings)
                for k, other in ((low, low + half), (low + half, low)):
                    width = len(values[k])
                    moved[k] = Signal(width, name=f"{name}_{level}_{k}")
                    m.d.comb += moved[k].eq((values[other] & swapped.replicate(width))
                                            | (values[k] & kept.replicate(width)))
        values = moved
    return values
