"""Effectual pairs of two zero-free operands, up to `macs` a cycle."""

from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.compaction import at_least, borders, close_gaps, counts_before, switches
from hwgen.lib.pipeline import Pipeline
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

SIDES = ("left", "right")

GROUP = 16


class PreSparsity(wiring.Component):
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
        kept = self._kept(m, self._join(m))
        self._fifo(m, *self._place(m, kept))
        return m

    def _join(self, m):
        """Make one stream of the two zero_masks."""
        spec = self.spec
        joined = stream.Signature(0).create(path=["joined"])
        left, right = self.i_left_mask, self.i_right_mask
        m.d.comb += [
            joined.valid.eq(left.valid & right.valid),
            left.ready.eq(joined.ready & right.valid),
            right.ready.eq(joined.ready & left.valid),
        ]
        return joined

    def _kept(self, m, joined):
        """Which of each operand's values have a partner."""
        spec = self.spec
        own = {"left": self.i_left_mask.p.zero_mask, "right": self.i_right_mask.p.zero_mask}
        counted, kept_valid, count_enable = Signal(), Signal(), Signal()
        kept_ready = Signal()
        m.d.comb += [count_enable.eq(~kept_valid | kept_ready),
                     joined.ready.eq(~counted | count_enable)]
        with m.If(joined.ready):
            m.d.sync += counted.eq(joined.valid)
        with m.If(count_enable):
            m.d.sync += kept_valid.eq(counted)
        both = self._register(m, joined.ready, own["left"] & own["right"], "both")
        last = self._register(m, joined.ready, self.i_left_mask.p.last, "masks_last")
        fields = {}
        for side in SIDES:
            counts = counts_before(m, list(own[side]), f"{side}_nonzeros")
            found = [self._register(m, joined.ready, b, f"{side}_border_{k}")
                     for k, b in enumerate(borders(counts, spec.window))]
            swaps = Signal(len(switches(found)), name=f"{side}_swaps")
            m.d.comb += swaps.eq(switches(found))
            fields[side] = self._register(m, count_enable, Cat(close_gaps(m, list(both), list(swaps), list(~swaps), spec.window,
                                       f"{side}_kept")), f"{side}_kept")
        last = self._register(m, count_enable, last, "kept_last")
        from types import SimpleNamespace
        return SimpleNamespace(valid=kept_valid, ready=kept_ready, p=SimpleNamespace(last=last, **fields))

    def _register(self, m, enable, value, name):
        value = Value.cast(value)
        held = Signal(len(value), name=name, reset_less=True)
        with m.If(enable):
            m.d.sync += held.eq(value)
        return held

    def _place(self, m, kept):
        """Where each kept value goes: controls of the networks and of the FIFO."""
        spec, size = self.spec, self.spec.macs
        columns = (size - 1).bit_length()
        done = Signal()
        counted, placed = Signal(), Signal()
        count_enable, place_enable = Signal(), Signal()
        m.d.comb += [
            place_enable.eq(~placed | done),
            count_enable.eq(~counted | place_enable),
            kept.ready.eq(count_enable),
        ]
        with m.If(count_enable):
            m.d.sync += counted.eq(kept.valid)
        with m.If(place_enable):
            m.d.sync += placed.eq(counted)

        def register(enable, value, name):
            value = Value.cast(value)
            held = Signal(len(value), name=name, reset_less=True)
            with m.If(enable):
                m.d.sync += held.eq(value)
            return held

        last = register(count_enable, kept.p.last, "counted_last")
        start = Signal(columns)
        controls = {}
        for side in SIDES:
            found = counts_before(m, list(getattr(kept.p, side)), f"{side}_pairs")
            # The network of a group needs all of its counts, and modulo the group's size only.
            found = [register(count_enable, count if number % self.group == 0
                              else count[:(self.group - 1).bit_length()],
                              f"{side}_pairs_{number}") for number, count in enumerate(found)]
            slot = []
            for number, count in enumerate(found):
                one = Signal(range(size + spec.window), name=f"{side}_slot_{number}")
                m.d.comb += one.eq(start + count)
                slot.append(one)
            swaps = Signal(len(switches(borders(slot, self.group))), name=f"{side}_place")
            m.d.comb += swaps.eq(switches(borders(slot, self.group)))
            # Both polarities are registers: a switch is then an AND-OR-invert, not a multiplexer.
            controls[side] = (register(place_enable, swaps, f"{side}_swaps_"),
                              register(place_enable, ~swaps, f"{side}_keeps_"))
            edge = slot[::self.group]
            columns_ = [
                register(place_enable, b[:columns], f"{side}_columns_{n}")
                for n, b in enumerate(edge)]
            controls[f"{side}_columns"] = [Cat(at_least(size, c)) for c in columns_]
            controls[f"{side}_rows"] = [
                register(place_enable, b[columns:], f"{side}_rows_{n}")
                for n, b in enumerate(edge)]
            end = slot[-1]
        pairs = found[-1]
        ends_row = end[:columns] != 0
        with m.If(counted & place_enable):
            m.d.sync += start.eq(Mux(last, 0, end))
        full = register(place_enable, end[columns:], "full")
        window = {
            "full": full,
            "rest": register(place_enable, ends_row, "rest"),
            "tail": register(place_enable, last & (ends_row | ((pairs == 0) & (start == 0))),
                             "tail"),
            "last": register(place_enable, last, "placed_last"),
        }
        return controls, window, placed, done

    def _fifo(self, m, controls, window, placed, done):
        spec = self.spec
        count = spec.fifo_depth // spec.macs
        most = -(-(spec.window + spec.macs - 1) // spec.macs)
        rows, partial, end_in = Signal(range(count + 2)), Signal(), Signal()
        taken = Signal(range(most + 1))
        issue, closes, take, finish = Signal(), Signal(), Signal(), Signal()
        left_over = Signal.like(rows)
        m.d.comb += [
            self.o.valid.eq(rows != 0),
            self.o.p.last.eq(end_in & (rows == 1)),
            issue.eq(self.o.valid & self.o.ready),
            closes.eq(issue & self.o.p.last),
            left_over.eq(rows - issue),
            take.eq(placed & (~end_in | closes)),
            finish.eq(take & (window["full"] + window["rest"] + left_over <= count + taken)),
            done.eq(finish & self.i_left.valid & self.i_right.valid),
            self.i_left.ready.eq(finish & self.i_right.valid),
            self.i_right.ready.eq(finish & self.i_left.valid),
        ]
        valid = Signal()
        m.d.comb += valid.eq(take & self.i_left.valid & self.i_right.valid)
        m.d.sync += rows.eq(left_over)
        with m.If(closes):
            m.d.sync += end_in.eq(0)
        with m.If(done):
            m.d.sync += [rows.eq(left_over + window["full"] - taken + window["tail"]),
                         partial.eq(window["rest"] & ~window["last"]), taken.eq(0),
                         end_in.eq(window["last"])]
        with m.Elif(valid):
            m.d.sync += [rows.eq(count), partial.eq(0), taken.eq(taken + count - left_over)]
        # Row of the window that goes to each row of the FIFO.
        wanted = []
        for row in range(count):
            one = Signal(most, name=f"wanted_{row}")
            m.d.comb += one.eq(Cat(valid & (taken + row == number + left_over)
                                   & (left_over <= row) for number in range(most)))
            wanted.append(one)
        occupied = Signal(count + 1)
        m.d.comb += occupied.eq(Cat((rows > row) | ((rows == row) & partial)
                                    for row in range(count)))
        stay = [occupied[row] & ~issue for row in range(count)]
        move = [occupied[row + 1] & issue for row in range(count)]
        for side in SIDES:
            values = [Value.cast(getattr(self, f"i_{side}").p.value[k])
                      for k in range(spec.window)]
            groups = close_gaps(m, values, *map(list, controls[side]), self.group, f"{side}_grouped")
            store = [[Signal(spec.bits, name=f"{side}_{row}_{k}", reset_less=True)
                      for k in range(spec.macs)] for row in range(count)]
            for row in range(count):
                chosen = self._chosen(m, wanted[row], controls[f"{side}_columns"],
                                      controls[f"{side}_rows"], f"{side}_{row}")
                for k in range(spec.macs):
                    terms = [store[row][k] & stay[row].replicate(spec.bits)]
                    if row + 1 < count:
                        terms.append(store[row + 1][k] & move[row].replicate(spec.bits))
                    for g, choice in enumerate(chosen):
                        terms.append(groups[g * self.group + k % self.group]
                                     & choice[k].replicate(spec.bits))
                    m.d.sync += store[row][k].eq(reduce(or_, terms))
            m.d.comb += [getattr(self.o.p, side)[k].eq(store[0][k]) for k in range(spec.macs)]

    def _chosen(self, m, wanted, columns, rows, name):
        """For each group of positions, which columns of a row of the FIFO it fills."""
        reached = []
        for number, (column, row) in enumerate(zip(columns, rows, strict=True)):
            before, here = Signal(name=f"{name}_{number}_before"), Signal(name=f"{name}_{number}_here")
            m.d.comb += [
                here.eq(reduce(or_, (wanted[r] & (row == r) for r in range(len(wanted))))),
                before.eq(reduce(or_, (wanted[r] & (row < r) for r in range(len(wanted))))),
            ]
            one = Signal(self.spec.macs, name=f"{name}_{number}_reached")
            m.d.comb += one.eq(before.replicate(self.spec.macs)
                               | (column & here.replicate(self.spec.macs)))
            reached.append(one)
        result = []
        for number, (one, following) in enumerate(zip(reached, reached[1:])):
            choice = Signal(self.spec.macs, name=f"{name}_{number}_choice")
            m.d.comb += choice.eq(one & ~following)
            result.append(choice)
        return result
