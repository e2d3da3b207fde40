"""Effectual pairs of two zero-free operands, up to `macs` a cycle."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.compaction import (
    close_gaps,
    elements,
    open_front,
    popcount,
    rotate,
    zeros_before,
)
from hwgen.lib.pipeline import Pipeline, RegisterSlice
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

SIDES = ("left", "right")


class PreSparsity(wiring.Component):
    """Gathers the pairs of a dot product of which neither element is zero.

    Both inputs bring an aligned window of `window` positions a beat, zero-free with its zero_mask,
    and transfer together; `last` marks the last window of a dot product and is the same on both.

    1. Both zero_masks are counted.
    2. Each operand's value is kept if the other has one at its position: the other's zero_mask,
       compacted by the operand's own, says which, and no value need be decompressed.
    3. The gaps between kept values are counted.
    4. The first half of the levels of the network closes them.
    5. The other half does, and the window moves to the next free place in a row of the FIFO.
    6. The FIFO: rows of `macs` pairs, `fifo_depth` pairs in all, each dot product from a new row.
    7. The output.

    Each cycle, the FIFO first issues and then accepts. It issues `macs` pairs when it holds as
    many, or what is left when it holds the end of the dot product; unused places are zero. It
    accepts a window when it fits, and no end of another dot product is left. A dot product is its
    pairs, `macs` a beat; the last of these beats is `last`, unless the last window had no pairs and
    those before it fill whole beats: these may have left before the end came, and never wait for
    it, so that an empty last beat follows. Beats depend on the operands alone, never on stalls.

    A dot product takes `cost.periods` cycles; the latency beyond their sum is `cost.latency`.

    Parameters
    ----------
    spec : pairs a beat, width of a value, positions of a window, pairs in the FIFO

    Ports
    -----
    i_left, i_right : windows of the operand: zero-free values from place 0 on, the zero_mask of all
        positions, and whether the dot product ends (last)
    o : effectual pairs, in order, and whether the dot product ends (last)
    """

    def __init__(self, spec: PreSparsitySpec):
        self.spec = spec
        window = data.StructLayout({
            "value": data.ArrayLayout(signed(spec.bits), spec.window),
            "zero_mask": unsigned(spec.window), "last": 1})
        pairs = data.ArrayLayout(signed(spec.bits), spec.macs)
        super().__init__({
            "i_left": In(stream.Signature(window)),
            "i_right": In(stream.Signature(window)),
            "o": Out(stream.Signature(data.StructLayout({
                "left": pairs, "right": pairs, "last": 1}))),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        self._fifo(m, self._gather(m, self._join(m)))
        return m

    def _join(self, m):
        """Make one stream of the two inputs."""
        joined = stream.Signature(0).create(path=["joined"])
        m.d.comb += [
            joined.valid.eq(self.i_left.valid & self.i_right.valid),
            self.i_left.ready.eq(joined.ready & self.i_right.valid),
            self.i_right.ready.eq(joined.ready & self.i_left.valid),
        ]
        return joined

    def _gather(self, m, joined):
        """Compact windows in five stages; return the stream of those that wait for the FIFO."""
        spec = self.spec
        inputs = {"left": self.i_left.p, "right": self.i_right.p}
        levels = range((spec.window - 1).bit_length())
        half = len(levels) // 2
        pipe = Pipeline(m, joined, group=3)
        s = pipe.stage(last=self.i_left.p.last & self.i_right.p.last, **_of_sides(
            lambda side: {
                "value": inputs[side].value.as_value(), "mask": inputs[side].zero_mask,
                "zeros": Cat(zeros_before(m, inputs[side].zero_mask, f"{side}_zeros"))}))
        masks = {"left": s.left_mask, "right": s.right_mask}
        s = pipe.stage(
            last=s.last, pairs=popcount(m, s.left_mask & s.right_mask, "pairs"), **_of_sides(
                lambda side: {
                    "value": getattr(s, f"{side}_value"),
                    "keep": self._kept(m, masks[side], masks["right" if side == "left" else "left"],
                                       getattr(s, f"{side}_zeros"), f"{side}_keep")}))
        s = pipe.stage(last=s.last, pairs=s.pairs, **_of_sides(lambda side: {
            "value": getattr(s, f"{side}_value"), "valid": getattr(s, f"{side}_keep"),
            "gaps": Cat(zeros_before(m, getattr(s, f"{side}_keep"), f"{side}_gaps"))}))
        s = pipe.stage(last=s.last, pairs=s.pairs, **self._closed(m, s, levels[:half]))
        closed = self._closed(m, s, levels[half:])
        return self._align(m, pipe, s, closed)

    def _kept(self, m, own, other, zeros, name):
        """Which of an operand's values have a partner."""
        levels = range((self.spec.window - 1).bit_length())
        bits, _, _ = close_gaps(m, list(other), list(own), self._cut(zeros), levels, name)
        # Behind the last value they may be anything: it would come after all that is used.
        return Cat(bits)

    def _closed(self, m, s, levels):
        """Both operands after some levels of the network."""
        def side(name):
            value, valid, gaps = close_gaps(
                m, elements(getattr(s, f"{name}_value"), self.spec.bits),
                list(getattr(s, f"{name}_valid")), self._cut(getattr(s, f"{name}_gaps")), levels,
                name)
            return {"value": Cat(value), "valid": Cat(valid), "gaps": Cat(gaps)}
        return _of_sides(side)

    def _cut(self, shifts):
        """One shift a position."""
        width = len(shifts) // self.spec.window
        return [shifts[k * width:(k + 1) * width] for k in range(self.spec.window)]

    def _align(self, m, pipe, s, closed):
        """Move the window's pairs to where the row that is being filled goes on."""
        spec = self.spec
        slots = spec.window + spec.macs - 1
        start = Signal((spec.macs - 1).bit_length())
        end = Signal(range(slots + 1))
        m.d.comb += end.eq(start + s.pairs)
        with m.If(pipe.advance):
            m.d.sync += start.eq(Mux(s.last, 0, end))
        bare = (s.pairs == 0) & (start == 0)
        pending = stream.Signature(data.StructLayout({
            "left": unsigned(slots * spec.bits), "right": unsigned(slots * spec.bits),
            "start": start.shape(), "end": end.shape(), "pairs": s.pairs.shape(),
            "last": 1, "bare": 1})).create(path=["pending"])
        aligned = {side: open_front(m, closed[f"{side}_value"], spec.bits, start, slots,
                                    f"{side}_aligned")
                   for side in SIDES}
        pipe.finish(pending, left=aligned["left"], right=aligned["right"], start=start, end=end,
                    pairs=s.pairs, last=s.last, bare=bare)
        return pending

    def _fifo(self, m, pending):
        """Store windows in rows of `macs` pairs, and issue a row a cycle."""
        spec = self.spec
        m.submodules.o_slice = o_slice = RegisterSlice(self.o.payload.shape())
        wiring.connect(m, o_slice.o, wiring.flipped(self.o))
        o = o_slice.i
        held, end_in, bare = Signal(range(spec.fifo_depth + 1)), Signal(), Signal()
        left_over = Signal.like(held)
        issue, closes, accept = Signal(), Signal(), Signal()
        m.d.comb += [
            o.valid.eq((held >= spec.macs) | end_in),
            issue.eq(o.valid & o.ready),
            o.p.last.eq(end_in & Mux(bare, held == 0, held <= spec.macs)),
            closes.eq(issue & o.p.last),
            left_over.eq(Mux(closes, 0, Mux(issue, held - spec.macs, held))),
            pending.ready.eq((~end_in | closes)
                             & (left_over + pending.p.pairs <= spec.fifo_depth)),
            accept.eq(pending.valid & pending.ready),
        ]
        m.d.sync += [
            held.eq(left_over + Mux(accept, pending.p.pairs, 0)),
            end_in.eq(Mux(accept, pending.p.last, end_in & ~closes)),
        ]
        with m.If(accept):
            m.d.sync += bare.eq(pending.p.bare)
        head = self._rows(m, pending, accept, issue & (held != 0))
        for k in range(spec.macs):
            used = held > k
            m.d.comb += [
                o.p.left[k].eq(Mux(used, head[2 * k], 0)),
                o.p.right[k].eq(Mux(used, head[2 * k + 1], 0)),
            ]

    def _rows(self, m, pending, accept, drop):
        """Write an accepted window; return the first row, of left and right values in turn."""
        spec = self.spec
        count = -(-spec.fifo_depth // spec.macs)
        width = 2 * spec.bits * spec.macs
        rows = [Signal(width, name=f"row_{number}", reset_less=True) for number in range(count)]
        tail, first = Signal(range(count)), Signal(range(count))
        slots = spec.window + spec.macs - 1
        left, right = elements(pending.p.left, spec.bits), elements(pending.p.right, spec.bits)
        written = Signal(slots)
        m.d.comb += written.eq(Cat((pending.p.start <= k) & (pending.p.end > k)
                                   for k in range(slots)))
        values = Signal(count * width)
        m.d.comb += values.eq(Cat(Cat(left[k], right[k]) for k in range(slots)))
        values = rotate(m, values, width, tail, "rotated")
        enables = Signal(count * spec.macs)
        m.d.comb += enables.eq(Cat(written, Const(0, len(enables) - slots)))
        enables = rotate(m, enables, spec.macs, tail, "rotated_enables")
        for row, incoming, enable in zip(rows, elements(values, width),
                                         elements(enables, spec.macs), strict=True):
            for k in range(spec.macs):
                with m.If(accept & enable[k]):
                    m.d.sync += row[2 * spec.bits * k:2 * spec.bits * (k + 1)].eq(
                        incoming[2 * spec.bits * k:2 * spec.bits * (k + 1)])
        # The next dot product begins with a new row.
        full = pending.p.end // spec.macs
        begun = pending.p.end % spec.macs != 0
        with m.If(accept):
            m.d.sync += tail.eq(_modulo(tail + full + (pending.p.last & begun), count))
        with m.If(drop):
            m.d.sync += first.eq(_modulo(first + 1, count))
        head = Signal(width)
        m.d.comb += head.eq(Array(rows)[first])
        return elements(head, spec.bits)


def _of_sides(fields):
    """Merge the fields of both operands, with the operand's name before each."""
    return {f"{side}_{name}": value for side in SIDES for name, value in fields(side).items()}


def _modulo(total, count):
    """Reduce what is below twice `count`."""
    return Mux(total >= count, total - count, total)
