"""Zero-free lines back to beats of elements."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import chosen, element
from hwgen.lib.compaction import PrefixCounts, at_least, open_gaps, switches
from hwgen.lib.flow import Flow
from hwgen.units.stages import EXPAND


class Expander(wiring.Component):
    """Decompresses zero-free lines, a beat of elements a cycle.

    A beat is part of a line, or some lines side by side (`RowStorage`). The value for position x is
    the one whose place in its line is the number of non-zeros before x.

    1. The beat's part of the zero_mask.
    2. Its ones are counted, as far as `PrefixCounts` does it in one step.
    3. A running count of the line's ones tells the place of the beat's first value. Of each place
       modulo `parallel`, one value can belong to the beat: it is selected, which takes no shifter.
    4. The selected values.
    5. The same network as in compaction, backwards, brings each value to its position. All other
       elements are 0.

    Latency `EXPAND` from a zero_mask to its elements, initiation interval 1, no back-pressure.
    Values are needed later than the zero_mask, so that they wait in a memory, not in registers.

    Parameters
    ----------
    form : RowStorage, the lines and beats
    carried : shape of what travels with a beat

    Ports
    -----
    i : struct {valid, zero_mask: of the line or of the lines side by side, part: which beat of its
        line it is, end: the last beat taken from its line, carried}
    fetch : 1 in the cycle before the values of the next line, or lines, must be at `value`, where
        they stay until it is 1 again; for lines in the order of their zero_masks
    value : zero-free values of the line, or of the lines one after the other: signed(bits) each
    o : struct {valid, value: `parallel` × signed(bits), carried}, from registers
    """

    def __init__(self, form, carried):
        self.form = form
        bits = form.line.bits
        self._stored = form.ways * form.line.window
        super().__init__({
            "i": In(data.StructLayout({
                "valid": 1, "zero_mask": unsigned(self._stored), "part": range(form.line_beats),
                "end": 1, "carried": carried})),
            "fetch": Out(1),
            "value": In(data.ArrayLayout(signed(bits), self._stored)),
            "o": Out(data.StructLayout({
                "valid": 1, "value": data.ArrayLayout(signed(bits), form.parallel),
                "carried": carried})),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        form = self.form
        flow = Flow(m, self.i.valid, "expand")
        parts = [self.i.zero_mask[start:start + form.parallel]
                 for start in range(0, self._stored, form.parallel)]
        s = flow.stage(zero_mask=element(parts, self.i.part),
                       first=self.i.part == 0, end=self.i.end, carried=self.i.carried)

        size = min(form.parallel, form.line.window)
        counts = [PrefixCounts.of(m, list(s.zero_mask[start:start + size]), f"ones_{start}")
                  for start in range(0, form.parallel, size)]
        s = flow.stage(counts=[count.packed(size) for count in counts], zero_mask=s.zero_mask,
                       first=s.first, end=s.end, carried=s.carried)
        m.d.comb += self.fetch.eq(flow.valid & s.first)

        swap, selects = self._places(m, flow, s, size, counts)
        s = flow.stage(swap=swap, stay=~swap, selects=selects, zero_mask=s.zero_mask,
                       carried=s.carried)

        s = flow.stage(value=self._selected(s.selects, size), swap=s.swap, stay=s.stay,
                       zero_mask=s.zero_mask, carried=s.carried)

        opened, count = [], len(s.swap) // len(counts)
        for group, start in enumerate(range(0, form.parallel, size)):
            settings = [list(side[group * count:(group + 1) * count]) for side in (s.swap, s.stay)]
            opened += open_gaps(m, s.value[start:start + size], *settings, size, f"open_{start}")
        s = flow.stage(value=[value & marked.replicate(len(value))
                              for value, marked in zip(opened, s.zero_mask, strict=True)],
                       carried=s.carried)
        assert flow.latency == EXPAND
        m.d.comb += [self.o.valid.eq(flow.valid), self.o.carried.eq(s.carried)]
        m.d.comb += [self.o.value[k].eq(value) for k, value in enumerate(s.value)]
        return m

    def _places(self, m, flow, s, size, counts):
        """Switches of all networks, and for each place of a beat which of a line's values it gets.

        The latter is a bit for each beat that a line can have.
        """
        form = self.form
        before = Const(0, 1)
        if form.line_beats > 1:
            before = Signal(range(form.line.window + 1), name="before")
        settings = []
        for group, (count, packed) in enumerate(zip(counts, s.counts, strict=True)):
            ranks = count.unpacked(packed, size).added(m, before, f"rank_{group}")
            settings.append(switches(ranks, size))
        swap = Cat(settings)
        if form.line_beats == 1:
            return swap, []
        with m.If(flow.valid):
            m.d.sync += before.eq(Mux(s.end, 0, ranks[-1]))
        # Places before the line's place of the beat's first value have gone round.
        levels = (size - 1).bit_length()
        block, reached = before[levels:], at_least(size, before[:levels])
        selects = []
        for place in range(size):
            here = [(block == number) & reached[place] for number in range(form.line_beats)]
            after = [(block == number) & ~reached[place] for number in range(form.line_beats - 1)]
            selects.append(Cat(here[0], *(a | b for a, b in zip(here[1:], after, strict=True))))
        return swap, selects

    def _selected(self, selects, size):
        """The value for each place of the networks."""
        values = [value.as_unsigned() for value in self.value]
        if not selects:
            return values
        return [chosen(values[place::size], select) for place, select in enumerate(selects)]
