"""Sums of many bits by carry-save adders, one carry-propagate adder at the end."""

from amaranth.hdl import Cat, Const, Signal, Value

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
        self._m = m
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
        bits = list(value)
        if value.shape().signed:
            # -s·2^p = (1 - s)·2^p - 2^p: no copies of the sign above it.
            bits[-1] = ~bits[-1]
            self._constant -= 1 << (shift + len(bits) - 1)
        self.add_bits(bits, shift)

    def add_bits(self, bits, shift):
        """Add single bits of weight 2**shift, 2**(shift + 1), …"""
        for weight, bit in enumerate(bits, shift):
            if weight < self.width:
                self._columns[weight].append(bit)

    def named(self, value, name):
        """Return a signal of this value: an expression would be written out for every bit."""
        signal = Signal(Value.cast(value).shape(), name=f"{self.name}_{name}")
        self._m.d.comb += signal.eq(value)
        return signal

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
                self._columns[weight].append(Const(1, 1))
        self.compress(self.height)
        return tuple(Cat(column[row] if len(column) > row else Const(0, 1)
                         for column in self._columns) for row in range(2))

    def bits(self):
        """Return all bits as one value, for a register."""
        return Cat(bit for column in self._columns for bit in column)

    def from_register(self, register):
        """Return a heap of the same heights and constant whose bits are those of `register`."""
        after = BitHeap(self._m, self.width, self.name)
        after._constant, after._level = self._constant, self._level
        start = 0
        for weight, column in enumerate(self._columns):
            after._columns[weight] = list(register[start:start + len(column)])
            start += len(column)
        return after

    def _one_level(self):
        """Reduce every column by full adders, and by half adders where it must be lower."""
        target = dadda_below(self.height)
        threes, twos = [], []
        following = [[] for _ in range(self.width)]
        carries = 0
        for weight, column in enumerate(self._columns):
            full = len(column) // 3
            height = len(column) - 2 * full + carries
            # A half adder takes two bits that no full adder took, and hands one up.
            half = int(height > target and len(column) % 3 == 2)
            threes += [(weight, *column[3 * k:3 * k + 3]) for k in range(full)]
            rest = column[3 * full:]
            if half:
                twos.append((weight, *rest))
                rest = []
            following[weight] += rest
            carries = full + half
        self._adders(threes, following, 3)
        self._adders(twos, following, 2)
        self._columns = following
        self._level += 1

    def _adders(self, groups, following, inputs):
        """Add groups of two or three bits, many of them in one vector."""
        for start in range(0, len(groups), LONGEST_VECTOR):
            part = groups[start:start + LONGEST_VECTOR]
            kind = "half" if inputs == 2 else "full"
            prefix = f"{self.name}_{self._level}_{kind}_{start // LONGEST_VECTOR}"
            ports = [Signal(len(part), name=f"{prefix}_{port}") for port in "abc"[:inputs]]
            for port, signal in enumerate(ports, 1):
                self._m.d.comb += signal.eq(Cat(group[port] for group in part))
            a, b, *c = ports
            parity = self.named(a ^ b, f"{self._level}_parity")
            if c:
                total = self.named(parity ^ c[0], f"{self._level}_sum")
                carry = self.named((a & b) | (c[0] & parity), f"{self._level}_carry")
            else:
                total, carry = parity, self.named(a & b, f"{self._level}_carry")
            for index, (weight, *_) in enumerate(part):
                following[weight].append(total[index])
                if weight + 1 < self.width:
                    following[weight + 1].append(carry[index])
