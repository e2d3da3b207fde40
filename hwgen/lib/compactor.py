"""Beats of elements to zero-free pieces."""

from amaranth.hdl import Cat, Const, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.compaction import PrefixCounts, close_gaps, switches
from hwgen.lib.flow import Flow
from hwgen.units.stages import COMPACT


class Compactor(wiring.Component):
    """Brings the values of each piece of a beat together, in order, from its first place on.

    The elements that the zero_mask does not mark must be 0; they come to the places that are left.
    Latency `COMPACT`, initiation interval 1, no back-pressure.

    Parameters
    ----------
    form : RowStorage, the beats and pieces

    Ports
    -----
    i : struct {valid, value: `parallel` × signed(bits), zero_mask: a bit an element, last}
    o : struct {valid, value: the pieces one after the other, zero-free, zero_mask and last of `i`},
        from registers
    """

    def __init__(self, form):
        self.form = form
        beat = data.StructLayout({
            "valid": 1, "value": data.ArrayLayout(signed(form.line.bits), form.parallel),
            "zero_mask": unsigned(form.parallel), "last": 1})
        super().__init__({"i": In(beat), "o": Out(beat)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        piece = self.form.line.piece
        pieces = range(0, self.form.parallel, piece)
        flow = Flow(m, self.i.valid, "compact")
        swap = Signal(self.form.parallel // 2 * (piece - 1).bit_length())
        m.d.comb += swap.eq(Cat(
            switches(PrefixCounts.of(m, list(self.i.zero_mask[start:start + piece]),
                                     f"ones_{start}").added(m, Const(0, 1), f"rank_{start}"), piece)
            for start in pieces))
        s = flow.stage(swap=swap, stay=~swap, value=[value.as_unsigned() for value in self.i.value],
                       zero_mask=self.i.zero_mask, last=self.i.last)
        closed, count = [], len(swap) // len(pieces)
        for number, start in enumerate(pieces):
            settings = [list(side[number * count:(number + 1) * count])
                        for side in (s.swap, s.stay)]
            closed += close_gaps(m, s.value[start:start + piece], *settings, piece,
                                 f"closed_{start}")
        s = flow.stage(value=closed, zero_mask=s.zero_mask, last=s.last)
        assert flow.latency == COMPACT
        m.d.comb += [self.o.valid.eq(flow.valid), self.o.zero_mask.eq(s.zero_mask),
                     self.o.last.eq(s.last)]
        m.d.comb += [self.o.value[k].eq(value) for k, value in enumerate(s.value)]
        return m
