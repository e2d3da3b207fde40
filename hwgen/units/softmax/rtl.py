"""Softmax module."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import named
from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.flow import Flow, Queue, room
from hwgen.lib.truncated import add_truncated
from hwgen.units.softmax import cost
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import (
    COLUMNS,
    EXTRA,
    SHIFT_MAXIMUM,
    TOP,
    WHOLE,
    Format,
    reciprocal,
    whole_table,
)


class Softmax(wiring.Component):
    """Softmax of rows, in three passes that work on different rows at once.

    Pass 1 stores the row and finds its maximum, pass 2 computes exponentials and their sum and
    stores the exponentials, pass 3 multiplies them by the sum's reciprocal. The first two are
    pipelines that never stall; a beat enters one when there is room for it in the queue at its
    end. The row queues hold the longest row and what arrives while a row's maximum or reciprocal
    is under way, and there is room for as many maxima and reciprocals as for beats. The three
    registers of pass 3 have one enable, and stand still while the sink does not take what is there.

    Latency: `cost.cycles` for a row from reset. Interval 1: with a ready sink, `i.ready` never
    falls, whatever the lengths of the rows. `i.ready`, `o.valid` and `o.payload` come from
    registers; `o.ready` reaches the enable of pass 3 and what reads its queues. Under
    back-pressure the queues fill, last the row queue at the input.

    A row must have at least one beat and at most `max_row` valid elements and ⌈max_row/parallel⌉
    beats; a longer one would never come out. `i_exponent` is constant while a row is in the module.

    Ports
    -----
    i : scores of a row, which of them are real positions (valid_mask), and the row's end (last)
    i_exponent : exponent of the scores
    o : probabilities with exponent −(bits − 1), 0 where a position is not real, and the row's end
    """

    def __init__(self, spec: SoftmaxSpec):
        self._spec = spec
        self._format = Format.of(spec)
        values = data.ArrayLayout(signed(spec.bits), spec.parallel)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "value": values, "valid_mask": unsigned(spec.parallel), "last": unsigned(1),
            }))),
            "i_exponent": In(signed(8)),
            "o": Out(stream.Signature(data.StructLayout({"value": values, "last": unsigned(1)}))),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, form = self._spec, self._format
        lane = range(spec.parallel)

        depth = {name: entries for name, (entries, _) in cost.queues(spec).items()}
        m.submodules.rows = rows = Queue(self.i.payload.shape(), depth["rows"])
        m.submodules.maxima = maxima = Queue(signed(spec.bits), depth["maxima"])
        m.submodules.terms = terms = Queue(data.StructLayout({
            "value": data.ArrayLayout(form.kept + 1, spec.parallel), "last": 1}), depth["terms"])
        m.submodules.inverses = inverses = Queue(unsigned(form.inverse), depth["inverses"])

        # Pass 1: a beat is stored in the cycle in which it is taken.
        take = Signal()
        m.d.comb += [
            self.i.ready.eq(room(m, rows, take, "rows")),
            take.eq(self.i.valid & self.i.ready),
            rows.write.eq(take),
            rows.w_data.eq(self.i.payload),
        ]
        best, last_one = self._maximum(m, Flow(m, take, "maximum"))
        m.d.comb += [maxima.write.eq(last_one), maxima.w_data.eq(best)]

        # Pass 2: a maximum is there once its row is stored completely.
        compute = Signal()
        beat = rows.r_data
        m.d.comb += [
            compute.eq(rows.ready & maxima.ready & room(m, terms, compute, "terms")),
            rows.read.eq(compute),
            maxima.read.eq(compute & beat.last),
        ]
        flow = Flow(m, compute, "exponential")
        s = self._exponential(m, flow, [maxima.r_data - beat.value[i] for i in lane],
                              valid_mask=beat.valid_mask, last=beat.last)
        cut = form.fraction + form.growth - form.kept
        m.d.comb += [terms.write.eq(flow.valid), terms.w_data.last.eq(s.last)]
        shifted = [named(m, Cat(Const(0, form.growth), s.mantissa[i]) >> s.whole[i], "term")
                   for i in lane]
        m.d.comb += [terms.w_data.value[i].eq(shifted[i] >> cut) for i in lane]
        mantissa, power = self._row_sum(m, flow, shifted, s.valid_mask, s.last)
        m.d.comb += inverses.w_data.eq(self._inverse(m, flow, mantissa, power))
        m.d.comb += inverses.write.eq(flow.valid)

        # Pass 3: it stands still while the sink does.
        advance, normalise = Signal(), Signal()
        m.d.comb += [
            advance.eq(self.o.ready | ~self.o.valid),
            normalise.eq(terms.ready & inverses.ready & advance),
            terms.read.eq(normalise),
            inverses.read.eq(normalise & terms.r_data.last),
        ]
        flow = Flow(m, terms.ready & inverses.ready, "normalise", advance)
        s = self._product(m, flow, terms.r_data, inverses.r_data)
        m.d.comb += [self.o.valid.eq(flow.valid), self.o.p.last.eq(s.last)]
        m.d.comb += [self.o.p.value[i].eq(s.value[i]) for i in lane]
        return m

    def _maximum(self, m, flow):
        """Largest valid element of a row, and whether it is there."""
        bits = self._spec.bits
        lowest = Const(-(1 << (bits - 1)), signed(bits))
        beat = self.i.payload
        values, last = [Mux(beat.valid_mask[i], beat.value[i], lowest)
                        for i in range(self._spec.parallel)], beat.last
        while len(values) > 1:
            for _ in range(2 if len(values) > 2 else 1):
                values = [named(m, Mux(a > b, a, b), "larger")
                          for a, b in zip(values[::2], values[1::2], strict=True)]
            s = flow.stage(value=values, last=last)
            values, last = s.value, s.last
        so_far = Signal(signed(bits), init=-(1 << (bits - 1)))
        best = named(m, Mux(values[0] > so_far, values[0], so_far), "best")
        with m.If(flow.valid):
            m.d.sync += so_far.eq(Mux(last, lowest, best))
        s = flow.stage(keep=last, best=best)
        return s.best, flow.valid

    def _exponential(self, m, flow, distances, **carried):
        """exp(−distance · 2^i_exponent), fraction + growth bits after the point; 0 if invalid."""
        form, lane = self._format, range(self._spec.parallel)
        bits, fraction = self._spec.bits, form.fraction
        shift = Signal(range(SHIFT_MAXIMUM + 1))
        wanted = Signal(signed(10))
        m.d.comb += wanted.eq(WHOLE - self.i_exponent)
        m.d.sync += shift.eq(
            Mux(wanted < 0, 0, Mux(wanted > SHIFT_MAXIMUM, SHIFT_MAXIMUM, wanted)))
        fine, coarse = shift[:3], shift[3:]
        s = flow.stage(aligned=[Cat(Const(0, 7), distance[:bits]) >> fine
                                for distance in distances], **carried)

        # t has WHOLE bits before and `fraction` after the point.
        scaled = [named(m, Cat(Const(0, fraction + WHOLE - 7), aligned)
                         >> Cat(Const(0, 3), coarse), "scaled") for aligned in s.aligned]
        top = fraction + WHOLE
        whole = _look_up(m, whole_table(), [value[fraction - TOP:top] for value in scaled],
                         "whole_table")
        multiple = _look_up(m, form.ln2, [value[:form.whole_bits] for value in whole], "ln2_table")
        rest = [(scaled[i][:fraction] - multiple[i])[:fraction] for i in lane]
        # Where there is no element, and from e^−32 on, everything is shifted out.
        s = flow.stage(
            rest=rest, last=s.last, valid_mask=s.valid_mask,
            whole=[Mux(s.valid_mask[i] & ~scaled[i][top:].any(), whole[i], -1)[:len(whole[i])]
                   for i in lane])

        # v is the offset less half a segment, u = v − v²/2.
        offsets = [rest[:form.offset_bits] for rest in s.rest]
        squares = _look_up(m, form.squares, [
            (offset[:-1] ^ (~offset[-1]).replicate(len(offset) - 1))[-form.square_bits:]
            for offset in offsets], "square_table")
        s = flow.stage(
            centre=_look_up(m, form.centres, [rest[form.offset_bits:] for rest in s.rest],
                            "exponential_table"),
            slope=[(Cat(offset[:-1], ~offset[-1]).as_signed() - square)
                   [:form.offset_bits + 1].as_signed()
                   for offset, square in zip(offsets, squares, strict=True)],
            whole=s.whole, valid_mask=s.valid_mask, last=s.last)
        return flow.stage(
            mantissa=[self._scaled(m, s.centre[i], s.slope[i]) for i in lane],
            whole=s.whole, valid_mask=s.valid_mask, last=s.last)

    def _scaled(self, m, centre, slope):
        """centre·(1 − slope)."""
        form = self._format
        heap = BitHeap(m, form.fraction + EXTRA + 1, "mantissa")
        heap.add(centre, EXTRA)
        heap.add(form.product_offset)
        add_truncated(heap, centre, slope, form.fraction - EXTRA, subtract=True)
        return sum(heap.rows())[EXTRA:form.fraction + EXTRA + 1]

    def _row_sum(self, m, flow, terms, valid_mask, last):
        """Sum of a row's terms over 2^power in [1, 2), and that power."""
        form = self._format
        # A sum is at most max_row: no more bits than these are ever used.
        one = form.fraction + form.growth + 1
        width = one + form.growth + 1
        terms = [Cat(valid, term) for valid, term in zip(valid_mask, terms, strict=True)]
        for _ in range(cost.sum_stages(self._spec.parallel)):
            rows = []
            for start in range(0, len(terms), 16):
                heap = BitHeap(m, width, f"sum_{len(terms)}_{start}")
                for term in terms[start:start + 16]:
                    heap.add(term)
                rows += heap.rows()
            s = flow.stage(terms=rows, last=last)
            terms, last = s.terms, s.last
        so_far = Signal(width)
        total = (so_far + sum(terms[1:], terms[0]))[:width]
        with m.If(flow.valid):
            m.d.sync += so_far.eq(Mux(last, 0, total))
        s = flow.stage(keep=last, total=total)
        power = Signal(range(form.growth + 1))
        for level in range(1, form.growth + 1):
            with m.If(s.total[one + level]):
                m.d.comb += power.eq(level)
        s = flow.stage(total=s.total, power=power)
        below = max(form.inverse - one, 0)
        mantissa = (Cat(Const(0, below), s.total) >> s.power)[one + below - form.inverse:]
        s = flow.stage(mantissa=mantissa[:form.inverse], power=s.power)
        return s.mantissa, s.power

    def _inverse(self, m, flow, mantissa, power):
        """Reciprocal of 1 + mantissa, below 1, over 2^power."""
        form = reciprocal(self._format.inverse)
        bits, centre_bits = form.bits, form.centre_bits
        centre, = _look_up(m, form.centres, [mantissa[bits - form.index_bits:]],
                           "reciprocal_table")
        s = flow.stage(mantissa=mantissa, power=power, centre=centre)
        heap = BitHeap(m, form.rest_bits, "rest")
        heap.add(form.rest_offset)
        add_truncated(heap, Cat(s.mantissa, Const(1, 1)), Cat(s.centre, Const(0, 1)),
                      centre_bits - EXTRA, subtract=True)
        s = flow.stage(rest=sum(heap.rows())[:form.rest_bits], centre=s.centre, power=s.power)
        powers, = _look_up(m, form.powers, [s.rest[form.rest_bits - form.power_bits:]],
                           "power_table")
        s = flow.stage(slope=(s.rest + powers)[:form.rest_bits], centre=s.centre, power=s.power)
        heap = BitHeap(m, bits + EXTRA + 1, "inverse")
        heap.add(s.centre, bits + EXTRA - centre_bits)
        heap.add(form.offset)
        add_truncated(heap, s.centre, s.slope, centre_bits)
        s = flow.stage(value=sum(heap.rows())[EXTRA:bits + EXTRA + 1], power=s.power)
        return (s.value[:-1] | s.value[-1].replicate(bits)) >> s.power

    def _product(self, m, flow, terms, inverse):
        """Probabilities: terms times the reciprocal, rounded, and below 1."""
        bits, lane = self._spec.bits, range(self._spec.parallel)
        # Half a unit stands for what a term has lost; 1 is exact.
        s = flow.stage(
            factor=[Cat(~terms.value[i][-1], terms.value[i]) for i in lane],
            once=inverse, thrice=inverse + Cat(Const(0, 1), inverse), last=terms.last)
        multiples = s.once, Cat(Const(0, 1), s.once), s.thrice
        sums = [self._rows(m, factor, multiples) for factor in s.factor]
        s = flow.stage(a=[a for a, _ in sums], b=[b for _, b in sums], last=s.last)
        values = [named(m, (s.a[i] + s.b[i])[COLUMNS:COLUMNS + bits], "rounded") for i in lane]
        return flow.stage(value=[value[:-1] | value[-1].replicate(bits - 1) for value in values],
                          last=s.last)

    def _rows(self, m, factor, multiples):
        """Two addends of a rounded product, by radix-4 digits of one factor."""
        form = self._format
        heap = BitHeap(m, form.inverse + 1, "product")
        heap.add(form.rounding)
        for digit in range(form.factor_digits):
            low, high = (*factor[2 * digit:2 * digit + 2], Const(0, 1))[:2]
            cut = form.kept + 1 - 2 * digit
            chosen = [heap.named(select, "select")
                      for select in (low & ~high, ~low & high, low & high)]
            row = Const(0, 1)
            for select, multiple in zip(chosen, multiples, strict=True):
                row |= multiple[cut:] & select.replicate(len(multiple) - cut)
            heap.add(heap.named(row, "row"))
        return heap.rows()


def _look_up(m, table, indices, name):
    """Entries of a constant table, a port an index; beyond its end, the last."""
    shape = unsigned(max(table).bit_length())
    depth = 1 << len(indices[0])
    entries = [*table[:depth], *[table[-1]] * (depth - len(table))]
    m.submodules[name] = memory = Memory(shape=shape, depth=depth, init=entries)
    ports = [memory.read_port(domain="comb") for _ in indices]
    m.d.comb += [port.addr.eq(index) for port, index in zip(ports, indices, strict=True)]
    return [port.data for port in ports]
