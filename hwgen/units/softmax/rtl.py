"""Softmax module."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.flow import Flow, Queue, room
from hwgen.lib.polynomial import multiply, quadratic
from hwgen.units.softmax import cost
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax.table import (
    DROPPED,
    SHIFT_MAXIMUM,
    WHOLE,
    Format,
    exponential,
    reciprocal,
)
from hwgen.units.stages import MEMORY, beats, tree_levels


class Softmax(wiring.Component):
    """Softmax of rows, in three passes that work on different rows at once.

    Pass 1 stores the row and finds its maximum, pass 2 computes exponentials and their sum and
    stores the exponentials, pass 3 multiplies them by the sum's reciprocal. The passes are
    pipelines that never stall; a beat enters one when there is room for it in the queue at its
    end. The row queues hold the longest row and what arrives while a row's maximum or reciprocal
    is under way, and there is room for as many maxima and reciprocals as for beats.

    Latency: `cost.cycles` for a row from reset. Interval 1: with a ready sink, `i.ready` never
    falls, whatever the lengths of the rows. `i.ready`, `o.valid` and `o.payload` come from
    registers or memories. Under back-pressure the queues fill, last the row queue at the input.

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
        levels = tree_levels(spec.parallel)
        row = beats(spec.max_row, spec.parallel)
        lane = range(spec.parallel)

        depth = row + cost.MAXIMUM + levels + MEMORY
        m.submodules.rows = rows = Queue(self.i.payload.shape(), depth)
        m.submodules.maxima = maxima = Queue(signed(spec.bits), depth)
        depth = row + cost.EXPONENTIAL + levels + cost.RECIPROCAL + MEMORY
        m.submodules.terms = terms = Queue(data.StructLayout({
            "value": data.ArrayLayout(form.kept + 1, spec.parallel), "last": 1}), depth)
        m.submodules.inverses = inverses = Queue(data.StructLayout({
            "value": form.fraction + 1, "power": range(form.growth + 1)}), depth)
        depth = cost.NORMALISE + MEMORY + 1
        m.submodules.results = results = Queue(self.o.payload.shape(), depth)

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
        s = flow.stage(
            distance=[(maxima.r_data - beat.value[i])[:spec.bits] for i in lane],
            valid_mask=beat.valid_mask, last=beat.last)
        exponentials, s = self._exponential(m, flow, s)
        m.d.comb += [terms.write.eq(flow.valid), terms.w_data.last.eq(s.last)]
        m.d.comb += [terms.w_data.value[i].eq(exponentials[i] >> (form.growth + DROPPED))
                     for i in lane]
        inverse, power = self._reciprocal(m, flow, exponentials, s.last)
        m.d.comb += [
            inverses.write.eq(flow.valid),
            inverses.w_data.value.eq(inverse),
            inverses.w_data.power.eq(power),
        ]

        # Pass 3
        normalise = Signal()
        m.d.comb += [
            normalise.eq(
                terms.ready & inverses.ready & room(m, results, normalise, "results")),
            terms.read.eq(normalise),
            inverses.read.eq(normalise & terms.r_data.last),
        ]
        flow = Flow(m, normalise, "normalise")
        s = flow.stage(
            term=[terms.r_data.value[i] >> inverses.r_data.power for i in lane],
            inverse=inverses.r_data.value, last=terms.r_data.last)
        products, s = multiply(flow, s.term, [s.inverse for _ in lane], last=s.last)
        s = flow.stage(value=[self._round(product) for product in products], last=s.last)
        m.d.comb += [results.write.eq(flow.valid), results.w_data.last.eq(s.last)]
        m.d.comb += [results.w_data.value[i].eq(s.value[i]) for i in lane]
        m.d.comb += [
            self.o.valid.eq(results.ready),
            self.o.payload.eq(results.r_data),
            results.read.eq(self.o.valid & self.o.ready),
        ]
        return m

    def _maximum(self, m, flow):
        """Largest valid element of a row, and whether it is there."""
        bits = self._spec.bits
        lowest = Const(-(1 << (bits - 1)), signed(bits))
        beat = self.i.payload
        s = flow.stage(
            value=[Mux(beat.valid_mask[i], beat.value[i], lowest)
                   for i in range(self._spec.parallel)],
            last=beat.last)
        while len(s.value) > 1:
            pairs = zip(s.value[::2], s.value[1::2], strict=True)
            s = flow.stage(value=[Mux(a > b, a, b) for a, b in pairs], last=s.last)
        so_far = Signal(signed(bits), init=-(1 << (bits - 1)))
        best = Mux(s.value[0] > so_far, s.value[0], so_far)
        with m.If(flow.valid):
            m.d.sync += so_far.eq(Mux(s.last, lowest, best))
        s = flow.stage(keep=s.last, best=best)
        return s.best, flow.valid

    def _exponential(self, m, flow, s):
        """exp(−distance · 2^i_exponent), fraction + growth bits after the point; 0 if invalid."""
        form, lane = self._format, range(self._spec.parallel)
        shift = Signal(range(SHIFT_MAXIMUM + 1))
        wanted = Signal(signed(10))
        m.d.comb += wanted.eq(WHOLE - self.i_exponent)
        m.d.sync += shift.eq(
            Mux(wanted < 0, 0, Mux(wanted > SHIFT_MAXIMUM, SHIFT_MAXIMUM, wanted)))

        log2e = Const(form.log2e, form.fraction + 1)
        products, s = multiply(flow, [log2e for _ in lane], s.distance,
                               valid_mask=s.valid_mask, last=s.last)
        eights, ones = Cat(Const(0, 3), shift[3:]), shift[:3]
        s = flow.stage(power=[Cat(Const(0, WHOLE), product) >> eights for product in products],
                       valid_mask=s.valid_mask, last=s.last)
        s = flow.stage(power=[power >> ones for power in s.power],
                       valid_mask=s.valid_mask, last=s.last)
        # From 2^−64 on, and where there is no element, there is nothing.
        top = form.fraction + WHOLE
        mantissas, s = quadratic(
            m, flow, exponential(form.fraction), [power[:form.fraction] for power in s.power],
            "exponential_table",
            whole=[power[form.fraction:top] for power in s.power],
            some=[s.valid_mask[i] & ~s.power[i][top:].any() for i in lane], last=s.last)
        s = flow.stage(
            term=[Mux(s.some[i], Cat(Const(0, form.growth), mantissas[i]), 0)
                  >> Cat(Const(0, 3), s.whole[i][3:]) for i in lane],
            ones=[whole[:3] for whole in s.whole], last=s.last)
        s = flow.stage(term=[s.term[i] >> s.ones[i] for i in lane], last=s.last)
        return s.term, s

    def _reciprocal(self, m, flow, terms, last):
        """Reciprocal of a row's sum over 2^power, and that power."""
        form = self._format
        while len(terms) > 1:
            pairs = zip(terms[::2], terms[1::2], strict=True)
            s = flow.stage(terms=[a + b for a, b in pairs], last=last)
            terms, last = s.terms, s.last
        # A sum is at most max_row: no more bits than these are ever used.
        width = form.fraction + 2 * form.growth + 1
        so_far = Signal(width)
        total = (so_far + terms[0])[:width]
        with m.If(flow.valid):
            m.d.sync += so_far.eq(Mux(last, 0, total))
        s = flow.stage(keep=last, total=total)
        one = form.fraction + form.growth
        power = Signal(range(form.growth + 1))
        for level in range(1, form.growth + 1):
            with m.If(s.total[one + level]):
                m.d.comb += power.eq(level)
        s = flow.stage(total=s.total, power=power)
        s = flow.stage(mantissa=(s.total >> s.power)[form.growth:one], power=s.power)
        values, s = quadratic(
            m, flow, reciprocal(form.fraction), [s.mantissa], "reciprocal_table", power=s.power)
        return values[0], s.power

    def _round(self, product):
        """Probability: ties to even, and below 1."""
        cut, bits = self._format.round_bits, self._spec.bits
        value, guard, rest = product[cut:], product[cut - 1], product[:cut - 1]
        rounded = value + (guard & (rest.any() | value[0]))
        return Mux(rounded >> (bits - 1), (1 << (bits - 1)) - 1, rounded)[:bits]
