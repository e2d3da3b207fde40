"""Layer-norm module."""

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import add_in_halves, add_with_carry, named, popcount
from hwgen.lib.bit_heap import BitHeap, two_rows
from hwgen.lib.flow import Flow, Queue, room, running_sum
from hwgen.lib.memory import SynchronousMemory
from hwgen.lib.multiplier import add_recoded, recode
from hwgen.lib.parabola import STAGES as PARABOLA
from hwgen.lib.parabola import parabola
from hwgen.lib.square import add_square, square_in_halves
from hwgen.lib.window import fallen, leading, round_half, shift_bits, shift_bytes
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


LANES_PER_COPY = 4
"""Lanes that share a register of what goes to all lanes' multipliers."""


class LayerNorm(wiring.Component):
    """Layer norm of rows, in two passes that work on different rows at once.

    Pass 1 stores the row and forms n, Σx and Σx²; from them come n·Σx² − (Σx)² + ε·n²·4^−i_exponent
    and its reciprocal root. Pass 2 computes (n·x − Σx)·γ, scales it by the root, adds β and rounds
    once. Both are pipelines that never stall; a beat enters one when there is room for it in the
    queue at its end. Pass 2 starts on a row before its root is there, and meets it half way. The
    row queue holds the longest row and what arrives until its pass 2 starts, and there is room for
    as many sums and roots as for beats.

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
        depth = beats(spec.max_row, spec.parallel) + cost.START
        self._capacity = depth + cost.NORMALISE + MEMORY + 1
        m.submodules.rows = rows = Queue(self.i.payload.shape(), depth)
        m.submodules.sums = sums = Queue(data.StructLayout({
            "count": range(spec.max_row + 1), "total": signed(spec.bits + form.growth)}), depth)
        m.submodules.roots = roots = Queue(data.StructLayout({
            "root": form.fraction, "shift": range(form.window + form.product)}), depth)
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
        told = self._root(m, flow, total, power, roots)

        # Pass 2
        start, waiting = Signal(), Signal(range(depth + 1))
        m.d.comb += [
            start.eq(rows.ready & (waiting != 0) & loaded & room(m, results, start, "results")),
            rows.read.eq(start),
            sums.read.eq(start & rows.r_data.last),
        ]
        m.d.sync += waiting.eq(waiting + told - sums.read)
        flow = Flow(m, start, "normalise")
        s, gamma, beta = self._scale(m, flow, rows.r_data, sums.r_data, roots)
        s = self._normalise(m, flow, s, beta)
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
        spec, form, beat = self._spec, self._format, self.i.payload
        s = flow.stage(value=[Mux(valid, value, 0).as_signed()
                              for valid, value in zip(beat.valid_mask, beat.value, strict=True)],
                       valid_mask=beat.valid_mask, last=beat.last)

        grown = tree_levels(spec.parallel)
        squares = [square_in_halves(m, value, f"square_{i}") for i, value in enumerate(s.value)]
        s = flow.stage(
            parts={name: [square[name] for square in squares] for name in squares[0]},
            total=two_rows(m, s.value, spec.bits + grown, "total"),
            count=popcount(m, list(s.valid_mask), "count"), last=s.last)

        count = running_sum(m, flow, s.count, range(spec.max_row + 1), s.last, "count")
        total = (s.total[0] + s.total[1])[:spec.bits + grown].as_signed()
        widths = {name: len(values[0]) + grown for name, values in s.parts.items()}
        s = flow.stage(
            parts={name: two_rows(m, values, widths[name], name)
                   for name, values in s.parts.items()},
            total=total, count=count, last=s.last)
        epsilon = self._epsilon(m, Flow(m, flow.valid & s.last, "epsilon"), s.count)

        sums = {name: (left + right)[:widths[name]] for name, (left, right) in s.parts.items()}
        sums["cross"] = sums["cross"].as_signed()
        s = flow.stage(sums={**sums, "total": s.total}, count=s.count, last=s.last)
        sums = {name: running_sum(m, flow, value, Shape(len(value) - grown + form.growth,
                                                     value.shape().signed), s.last, name)
                for name, value in s.sums.items()}
        s = flow.stage(keep=s.last, **sums, count=s.count)
        return s, epsilon

    def _epsilon(self, m, flow, count):
        """ε·n² as a mantissa of `mantissa` + 2 bits and a power of four."""
        form = self._format
        growth, size = form.growth, form.mantissa + 2
        constant, power = epsilon_mantissa(self._spec.epsilon, form.mantissa)
        own = Signal(POWER)
        m.d.sync += own.eq(power - self.i_exponent)

        place = leading(m, count[:growth + 1], "length")
        up = named(m, (growth - place)[:growth.bit_length()], "length_up")
        s = flow.stage(filled=(count << up)[:growth + 1], power=own + place)
        width = 2 * growth + 2
        heap = BitHeap(m, width, "count_squared")
        add_square(heap, s.filled)
        s = flow.stage(rows=heap.rows(), power=s.power)
        s = flow.stage(square=(s.rows[0] + s.rows[1])[:width], power=s.power)
        s = flow.stage(digits=recode(m, s.square, "count_squared"), power=s.power)
        heap = BitHeap(m, width + size, "epsilon_product")
        add_recoded(heap, Const(constant, size), s.digits)
        s = flow.stage(rows=heap.rows(), power=s.power)
        (product,), s = add_in_halves(flow, [s.rows], power=s.power)
        over = named(m, product[size + 2 * growth:].any(), "epsilon_over")
        mantissa = product[2 * growth:]
        s = flow.stage(mantissa=Mux(over, mantissa[2:], mantissa)[:size],
                       power=(s.power + over)[:len(own)].as_signed())
        return s.mantissa, s.power

    def _variance(self, m, flow, s):
        """n·Σx² − (Σx)²."""
        form, half = self._format, self._spec.bits // 2
        square = Flow(m, flow.valid, "square_of_sum")
        squares = BitHeap(m, 2 * form.bits - 1 + form.growth, "squares")
        squares.add(s.low)
        squares.add(s.cross, half + 1)
        squares.add(s.high, 2 * half)
        (total,), _ = add_in_halves(flow, [squares.rows()])

        s = square.stage(total=s.total, count=s.count)
        heap = BitHeap(m, form.variance, "square_of_sum")
        add_square(heap, s.total)
        s = square.stage(rows=heap.rows(), digits=recode(m, s.count, "count"))

        heap = BitHeap(m, form.variance, "variance")
        add_recoded(heap, total, s.digits)
        for row in s.rows:
            heap.subtract(row)
        s = flow.stage(rows=heap.rows())
        (variance,), _ = add_in_halves(flow, [s.rows])
        return variance

    def _add_epsilon(self, m, flow, variance, added, added_power):
        """Both as one mantissa of `mantissa` + 3 bits and a power of four."""
        form = self._format
        size = form.mantissa + 2
        pairs = named(m, Cat(variance[k:k + 2].any() for k in range(0, form.variance, 2)), "pairs")
        s = flow.stage(variance=variance, place=leading(m, pairs, "variance"))

        frame = 2 << len(s.place)
        moved = named(m, (s.variance << Cat(Const(0, 1), ~s.place))[:frame], "variance_moved")
        moved = Cat(Const(0, max(size - frame, 0)), moved)[-size:]
        further = named(m, (added_power - s.place).as_signed(), "further")
        nearer = named(m, -further, "nearer")
        enough = -(-size // 2)
        drops = [Mux(distance > enough, enough, Mux(distance < 0, 0, distance))
                 for distance in (further, nearer)]
        s = flow.stage(own=moved, added=added, power=Mux(further > 0, added_power, s.place),
                       drops=[drop[:enough.bit_length()] for drop in drops])
        s = flow.stage(own=s.own >> Cat(Const(0, 1), s.drops[0]),
                       added=s.added >> Cat(Const(0, 1), s.drops[1]), power=s.power)
        s = flow.stage(total=s.own + s.added, power=s.power)
        return s.total, s.power

    def _root(self, m, flow, total, power, roots):
        """Reciprocal root of a row, and the shift that its power of two takes part in.

        Returns whether pass 2 may start on a further row in the next cycle.
        """
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
        wanted = named(m, s.power + s.over, "shift_wanted")
        amount = Mux(wanted < 0, 0, Mux(wanted > longest, longest, wanted))
        delay, told = Flow(m, flow.valid, "shift"), []
        for _ in range(PARABOLA):
            amount = delay.stage(amount=amount).amount
            told.append(delay.valid)

        root = parabola(m, flow, reciprocal_root(form.fraction), s.argument, "root", ROOT_GUARD)
        most = Const(-1, form.fraction)
        root = Mux(root[form.fraction:].any(), most, root[:form.fraction])
        m.d.comb += [
            roots.write.eq(flow.valid),
            roots.w_data.root.eq(root),
            roots.w_data.shift.eq(amount),
        ]
        # An entry can be read `MEMORY` cycles after it is written; pass 2 reads it at stage `SCALE`
        # and starts one cycle after it is told.
        return told[PARABOLA + MEMORY - cost.SCALE - 2]

    def _scale(self, m, flow, beat, sums, roots):
        """(n·x − Σx)·γ, shifted by whole bytes, and the memories of γ and β."""
        spec, form, lane = self._spec, self._format, range(self._spec.parallel)
        row = beats(spec.max_row, spec.parallel)
        shape = data.ArrayLayout(signed(spec.bits), spec.parallel)
        m.submodules.gamma = gamma = SynchronousMemory(shape, row)
        m.submodules.beta = beta = SynchronousMemory(shape, row)
        index = Signal(range(row))
        with m.If(flow.valid):
            m.d.sync += index.eq(Mux(beat.last, 0, index + 1))
        length = _for_lanes(flow, beat.valid_mask, recode(m, sums.count, "length"), "length")
        s = flow.stage(
            value=list(beat.value), total=sums.total,
            carried={"valid_mask": beat.valid_mask, "last": beat.last},
            index=index)

        m.d.comb += [gamma.read_enable.eq(flow.valid), gamma.read_address.eq(s.index)]
        width = spec.bits + form.growth + 1
        heaps = [BitHeap(m, width, f"centred_{i}") for i in lane]
        for heap, value, digits in zip(heaps, s.value, length, strict=True):
            add_recoded(heap, value, digits)
            heap.subtract(s.total)
        s = flow.stage(rows=[heap.rows() for heap in heaps], carried=s.carried, index=s.index)
        s = flow.stage(
            centred=[(left + right)[:width].as_signed() for left, right in s.rows],
            gamma=[recode(m, value, "gamma") for value in gamma.read_data],
            carried=s.carried, index=s.index)
        heaps = [BitHeap(m, form.product, f"scaled_{i}") for i in lane]
        for heap, centred, digits in zip(heaps, s.centred, s.gamma, strict=True):
            add_recoded(heap, centred, digits)
        s = flow.stage(rows=[heap.rows() for heap in heaps], carried=s.carried, index=s.index)
        products, s = add_in_halves(flow, s.rows, carried=s.carried, index=s.index)
        m.d.comb += [beta.read_enable.eq(flow.valid), beta.read_address.eq(s.index)]
        m.d.comb += roots.read.eq(flow.valid & s.carried["last"])
        amount = roots.r_data.shift
        wide = [Cat(Const(0, form.window - 1), product).as_signed() for product in products]
        moved = [shift_bytes(m, value, amount, form.window, "scaled") for value in wide]
        s = flow.stage(moved=moved, amount=amount[:3], root=roots.r_data.root, carried=s.carried)
        return s, gamma, beta

    def _normalise(self, m, flow, s, beta):
        """Scaled rows times the root, plus β, rounded and saturated."""
        form, lane = self._format, range(self._spec.parallel)
        base, most = Signal(POWER), form.offset - 1 + form.bits
        wanted = Signal(range(most + 1))
        m.d.sync += [
            base.eq(self.o_exponent - self.beta_exponent + (form.offset - 1 - TERM_FRACTION)),
            wanted.eq(Mux(base < 0, 0, Mux(base > most, most, base))),
        ]
        wide = [Cat(Const(0, form.offset - 1), value).as_signed() for value in beta.read_data]
        moved = [shift_bytes(m, value, wanted, form.offset, "offset") for value in wide]
        scaled = [shift_bits(m, near, far, s.amount, form.window, "scaled").as_signed()
                  for near, far in s.moved]
        root = _for_lanes(flow, s.carried["valid_mask"], recode(m, s.root, "root"), "root")
        s = flow.stage(scaled=scaled, offset=moved,
                       lost=[fallen(value, wanted[3:], 8) for value in wide], carried=s.carried)

        ones, cut, width = wanted[:3], form.fraction, form.window + 1
        offsets = []
        for (near, far), lost in zip(s.offset, s.lost, strict=True):
            offset = shift_bits(m, near, far, ones, form.offset, "offset")
            sticky = offset[0] | lost | fallen(near, ones, 1)
            offsets.append(Cat(sticky, offset[1:]))
        heaps = [BitHeap(m, cut + width, f"product_{i}") for i in lane]
        for heap, value, digits in zip(heaps, s.scaled, root, strict=True):
            add_recoded(heap, value, digits)
            # A half of the result's last bit, to round.
            heap.add(1 << (cut + TERM_FRACTION - 1))
        s = flow.stage(rows=[heap.rows() for heap in heaps], offset=offsets, carried=s.carried)

        low = [left[:cut] + right[:cut] for left, right in s.rows]
        upper = [two_rows(m, [left[cut:], right[cut:],
                           Cat(offset, offset[-1].replicate(width - form.offset))], width, "upper")
                 for (left, right), offset in zip(s.rows, s.offset, strict=True)]
        s = flow.stage(low=low, upper=upper, carried=s.carried)
        s = flow.stage(
            total=[add_with_carry(*upper, low[cut])
                   for low, upper in zip(s.low, s.upper, strict=True)],
            rest=[low[:cut].any() for low in s.low], carried=s.carried)
        results = [round_half(total, rest, TERM_FRACTION, form.bits)
                   for total, rest in zip(s.total, s.rest, strict=True)]
        return flow.stage(
            value=[Mux(valid, result, 0)
                   for valid, result in zip(s.carried["valid_mask"], results, strict=True)],
            last=s.carried["last"])

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


def _for_lanes(flow, valid_mask, value, name):
    """For each lane the register of a value that all use: no net has the loads of all of them."""
    groups = [valid_mask[k:k + LANES_PER_COPY] for k in range(0, len(valid_mask), LANES_PER_COPY)]
    copies = flow.copies(value, name, [group.any() for group in groups])
    return [copies[i // LANES_PER_COPY] for i in range(len(valid_mask))]
