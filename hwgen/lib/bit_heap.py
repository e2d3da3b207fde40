"""Sums of many bits by carry-save adders, one carry-propagate adder at the end."""

from amaranth.hdl import Cat, Const, Value

from hwgen.lib.arithmetic import named
from hwgen.units.stages import dadda_below

LONGEST_VECTOR = 64
"""Adders in one vector at most: simulators limit the length of a line, and elaboration takes time
with the square of a vector's length."""


class BitHeap:
    """Bits by their weight, whose sum modulo 2**width is wanted.

    Full adders make two bits of three, level by level, until two rows are left for a
    carry-propagate adder. Every level has as many full adders as there are threes of bits, so that
    a register between two levels is as narrow as it can be, and half adders only where a column
    would miss the height that the remaining levels can bring down (Dadda, "Some schemes for
    parallel multipliers", Alta Frequenza 34, 1965; Bickerstaff, Schulte, Swartzlander, "Parallel
    reduced area multipliers", Journal of VLSI Signal Processing 9, 1995).

    Signs and constants cost no bits in between: they are kept as one integer until the last levels.
    Adders are written as vectors, so that the Verilog stays short and simulates fast.

    Parameters
    ----------
    m : the module that gets the adders
    width : bits of the sum
    name : prefix of the signals
    """

    def __init__(self, m, width, name):
        self.m = m
        self.width = width
        self.name = name
        self._columns = [[] for _ in range(width)]
        self._constant = 0
        self._level = 0

    def add(self, value, shift=0):
        """Add `value` · 2**shift: an integer, or a signed or unsigned value."""
        if isinstance(value, int):
            self._constant += value << shift
            return
        value = Value.cast(value)
        if not value.shape().signed:
            self.add_bits(value, shift)
            return
        # -s·2^p = (1 - s)·2^p - 2^p: no copies of the sign above it.
        top = len(value) - 1
        self.add_bits(value[:top], shift)
        self.add_bits(~value[top], shift + top)
        self._constant -= 1 << (shift + top)

    def subtract(self, value, shift=0):
        """Add −`value` · 2**shift: a signed or unsigned value."""
        value = Value.cast(value)
        # Of n bits, ~v is −v − 1 if they are signed, 2^n − v − 1 if not.
        self.add(self.named(~value, "inverse"), shift)
        self.add(1 if value.shape().signed else 1 - (1 << len(value)), shift)

    def add_bits(self, bits, shift):
        """Add single bits of weight 2**shift, 2**(shift + 1), …, of a value."""
        for place in range(min(len(bits), self.width - shift)):
            self._columns[shift + place].append((bits, place))

    def named(self, value, name):
        """Return a signal of this value."""
        return named(self.m, value, f"{self.name}_{name}")

    @property
    def height(self):
        """Bits of the fullest column."""
        return max(len(column) for column in self._columns)

    def compress(self, levels):
        """Do as many levels of adders, or fewer if two rows are left before; return the heap."""
        for _ in range(levels):
            if self.height <= 2:
                break
            self._one_level()
        return self

    def rows(self):
        """Compress to two rows, the constant included; return them as unsigned values."""
        constant, self._constant = self._constant % (1 << self.width), 0
        for weight in range(self.width):
            if constant >> weight & 1:
                self._columns[weight].append((Const(1, 1), 0))
        self.compress(self.height)
        return tuple(_word(column[row] if len(column) > row else (Const(0, 1), 0)
                           for column in self._columns) for row in range(2))

    def total(self):
        """Compress and add: the sum modulo 2**width, unsigned."""
        left, right = self.rows()
        return (left + right)[:self.width]

    def bits(self):
        """Return all bits as one value, for a register."""
        return _word(bit for column in self._columns for bit in column)

    def from_register(self, register):
        """Return a heap of the same heights and constant whose bits are those of `register`."""
        after = BitHeap(self.m, self.width, self.name)
        after._constant, after._level = self._constant, self._level
        start = 0
        for weight, column in enumerate(self._columns):
            after._columns[weight] = [(register, start + k) for k in range(len(column))]
            start += len(column)
        return after

    def _one_level(self):
        """Reduce every column by full adders, and by half adders where it must be lower."""
        target = dadda_below(self.height)
        threes, twos, rests = [], [], []
        following = [[] for _ in range(self.width)]
        carries = 0
        for weight, column in enumerate(self._columns):
            full = len(column) // 3
            height = len(column) - 2 * full + carries
            # A half adder takes two bits that no full adder took, and hands one up.
            half = int(height > target and len(column) % 3 == 2)
            threes += [(k, weight, *column[3 * k:3 * k + 3]) for k in range(full)]
            rest = column[3 * full:]
            if half:
                twos.append((full, weight, *rest))
                rest = []
            rests.append(rest)
            carries = full + half
        self._adders(threes, following, "")
        self._adders(twos, following, "half_")
        for column, rest in zip(following, rests, strict=True):
            column += rest
        self._columns = following
        self._level += 1

    def _adders(self, groups, following, kind):
        """Add groups (place in the column, weight, two or three bits), many of them in one vector.

        Groups at one place of neighbouring columns are neighbours in a vector: their bits mostly
        are so in the signals that they come from, and need not be listed one by one.
        """
        groups = sorted(groups, key=lambda group: group[:2])
        for start in range(0, len(groups), LONGEST_VECTOR):
            part = groups[start:start + LONGEST_VECTOR]
            prefix = f"{self._level}_{kind}{start // LONGEST_VECTOR}"
            a, b, *c = (_word(bits) for bits in list(zip(*part, strict=True))[2:])
            parity = self.named(a ^ b, f"{prefix}_parity")
            if c:
                total = self.named(parity ^ c[0], f"{prefix}_sum")
                carry = self.named((a & b) | (c[0] & parity), f"{prefix}_carry")
            else:
                total, carry = parity, self.named(a & b, f"{prefix}_carry")
            for index, (_, weight, *_) in enumerate(part):
                following[weight].append((total, index))
                if weight + 1 < self.width:
                    following[weight + 1].append((carry, index))


def _word(bits):
    """Value of some bits, each given as a value and a place in it: neighbours are one slice."""
    runs = []
    for value, place in bits:
        if runs and runs[-1][0] is value and runs[-1][2] == place:
            runs[-1][2] += 1
        else:
            runs.append([value, place, place + 1])
    return Cat(value[start:stop] for value, start, stop in runs)


def two_rows(m, values, width, name):
    """Two rows, unsigned, whose sum modulo 2**width is that of some values."""
    heap = BitHeap(m, width, name)
    for value in values:
        heap.add(value)
    return heap.rows()
