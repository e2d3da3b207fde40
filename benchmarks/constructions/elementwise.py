"""Plain lower bounds for the units that do little to each element."""

from functools import reduce

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from constructions.registers import Registers, noise

from hwgen.lib.arithmetic import shift_stochastic
from hwgen.lib.compaction import PrefixCounts, at_least, close_gaps, switches
from hwgen.units.pre_sparsity.rtl import GROUP, SIDES


class DynatranBound(wiring.Component):
    """A comparator and AND gates a value, and one register of what they give.

    With the least magnitude t that is kept, 1 if the threshold is 0, a value's place in the
    zero_mask is whether it is kept. |x| ≥ t is x > t − 1, or ¬x + 1 > t − 1 for a negative x: one
    carry chain, the sign its carry in. Left out: the stream, its second entry, `last`.

    Parameters
    ----------
    spec : DynatranSpec

    Ports
    -----
    value, valid_mask, threshold : as of dynatran
    pruned, zero_mask : in the cycle after
    """

    def __init__(self, spec):
        self.spec = spec
        values = data.ArrayLayout(signed(spec.bits), spec.parallel)
        super().__init__({
            "value": In(values), "valid_mask": In(spec.parallel), "threshold": In(spec.bits),
            "pruned": Out(values), "zero_mask": Out(spec.parallel)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        pipe, pruned, kept = Registers(m, "dynatran"), [], []
        below = Signal(self.spec.bits)
        m.d.comb += below.eq(self.threshold - self.threshold.any())
        for k, value in enumerate(self.value):
            value = value.as_unsigned()
            sign = value[-1]
            size = value ^ sign.replicate(len(value))
            total = Signal(len(value) + 2, name=f"total_{k}")
            m.d.comb += total.eq(Cat(sign, size) + Cat(sign, ~below))
            kept.append(self.valid_mask[k] & total[-1])
            pruned.append(value & kept[-1].replicate(len(value)))
        s = pipe.stage(pruned=pruned, zero_mask=Cat(kept))
        m.d.comb += [self.zero_mask.eq(s.zero_mask),
                     *(place.eq(value) for place, value in zip(self.pruned, s.pruned, strict=True))]
        self.latency = pipe.latency
        return m


class PostSparsityBound(wiring.Component):
    """A word of values and one of the mask, each once, and what writes one place of each.

    Left out: the counters of places, the second register of each word that lets one leave while
    the next is collected, streams, the ends of tiles.

    Parameters
    ----------
    spec : PostSparsitySpec

    Ports
    -----
    value : of this cycle
    place : where it goes if it is not zero
    mask_place : where its bit goes
    word, zero_mask : the registers
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({
            "value": In(signed(spec.bits)), "place": In(range(spec.word)),
            "mask_place": In(range(spec.mask_word)),
            "word": Out(data.ArrayLayout(signed(spec.bits), spec.word)),
            "zero_mask": Out(spec.mask_word)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        nonzero = Signal()
        m.d.comb += nonzero.eq(self.value.any())
        for k in range(self.spec.word):
            register = Signal(signed(self.spec.bits), name=f"word_{k}", reset_less=True)
            m.d.comb += self.word[k].eq(register)
            with m.If(nonzero & (self.place == k)):
                m.d.sync += register.eq(self.value)
        bits = [Signal(name=f"mask_{k}", reset_less=True) for k in range(self.spec.mask_word)]
        for k, bit in enumerate(bits):
            with m.If(self.mask_place == k):
                m.d.sync += bit.eq(nonzero)
        m.d.comb += self.zero_mask.eq(Cat(bits))
        self.latency = 1
        return m


class FifoBound(wiring.Component):
    """The bits of a FIFO's entries as registers alone: a delay of `depth` cycles.

    Left out: whatever lets an entry wait or be chosen.

    Parameters
    ----------
    spec : FifoSpec

    Ports
    -----
    i : an entry a cycle
    o : the one of `depth` cycles ago
    """

    def __init__(self, spec):
        self.spec = spec
        super().__init__({"i": In(spec.bits), "o": Out(spec.bits)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        pipe, entry = Registers(m, "fifo"), self.i
        for _ in range(self.spec.depth):
            entry = pipe.stage(entry=entry).entry
        m.d.comb += self.o.eq(entry)
        self.latency = pipe.latency
        return m


class StochasticRoundingBound(wiring.Component):
    """Shifter, noise, adder, saturation and one register of the result.

    Left out: the stream, tiles and their seeds, the register of the shift and, of the unit's three
    stages, `last` and the noise that waits in them.

    Parameters
    ----------
    spec : StochasticRoundingSpec
    cuts : which of the shifter's two stages are registers, too

    Ports
    -----
    value, shift : as of stochastic_rounding
    load, seed : whether the noise begins at `seed` in the next cycle; it leaps in any other
    noise : what is added to the value of this cycle
    rounded : `latency` cycles after
    """

    def __init__(self, spec, cuts=()):
        self.spec = spec
        self._cuts = cuts
        super().__init__({
            "value": In(signed(spec.accumulator_bits)), "shift": In(range(spec.accumulator_bits)),
            "load": In(1), "seed": In(spec.noise_bits), "noise": Out(spec.noise_bits),
            "rounded": Out(signed(spec.bits))})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        state = noise(m, self.load, self.seed)
        pipe = Registers(m, "round", (*self._cuts, 2))
        value, _ = shift_stochastic(pipe, self.value, self.shift, self.spec.bits, state)
        s = pipe.stage(rounded=value)
        m.d.comb += [self.noise.eq(state), self.rounded.eq(s.rounded)]
        self.latency = pipe.latency
        return m


class ResidualAddBound(wiring.Component):
    """Two shifters, an adder, rounding and saturation an element, and the register of the sum.

    Left out: addends whose exponent is above the sum's, which take a shifter to the left behind the
    adder and the choice of a grid; the arithmetic of exponents, streams, masks.

    Parameters
    ----------
    spec : ResidualAddSpec
    cuts : which of 0 (both addends on one grid) and 1 (their sum) are registers, too

    Ports
    -----
    a, b : addends
    a_shift, b_shift : by how much an addend's exponent is below the sum's, at most 2·bits + 1
    o : their sum, rounded once, ties to even, `latency` cycles after
    """

    def __init__(self, spec, cuts=()):
        self.spec = spec
        self._cuts = cuts
        values = data.ArrayLayout(signed(spec.bits), spec.parallel)
        shift = In(range(2 * spec.bits + 2))
        super().__init__({"a": In(values), "b": In(values), "a_shift": shift, "b_shift": shift,
                          "o": Out(values)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        bits = self.spec.bits
        pipe = Registers(m, "add", (*self._cuts, 2))
        # What falls out of `bits` + 1 places below the unit is less than an eighth: a sticky bit.
        lost = {}
        for side in ("a", "b"):
            shift = getattr(self, f"{side}_shift")
            lost[side] = Signal(bits, name=f"{side}_lost")
            m.d.comb += lost[side].eq(Cat(shift > bits + 1 + k for k in range(bits)))
        grid = {side: [self._shifted(value, getattr(self, f"{side}_shift"), lost[side])
                       for value in getattr(self, side)] for side in ("a", "b")}
        s = pipe.stage(**grid)
        s = pipe.stage(total=[a + b for a, b in zip(s.a, s.b, strict=True)])
        s = pipe.stage(o=[self._rounded(total) for total in s.total])
        m.d.comb += [place.eq(value) for place, value in zip(self.o, s.o, strict=True)]
        self.latency = pipe.latency
        return m

    def _shifted(self, value, shift, lost):
        """Value shifted right, `bits` + 1 places below the unit, the last of which is sticky."""
        wide = Cat(Const(0, self.spec.bits + 1), value).as_signed() >> shift
        return Cat(wide[0] | (value & lost).any(), wide[1:]).as_signed()

    def _rounded(self, total):
        """The sum cut to whole units, ties to even, saturated."""
        bits = self.spec.bits
        below, value = total[:bits + 1], total[bits + 1:].as_signed()
        up = below[-1] & (below[:-1].any() | value[0])
        negative, near = value[-1], value[:bits]
        # The largest number is too large already: rounded up or not, it stays what it is.
        beyond = Mux(negative, ~value[bits - 1], value[bits - 1] | near[:-1].all())
        limit = Cat((~negative).replicate(bits - 1), negative)
        return Mux(beyond, limit, (near + up)[:bits]).as_signed()


class PreSparsityBound(wiring.Component):
    """The AND of two masks, prefix counts, a network of switches an operand, the FIFO's registers.

    Left out: the places of values in zero-free form, for which pre_sparsity counts each mask and
    compacts the AND by it (here every position has its value); places of the FIFO that an earlier
    window has filled, what keeps or moves a row of it, the count of its rows, streams, the ends of
    dot products.

    Parameters
    ----------
    spec : PreSparsitySpec

    Ports
    -----
    left_mask, right_mask : which values of a window are not zero
    left, right : the window's values, `MASK_STAGES` cycles after the masks
    row : which `macs` of the window's pairs are taken, with the values
    o_left, o_right : what the FIFO holds longest, fifo_depth / macs cycles later
    """

    MASK_STAGES = 2

    def __init__(self, spec):
        self.spec = spec
        window = data.ArrayLayout(signed(spec.bits), spec.window)
        pairs = data.ArrayLayout(signed(spec.bits), spec.macs)
        super().__init__({
            "left_mask": In(spec.window), "right_mask": In(spec.window),
            "left": In(window), "right": In(window),
            "row": In(unsigned(max(1, (spec.window // spec.macs - 1).bit_length()))),
            "o_left": Out(pairs), "o_right": Out(pairs)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, group = self.spec, min(GROUP, self.spec.macs)
        pipe = Registers(m, "pairs")
        counts = PrefixCounts.of(m, list(self.left_mask & self.right_mask), "pairs")
        s = pipe.stage(counts=counts.packed(group))
        slots = counts.unpacked(s.counts, group).added(m, Const(0, 1), "slots")
        s = pipe.stage(swap=switches(slots, group),
                       borders=[slots[first] for first in range(group, spec.window + 1, group)])
        columns = spec.macs.bit_length() - 1
        # Whether a place of the wanted row is at or behind the first pair of each group.
        reached = [Const(-1, spec.macs)]
        for number, border in enumerate(s.borders):
            reached.append(Signal(spec.macs, name=f"reached_{number}"))
            own = border[columns:]
            m.d.comb += reached[-1].eq(
                (self.row > own).replicate(spec.macs)
                | ((self.row == own).replicate(spec.macs)
                   & Cat(at_least(spec.macs, border[:columns]))))
        chosen = [Signal(spec.macs, name=f"chosen_{k}") for k in range(len(s.borders))]
        m.d.comb += [one.eq(first & ~following) for one, first, following
                     in zip(chosen, reached, reached[1:], strict=False)]
        fifo = Registers(m, "fifo")
        for side in SIDES:
            placed = close_gaps(m, [value.as_unsigned() for value in getattr(self, side)],
                                list(s.swap), list(~s.swap), group, side)
            entries = [reduce(lambda one, other: one | other, (
                placed[number * group + k % group] & one[k].replicate(spec.bits)
                for number, one in enumerate(chosen))) for k in range(spec.macs)]
            for _ in range(spec.fifo_depth // spec.macs):
                entries = fifo.stage(**{side: entries})
                entries = getattr(entries, side)
            m.d.comb += [place.eq(entry) for place, entry
                         in zip(getattr(self, f"o_{side}"), entries, strict=True)]
        # From the values on.
        self.latency = spec.fifo_depth // spec.macs
        return m
