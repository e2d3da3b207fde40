"""Effectual pairs of two zero-free operands, up to `macs` a cycle."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.compaction import PrefixCounts, at_least, close_gaps, switches
from hwgen.lib.pipeline import Pipeline
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

SIDES = ("left", "right")

GROUP = 16
"""Values that one network of switches places, where a beat has as many."""


class PreSparsity(wiring.Component):
    """Gathers the pairs of a dot product of which neither element is zero.

    An aligned window of `window` positions comes zero-free, in one beat of values from each
    operand; its zero_masks come on streams of their own and are taken four cycles ahead, so that
    values wait for nothing and need no registers but the FIFO's. `last` marks the last window of a
    dot product and is the same on both masks.

    1. Both zero_masks are counted, and ANDed.
    2. Each operand's value is kept if the other has one at its position: the AND, compacted by the
       operand's own zero_mask, says which, and no value need be decompressed.
    3. The kept values are counted.
    4. The n-th pair of a dot product belongs to column n modulo `macs`: the settings of the
       switches that bring each group's values to their columns, and the borders of the groups.
    5. The FIFO: rows of `macs` pairs, `fifo_depth` pairs in all. Each column of each row takes, of
       the groups' values for that column, the one that belongs to the row.

    Each cycle, the FIFO first issues and then takes. It issues `macs` pairs when it holds as many,
    or what is left when it holds the end of the dot product; unused places are zero. It takes as
    many of the window's pairs as there is room for, if no end of another dot product is left; the
    window's values are accepted with the last of them. A dot product is its pairs, `macs` a beat;
    the last of these beats is `last`, unless the last window had no pairs and those before it fill
    whole beats: these may have left before the end came, and never wait for it, so that an empty
    last beat follows. Beats depend on the operands alone, never on stalls.

    A dot product takes `cost.periods` cycles; the latency beyond their sum is `cost.latency`.
    Outputs come from registers; `o.ready` goes combinationally to `ready` of the inputs.

    Parameters
    ----------
    spec : pairs a beat, width of a value, positions of a window, pairs in the FIFO
    group : values that one network of switches places, a power of two up to `macs`; 1 makes a full
        gather, in which each place of the FIFO chooses among all values of a window. It changes the
        area alone

    Ports
    -----
    i_left_mask, i_right_mask : windows of the operand: the zero_mask of all positions, and whether
        the dot product ends (last)
    i_left, i_right : zero-free values of a window, from place 0 on
    o : effectual pairs, in order, and whether the dot product ends (last)
    """

    def __init__(self, spec: PreSparsitySpec, group: int = GROUP):
        self.spec = spec
        self.group = min(group, spec.macs)
        mask = stream.Signature(data.StructLayout({
            "zero_mask": unsigned(spec.window), "last": 1}))
        window = stream.Signature(data.StructLayout({
            "value": data.ArrayLayout(signed(spec.bits), spec.window)}))
        pairs = data.ArrayLayout(signed(spec.bits), spec.macs)
        super().__init__({
            "i_left_mask": In(mask), "i_right_mask": In(mask),
            "i_left": In(window), "i_right": In(window),
            "o": Out(stream.Signature(data.StructLayout({
                "left": pairs, "right": pairs, "last": 1}))),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        pipe = Pipeline(m, self._join(m), group=5, name="masks")
        window = self._place(m, pipe, self.kept(m, pipe))
        wanted, stay, move = self._rows(m, pipe, window)
        for side in SIDES:
            self._store(m, side, window, wanted, stay, move)
        return m

    def _join(self, m):
        """Make one stream of the two zero_masks."""
        joined = stream.Signature(0).create(path=["joined"])
        left, right = self.i_left_mask, self.i_right_mask
        m.d.comb += [
            joined.valid.eq(left.valid & right.valid),
            left.ready.eq(joined.ready & right.valid),
            right.ready.eq(joined.ready & left.valid),
        ]
        return joined

    def kept(self, m, pipe):
        """Which of each operand's values have a partner: a stage of a bit a value, and `last`."""
        spec = self.spec
        own = {side: getattr(self, f"i_{side}_mask").p.zero_mask for side in SIDES}
        counts = {side: PrefixCounts.of(m, list(own[side]), f"{side}_nonzeros") for side in SIDES}
        s = pipe.stage(both=own["left"] & own["right"], last=self.i_left_mask.p.last,
                       **{side: counts[side].packed(spec.window) for side in SIDES})
        kept = {}
        for side in SIDES:
            counted = counts[side].unpacked(getattr(s, side), spec.window)
            before = counted.added(m, Const(0, 1), f"{side}_rank")
            swap = Signal(spec.window // 2 * _log2(spec.window), name=f"{side}_mask_swap")
            m.d.comb += swap.eq(switches(before, spec.window))
            # Behind the last value are the positions without one, which have no pair.
            kept[side] = Cat(close_gaps(m, list(s.both), list(swap), list(~swap), spec.window,
                                        f"{side}_kept"))
        return pipe.stage(last=s.last, **kept)

    def _place(self, m, pipe, s):
        """Where each kept value goes."""
        spec, columns = self.spec, _log2(self.spec.macs)
        counts = {side: PrefixCounts.of(m, list(getattr(s, side)), f"{side}_pairs")
                  for side in SIDES}
        s = pipe.stage(last=s.last,
                       **{side: counts[side].packed(self.group) for side in SIDES})
        start = Signal(columns)
        fields = {}
        for side in SIDES:
            counted = counts[side].unpacked(getattr(s, side), self.group)
            slots = counted.added(m, start, f"{side}_slots")
            swap = Signal(spec.window // 2 * _log2(self.group), name=f"{side}_swap")
            m.d.comb += swap.eq(switches(slots, self.group))
            # Both polarities are registers, which lets a switch be AND-OR-invert gates.
            fields |= {f"{side}_swap": swap, f"{side}_keep": ~swap}
            for number in range(1, spec.window // self.group):
                fields[f"{side}_border_{number}"] = slots[number * self.group]
        end = Signal(range(spec.window + spec.macs))
        m.d.comb += end.eq(slots[spec.window])
        with m.If(pipe.advance):
            m.d.sync += start.eq(Mux(s.last, 0, end))
        rest = end[:columns] != 0
        # The end makes a row of its own of what is left, or an empty one.
        tail = s.last & (rest | (slots[spec.window] == 0))
        return pipe.stage(start=start, end=end, rest=rest, tail=tail, last=s.last, **fields)

    def _rows(self, m, pipe, window):
        """The FIFO's rows: which row of the window each takes, keeps its own, takes the next one's.

        A row of the window is what goes into one row of the FIFO; the first may have begun.
        """
        spec, o = self.spec, self.o
        count, most = spec.fifo_depth // spec.macs, _most_rows(spec)
        complete = window.end[_log2(spec.macs):]
        rows, begun, end_in = Signal(range(count + 2)), Signal(), Signal()
        taken, left_over = Signal(range(most + 1)), Signal(range(count + 2))
        issue, closes, open_, fits = Signal(), Signal(), Signal(), Signal()
        take, done = Signal(), Signal()
        m.d.comb += [
            o.valid.eq(rows != 0),
            o.p.last.eq(end_in & (rows == 1)),
            issue.eq(o.valid & o.ready),
            closes.eq(issue & o.p.last),
            left_over.eq(rows - issue),
            open_.eq(pipe.valid & (~end_in | closes)),
            fits.eq(complete + window.rest + left_over <= count + taken),
            take.eq(open_ & self.i_left.valid & self.i_right.valid),
            done.eq(take & fits),
            self.i_left.ready.eq(open_ & fits & self.i_right.valid),
            self.i_right.ready.eq(open_ & fits & self.i_left.valid),
        ]
        pipe.hold(done)
        m.d.sync += rows.eq(left_over)
        with m.If(closes):
            m.d.sync += end_in.eq(0)
        with m.If(done):
            m.d.sync += [rows.eq(left_over + complete - taken + window.tail), taken.eq(0),
                         begun.eq(window.rest & ~window.last), end_in.eq(window.last)]
        with m.Elif(take):
            m.d.sync += [rows.eq(count), begun.eq(0), taken.eq(taken + count - left_over)]
        wanted = [Signal(most, name=f"wanted_{row}") for row in range(count)]
        for row, one in enumerate(wanted):
            m.d.comb += one.eq(Cat(take & (left_over <= row)
                                   & (taken + row == number + left_over)
                                   for number in range(most)))
        # A place that nothing has come to is zero, whatever stood in its row before.
        used = [(rows > row) | ((rows == row) & begun) for row in range(count)]
        return wanted, [one & ~issue for one in used], [one & issue for one in used[1:]]

    def _store(self, m, side, window, wanted, stay, move):
        """An operand's values in the FIFO's rows."""
        spec, bits = self.spec, self.spec.bits
        count = len(wanted)
        beat = getattr(self, f"i_{side}").p.value
        columns = close_gaps(
            m, [Value.cast(beat[k]) for k in range(spec.window)],
            list(getattr(window, f"{side}_swap")), list(getattr(window, f"{side}_keep")),
            self.group, f"{side}_column")
        borders = [window.start,
                   *(getattr(window, f"{side}_border_{number}")
                     for number in range(1, spec.window // self.group)), window.end]
        store = [[Signal(bits, name=f"{side}_{row}_{k}", reset_less=True)
                  for k in range(spec.macs)] for row in range(count)]
        for row in range(count):
            reached = [self._reached(m, border, wanted[row], f"{side}_{row}_{number}")
                       for number, border in enumerate(borders)]
            chosen = [Signal(spec.macs, name=f"{side}_{row}_{number}_chosen")
                      for number in range(len(reached) - 1)]
            m.d.comb += [one.eq(first & ~following) for one, first, following
                         in zip(chosen, reached, reached[1:], strict=False)]
            for k in range(spec.macs):
                terms = [store[row][k] & stay[row].replicate(bits)]
                if row + 1 < count:
                    terms.append(store[row + 1][k] & move[row].replicate(bits))
                terms += [columns[number * self.group + k % self.group] & one[k].replicate(bits)
                          for number, one in enumerate(chosen)]
                m.d.sync += store[row][k].eq(reduce(or_, terms))
        m.d.comb += [getattr(self.o.p, side)[k].eq(store[0][k]) for k in range(spec.macs)]

    def _reached(self, m, border, wanted, name):
        """Which columns of the wanted row of the window begin at `border` or after it."""
        macs, columns = self.spec.macs, _log2(self.spec.macs)
        row = border[columns:]
        here, later = Signal(name=f"{name}_here"), Signal(name=f"{name}_later")
        reached = Signal(macs, name=f"{name}_reached")
        m.d.comb += [
            here.eq(reduce(or_, (one & (row == k) for k, one in enumerate(wanted)))),
            later.eq(reduce(or_, (one & (row < k) for k, one in enumerate(wanted) if k), 0)),
            reached.eq(later.replicate(macs)
                       | (here.replicate(macs) & Cat(at_least(macs, border[:columns])))),
        ]
        return reached


def _log2(number):
    """Logarithm of a power of two."""
    return number.bit_length() - 1


def _most_rows(spec):
    """Rows that a window's pairs go to, at most: `macs` − 1 pairs are in the first already."""
    return -(-(spec.window + spec.macs - 1) // spec.macs)
