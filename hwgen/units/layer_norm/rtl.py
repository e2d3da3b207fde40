"""Layer-norm module."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import popcount
from hwgen.lib.carry_save import (
    add,
    compress,
    partial_products,
    recode,
    square_in_halves,
    sum_rows,
)
from hwgen.lib.flow import Flow, Queue, room
from hwgen.lib.memory import SynchronousMemory
from hwgen.lib.parabola import parabola
from hwgen.lib.window import fallen, leading, named, round_half, shift_bits, shift_bytes
from hwgen.units.layer_norm import cost
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.layer_norm.table import (
    ROOT_GUARD,
    TERM_FRACTION,
    Format,
    epsilon_mantissa,
    reciprocal_root,
)
from hwgen.units.stages import MEMORY, beats, tree_levels

EXPONENT = signed(8)
POWER = signed(13)
"""Holds every sum of exponents: ε of a double reaches 4^−537."""


class LayerNorm(wiring.Component):
    """Layer norm of rows, in two passes that work on different rows at once.

    Pass 1 stores the row and forms n, Σx and Σx²; from them come n·Σx² − (Σx)² + ε·n²·4^−i_exponent
    and its reciprocal root. Pass 2 computes (n·x − Σx)·γ, scales it by the root, adds β and rounds
    once. Both are pipelines that never stall; a beat enters one when there is room for it in the
    queue at its end. Pass 2 starts on a row before its root is there, and meets it half way. The
    row queue holds the longest row and what arrives until its pass 2 starts, and there is room for
    as many sums, shifts and roots as for beats.

    γ and β are kept. `weights` takes them, one beat for each beat of the longest row that follows,
    from the row's first position on. A load may begin while no row is in the module, which
    `weights.ready` sees to; from its first beat to its last no beat is taken at `i`, and before the
    first load none is either. A row whose first beat is taken together with a load's first beat
    is normalised with the new γ and β.

    Latency: `cost.cycles` for a row from reset, after `cost.load_cycles`. Interval 1: with a ready
    sink, once loaded, `i.ready` never falls, whatever the lengths of the rows. `i.ready`,
    `weights.ready`, `o.valid` and `o.payload` come from registers or memories. Under back-pressure
    the queues fill, last the row queue at the input.

    A row must have at least one beat and at most `max_row` valid elements and ⌈max_row/parallel⌉
    beats; a longer one would never come out. What is not valid counts neither in n nor in the sums
    and gives 0. The exponents are constant while a row is in the module.

    Parameters
    ----------
    spec : elements a beat, width of a value, longest row, ε

    Ports
    -----
    i : stream of {value: `parallel` × signed(bits), valid_mask: a bit an element, last}, a row
    weights : stream of {gamma, beta: `parallel` × signed(bits), last}, for the longest row to come
    i_exponent, gamma_exponent, beta_exponent, o_exponent : signed(8), of the row, of γ, of β and of
        the result
    o : stream of {value: `parallel` × signed(bits), last}, the normalised row
    """

    def __init__(self, spec: LayerNormSpec):
        self._spec = spec
        self._format = Format.of(spec)
        values = data.ArrayLayout(signed(spec.bits), spec.parallel)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "value": values, "valid_mask": unsigned(spec.parallel), "last": unsigned(1),
            }))),
            "weights": In(stream.Signature(data.StructLayout({
                "gamma": values, "beta": values, "last": unsigned(1),
            }))),
            "i_exponent": In(EXPONENT),
            "gamma_exponent": In(EXPONENT),
            "beta_exponent": In(EXPONENT),
            "o_exponent": In(EXPONENT),
            "o": Out(stream.Signature(data.StructLayout({"value": values, "last": unsigned(1)}))),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec, form = self._spec, self._format
        depth = beats(spec.max_row, spec.parallel) + cost.START + MEMORY
        self._capacity = depth + cost.NORMALISE + MEMORY + 1
        m.submodules.rows = rows = Queue(self.i.payload.shape(), depth)
        m.submodules.sums = sums = Queue(data.StructLayout({
            "count": range(spec.max_row + 1), "total": signed(spec.bits + form.growth)}), depth)
        m.submodules.shifts = shifts = Queue(range(form.window + form.product), depth)
        m.submodules.roots = roots = Queue(form.fraction, depth)
        results = Queue(self.o.payload.shape(), cost.NORMALISE + MEMORY + 1)
        m.submodules.results = results

        # Pass 1: a beat is stored in the cycle in which it is taken.
        take, loaded = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(room(m, rows, take, "rows") & loaded),
            take.eq(self.i.valid & self.i.ready),
            rows.write.eq(take),
            rows.w_data.eq(self.i.payload),
        ]
        flow = Flow(m, take, "sums")
        s, epsilon = self._sums(m, flow)
        m.d.comb += [
            sums.write.eq(flow.valid),
            sums.w_data.count.eq(s.count),
            sums.w_data.total.eq(s.total),
        ]
        variance = self._variance(m, flow, s)
        total, power = self._add_epsilon(m, flow, variance, *epsilon)
        self._root(m, flow, total, power, shifts, roots)

        # Pass 2
        start = Signal()
        m.d.comb += [
            start.eq(rows.ready & shifts.ready & loaded & room(m, results, start, "results")),
            rows.read.eq(start),
            sums.read.eq(start & rows.r_data.last),
        ]
        flow = Flow(m, start, "normalise")
        s, gamma, beta = self._scale(m, flow, rows.r_data, sums.r_data, shifts)
        s = self._normalise(m, flow, s, beta, roots)
        m.d.comb += [results.write.eq(flow.valid), results.w_data.last.eq(s.last)]
        m.d.comb += [results.w_data.value[i].eq(value) for i, value in enumerate(s.value)]
        m.d.comb += [
            self.o.valid.eq(results.ready),
            self.o.payload.eq(results.r_data),
            results.read.eq(self.o.valid & self.o.ready),
        ]
        self._load(m, take, loaded, gamma, beta)
        return m

    def _sums(self, m, flow):
        """Number and sum of a row's elements, the three parts of the sum of squares; ε·n²."""
        spec, form = self._spec, self._format
        bits, growth, half = spec.bits, form.growth, spec.bits // 2
        beat, lane = self.i.payload, range(spec.parallel)
        s = flow.stage(value=[Mux(beat.valid_mask[i], beat.value[i], 0).as_signed() for i in lane],
                       valid_mask=beat.valid_mask, last=beat.last)

        grown = tree_levels(spec.parallel)
        products = [square_in_halves(m, s.value[i], f"halves_{i}") for i in lane]
        s = flow.stage(
            **{name: [parts[name] for parts in products] for name in ("low", "cross", "high")},
            total=compress(m, sum_rows(s.value, bits + grown), bits + grown, 2, "total"),
            count=popcount(m, list(s.valid_mask), "count"), last=s.last)

        count_so_far = Signal(range(spec.max_row + 1))
        count = (count_so_far + s.count)[:len(count_so_far)]
        with m.If(flow.valid):
            m.d.sync += count_so_far.eq(Mux(s.last, 0, count))
        parts = {"low": s.low, "cross": s.cross, "high": s.high}
        widths = {name: len(values[0]) + grown for name, values in parts.items()}
        s = flow.stage(
            **{name: compress(m, sum_rows(values, widths[name]), widths[name], 2, name)
               for name, values in parts.items()},
            total=(s.total[0] + s.total[1])[:bits + grown].as_signed(), count=count, last=s.last)
        epsilon = self._epsilon(m, Flow(m, flow.valid, "epsilon"), s.count)

        names = ("low", "cross", "high")
        added = {name: (getattr(s, name)[0] + getattr(s, name)[1])[:widths[name]]
                 for name in names}
        added["cross"] = added["cross"].as_signed()
        s = flow.stage(**added, total=s.total, count=s.count, last=s.last)

        sums = {}
        for name, shape in (("low", unsigned(2 * half + growth)), ("cross", signed(bits + growth)),
                            ("high", unsigned(2 * (bits - half) - 1 + growth)),
                            ("total", signed(bits + growth))):
            so_far, now = Signal(shape, name=f"{name}_so_far"), Signal(shape, name=f"{name}_now")
            m.d.comb += now.eq(so_far + getattr(s, name))
            with m.If(flow.valid):
                m.d.sync += so_far.eq(Mux(s.last, 0, now))
            sums[name] = now
        s = flow.stage(keep=s.last, **sums, count=s.count)
        return s, epsilon

    def _epsilon(self, m, flow, count):
        """ε·n² as a mantissa of `mantissa` + 2 bits and a power of four."""
        form = self._format
        growth = form.growth
        constant, power = epsilon_mantissa(self._spec.epsilon, form.mantissa)
        own = Signal(POWER)
        m.d.sync += own.eq(power - self.i_exponent)

        place = leading(m, count[:growth + 1], "length")
        up = named(m, "length_up", (growth - place)[:growth.bit_length()])
        filled = Cat(named(m, "length_filled", (count << up)[:growth + 1]), Const(0, 1))
        s = flow.stage(filled=filled, digits=recode(m, filled, "filled"), power=own + place)
        width = 2 * growth + 2
        rows = partial_products(m, s.filled, s.digits, width, "count_squared")
        rows = compress(m, rows, width, 2, "count_squared")
        s = flow.stage(rows=rows, power=s.power)
        s = flow.stage(square=(s.rows[0] + s.rows[1])[:width], power=s.power)
        s = flow.stage(digits=recode(m, Cat(s.square, Const(0, 1)), "count_squared"),
                       power=s.power)
        width += form.mantissa + 2
        rows = partial_products(
            m, Const(constant, form.mantissa + 3), s.digits, width, "epsilon_product")
        rows = compress(m, rows, width, 2, "epsilon_product")
        s = flow.stage(rows=rows, power=s.power)
        products, s = add(flow, s.rows[:1], s.rows[1:], power=s.power)
        over = named(m, "epsilon_over", products[0][form.mantissa + 2 + 2 * growth:].any())
        mantissa = products[0][2 * growth:]
        s = flow.stage(mantissa=Mux(over, mantissa[2:], mantissa)[:form.mantissa + 2],
                       power=(s.power + over)[:len(own)].as_signed())
        return s.mantissa, s.power

    def _variance(self, m, flow, s):
        """n·Σx² − (Σx)²."""
        form, half = self._format, self._spec.bits // 2
        width = 2 * form.bits - 1 + form.growth
        cross = Cat(s.cross, s.cross[-1].replicate(width))
        rows = compress(m, [(0, s.low), (half + 1, cross), (2 * half, s.high)], width, 2, "squares")

        square = Flow(m, flow.valid, "square")
        digits = square.stage(digits=recode(m, s.total, "total"), total=s.total, count=s.count)
        products = partial_products(
            m, digits.total, digits.digits, form.variance, "square_of_sum")
        square = square.stage(rows=compress(m, products, form.variance, 2, "square_of_sum"),
                              digits=recode(m, Cat(digits.count, Const(0, 1)), "count"))
        sums, _ = add(flow, rows[:1], rows[1:])

        # −v is ¬v + 1.
        rows = partial_products(
            m, Cat(sums[0], Const(0, 1)), square.digits, form.variance, "variance", 2)
        rows += [(0, ~row) for row in square.rows]
        s = flow.stage(rows=compress(m, rows, form.variance, 2, "variance"))
        sums, _ = add(flow, s.rows[:1], s.rows[1:])
        return sums[0]

    def _add_epsilon(self, m, flow, variance, added, added_power):
        """Both as one mantissa of `mantissa` + 3 bits and a power of four."""
        form = self._format
        size = form.mantissa + 2
        pairs = [variance[k:k + 2].any() for k in range(0, form.variance, 2)]
        place = leading(m, named(m, "pairs", Cat(*pairs)), "variance")
        s = flow.stage(variance=variance, place=place)

        frame = 2 << len(place)
        moved = named(m, "variance_moved", (s.variance << Cat(Const(0, 1), ~s.place))[:frame])
        moved = Cat(Const(0, max(size - frame, 0)), moved)[-size:]
        further = named(m, "further", (added_power - s.place).as_signed())
        nearer = named(m, "nearer", -further)
        enough = -(-size // 2)
        drops = [Mux(distance > enough, enough, Mux(distance < 0, 0, distance))
                 for distance in (further, nearer)]
        s = flow.stage(own=moved, added=added, power=Mux(further > 0, added_power, s.place),
                       drops=[drop[:enough.bit_length()] for drop in drops])
        s = flow.stage(own=s.own >> Cat(Const(0, 1), s.drops[0]),
                       added=s.added >> Cat(Const(0, 1), s.drops[1]), power=s.power)
        s = flow.stage(total=s.own + s.added, power=s.power)
        return s.total, s.power

    def _root(self, m, flow, total, power, shifts, roots):
        """Reciprocal root of a row, and the shift that its power of two takes part in."""
        form = self._format
        base = Signal(POWER)
        m.d.sync += base.eq(
            self.o_exponent - self.gamma_exponent + (form.window - 1 - TERM_FRACTION))
        drop = form.mantissa - form.fraction
        over, second = total[form.mantissa + 2], total[form.mantissa + 1]
        place = Mux(over, total[drop + 2:], Mux(second, total[drop + 1:], total[drop:]))
        s = flow.stage(
            argument=Cat(place[:form.fraction], second & ~over), power=base + power, over=over)

        longest = form.window - 1 + form.product
        wanted = named(m, "shift_wanted", s.power + s.over)
        amount = Mux(wanted < 0, 0, Mux(wanted > longest, longest, wanted))
        m.d.comb += [shifts.write.eq(flow.valid), shifts.w_data.eq(amount)]

        root = parabola(m, flow, reciprocal_root(form.fraction), s.argument, "root", ROOT_GUARD)
        most = Const(-1, form.fraction)
        root = Mux(root[form.fraction:].any(), most, root[:form.fraction])
        m.d.comb += [roots.write.eq(flow.valid), roots.w_data.eq(root)]

    def _scale(self, m, flow, beat, sums, shifts):
        """(n·x − Σx)·γ, shifted by whole bytes, and the read ports' sides of γ and β."""
        spec, form, lane = self._spec, self._format, range(self._spec.parallel)
        row = beats(spec.max_row, spec.parallel)
        shape = data.ArrayLayout(signed(spec.bits), spec.parallel)
        m.submodules.gamma = gamma = SynchronousMemory(shape, row)
        m.submodules.beta = beta = SynchronousMemory(shape, row)
        m.d.comb += shifts.read.eq(flow.valid & beat.last)
        index = Signal(range(row))
        with m.If(flow.valid):
            m.d.sync += index.eq(Mux(beat.last, 0, index + 1))
        s = flow.stage(
            value=[beat.value[i] for i in lane],
            digits=recode(m, Cat(sums.count, Const(0, 1)), "length"),
            total=sums.total, amount=shifts.r_data,
            valid_mask=beat.valid_mask, last=beat.last, index=index)

        def carried(s, *further):
            names = ("amount", "valid_mask", "last", *further)
            return {name: getattr(s, name) for name in names}

        m.d.comb += [gamma.read_enable.eq(flow.valid), gamma.read_address.eq(s.index)]
        width = spec.bits + form.growth + 1
        minus = (0, ~Cat(s.total, s.total[-1]))
        rows = [compress(
            m, [*partial_products(m, s.value[i], s.digits, width, f"centred_{i}", 1), minus],
            width, 2, f"centred_{i}") for i in lane]
        s = flow.stage(left=[pair[0] for pair in rows], right=[pair[1] for pair in rows],
                       **carried(s, "index"))
        s = flow.stage(
            centred=[(s.left[i] + s.right[i])[:width] for i in lane],
            digits=[recode(m, gamma.read_data[i], f"gamma_{i}") for i in lane],
            **carried(s, "index"))
        width = form.product
        rows = [compress(
            m, partial_products(m, s.centred[i], s.digits[i], width, f"scaled_{i}"),
            width, 2, f"scaled_{i}") for i in lane]
        s = flow.stage(left=[pair[0] for pair in rows], right=[pair[1] for pair in rows],
                       **carried(s, "index"))
        products, s = add(flow, s.left, s.right, **carried(s, "index"))
        m.d.comb += [beta.read_enable.eq(flow.valid), beta.read_address.eq(s.index)]
        wide = [Cat(Const(0, form.window - 1), product).as_signed() for product in products]
        moved = [shift_bytes(m, value, s.amount, form.window, f"scaled_{i}")
                 for i, value in enumerate(wide)]
        s = flow.stage(near=[near for near, _ in moved], far=[far for _, far in moved],
                       amount=s.amount[:3], valid_mask=s.valid_mask, last=s.last)
        return s, gamma, beta

    def _normalise(self, m, flow, s, beta, roots):
        """Scaled rows times the root, plus β, rounded and saturated."""
        form, lane = self._format, range(self._spec.parallel)
        m.d.comb += roots.read.eq(flow.valid & s.last)
        base, most = Signal(POWER), form.offset - 1 + form.bits
        wanted = Signal(range(most + 1))
        m.d.sync += [
            base.eq(self.o_exponent - self.beta_exponent + (form.offset - 1 - TERM_FRACTION)),
            wanted.eq(Mux(base < 0, 0, Mux(base > most, most, base))),
        ]
        wide = [Cat(Const(0, form.offset - 1), beta.read_data[i]).as_signed() for i in lane]
        moved = [shift_bytes(m, value, wanted, form.offset, f"offset_{i}")
                 for i, value in enumerate(wide)]
        lost = [fallen(value, wanted[3:], 8) for value in wide]
        s = flow.stage(
            scaled=[shift_bits(m, s.near[i], s.far[i], s.amount, form.window,
                               f"scaled_{i}").as_signed() for i in lane],
            digits=recode(m, Cat(roots.r_data, Const(0, 1)), "root"),
            near=[near for near, _ in moved], far=[far for _, far in moved], lost=lost,
            valid_mask=s.valid_mask, last=s.last)

        ones = wanted[:3]
        offsets = [shift_bits(m, s.near[i], s.far[i], ones, form.offset, f"offset_{i}")
                   for i in lane]
        sticky = [s.lost[i] | fallen(s.near[i], ones, 1) for i in lane]
        width = form.window + 1
        offsets = [Cat(offset[0] | bit, offset[1:])
                   for offset, bit in zip(offsets, sticky, strict=True)]
        # A half of the result's last bit, to round.
        half, size = 1 << (form.fraction + TERM_FRACTION - 1), form.fraction + width
        rows = [compress(
            m, partial_products(m, s.scaled[i], s.digits, size, f"product_{i}", half),
            size, 2, f"product_{i}") for i in lane]
        s = flow.stage(left=[pair[0] for pair in rows], right=[pair[1] for pair in rows],
                       offset=offsets, valid_mask=s.valid_mask, last=s.last)

        cut = form.fraction
        upper = [compress(m, [(0, s.left[i][cut:]), (0, s.right[i][cut:]),
                              (0, Cat(s.offset[i], s.offset[i][-1].replicate(width)))],
                          width, 2, f"upper_{i}") for i in lane]
        s = flow.stage(low=[s.left[i][:cut] + s.right[i][:cut] for i in lane],
                       left=[pair[0] for pair in upper], right=[pair[1] for pair in upper],
                       valid_mask=s.valid_mask, last=s.last)
        s = flow.stage(
            total=[(Cat(Const(1, 1), s.left[i]) + Cat(s.low[i][cut], s.right[i]))[1:width + 1]
                   for i in lane],
            rest=[s.low[i][:cut].any() for i in lane], valid_mask=s.valid_mask, last=s.last)
        results = [round_half(m, s.total[i], s.rest[i], TERM_FRACTION, form.bits, f"result_{i}")
                   for i in lane]
        return flow.stage(
            value=[Mux(s.valid_mask[i], results[i], 0) for i in lane], last=s.last)

    def _load(self, m, take, loaded, gamma, beta):
        """γ and β into their memories, while no row is in the module."""
        leaves = self.o.valid & self.o.ready
        inside = Signal(range(self._capacity + 1))
        m.d.sync += inside.eq(inside + take - leaves)
        taken = Signal()
        # A row that came with a load's first beat waits for its last.
        m.d.comb += [
            self.weights.ready.eq((inside == 0) | ~loaded),
            taken.eq(self.weights.valid & self.weights.ready),
        ]
        index = Signal.like(gamma.write_address)
        last = self.weights.payload.last
        with m.If(taken):
            m.d.sync += [loaded.eq(last), index.eq(Mux(last, 0, index + 1))]
        for memory, values in ((gamma, self.weights.payload.gamma),
                               (beta, self.weights.payload.beta)):
            m.d.comb += [
                memory.write_enable.eq(taken),
                memory.write_address.eq(index),
                memory.write_data.eq(values),
            ]
