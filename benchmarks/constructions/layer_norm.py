"""What layer norm's arithmetic alone takes: a plain lower bound for layer_norm."""

from amaranth.hdl import Cat, Const, Module, Mux, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from constructions.registers import Registers, accumulate

from hwgen.lib.arithmetic import named
from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.multiplier import add_product
from hwgen.lib.parabola import parabola
from hwgen.lib.window import leading, round_half
from hwgen.units.layer_norm.table import ROOT_GUARD, TERM_FRACTION, Format, reciprocal_root

FIRST_LEVELS = 10
"""Levels of full adders in the cycle of the squares: the more, the fewer bits are registered."""


class LayerNormBound(wiring.Component):
    """A part of layer norm's arithmetic: a row's sums, the reciprocal root, or the scaling.

    "sums": `parallel` squares and the accumulators of Σx and Σx². "root": n·Σx² − (Σx)², its
    leading digit, shifted there, and the unit's polynomial of the reciprocal root. "scale":
    `parallel` times n·x − Σx, times γ, shifted into a window, times the root, plus β, rounded. Each
    takes a beat every cycle and has the registers of values alone.

    Left out, of what layer_norm has: ε; masks and the number of elements; what brings β to the
    result's exponent, the memories of γ and β, row buffers and all other queues, the arithmetic of
    exponents, valid bits and back-pressure. What the parts give one another comes from outside, and
    each input when it is needed.

    Parameters
    ----------
    spec : LayerNormSpec
    part : one of `PARTS`

    Ports of "sums"
    ---------------
    value : a beat of a row
    first : whether the row begins
    total, squares : Σx and Σx² up to this beat

    Ports of "root"
    ---------------
    count, total, squares : of a row
    power : the variance times n² is at least 4^power and below 4^(power + 1); `POWER_STAGES`
        cycles after
    root : its reciprocal root over 2^power, with `fraction` bits after the point

    Ports of "scale"
    ----------------
    value, count, total : a beat, and its row's
    gamma : two cycles later
    shift : four cycles later, by how much (n·x − Σx)·γ is shifted right from window − 1 bits above
        its place
    root, offset : five cycles later: factor, and β with TERM_FRACTION bits below the result's last
    o : the result
    """

    PARTS = ("sums", "root", "scale")
    POWER_STAGES = 4

    def __init__(self, spec, part):
        self._spec = spec
        self._part = part
        self._format = form = Format.of(spec)
        values = data.ArrayLayout(signed(spec.bits), spec.parallel)
        total, squares = signed(spec.bits + form.growth), 2 * spec.bits - 1 + form.growth
        count = range(spec.max_row + 1)
        super().__init__({
            "sums": {"value": In(values), "first": In(1), "total": Out(total),
                     "squares": Out(squares)},
            "root": {"count": In(count), "total": In(total), "squares": In(squares),
                     "power": Out(range(form.variance // 2)), "root": Out(form.fraction)},
            "scale": {"value": In(values), "count": In(count), "total": In(total),
                      "gamma": In(values), "shift": In(range(form.window + form.product)),
                      "root": In(form.fraction),
                      "offset": In(data.ArrayLayout(signed(form.offset), spec.parallel)),
                      "o": Out(values)},
        }[part])

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        pipe = Registers(m, self._part)
        {"sums": self._sums, "root": self._root, "scale": self._scale}[self._part](m, pipe)
        # Both accumulators are one more register.
        self.latency = pipe.latency + (self._part == "sums")
        return m

    def _sums(self, m, pipe):
        heaps = {name: BitHeap(m, len(getattr(self, name)), name) for name in ("total", "squares")}
        for value in self.value:
            heaps["total"].add(value)
            add_square(heaps["squares"], value)
        s = pipe.stage(first=self.first, **{name: heap.compress(FIRST_LEVELS).bits()
                                            for name, heap in heaps.items()})
        for name, heap in heaps.items():
            heap = heap.from_register(getattr(s, name))
            m.d.comb += getattr(self, name).eq(accumulate(m, heap, s.first, name))

    def _root(self, m, pipe):
        form = self._format
        heap = BitHeap(m, form.variance, "variance")
        add_product(heap, self.squares, self.count)
        add_square(heap, self.total, subtract=True)
        s = pipe.stage(bits=heap.compress(heap.height).bits())
        s = pipe.stage(variance=sum(heap.from_register(s.bits).rows())[:form.variance])
        pairs = [s.variance[k:k + 2].any() for k in range(0, form.variance, 2)]
        place = leading(m, named(m, Cat(pairs), "pairs"), "variance")
        s = pipe.stage(variance=s.variance, place=place)
        frame = 2 << len(s.place)
        moved = named(m, (s.variance << Cat(Const(0, 1), ~s.place))[:frame], "moved")
        second = moved[-1]
        argument = Mux(second, moved[-1 - form.fraction:-1], moved[-2 - form.fraction:-2])
        s = pipe.stage(argument=Cat(argument, second), power=s.place)
        m.d.comb += self.power.eq(s.power)
        root = parabola(m, pipe, reciprocal_root(form.fraction), s.argument, "root", ROOT_GUARD)
        m.d.comb += self.root.eq(root[:form.fraction]
                                 | root[form.fraction:].any().replicate(form.fraction))

    def _scale(self, m, pipe):
        spec, form, lane = self._spec, self._format, range(self._spec.parallel)
        centred, scaled, moved, totals = [], [], [], []
        for k in lane:
            heap = BitHeap(m, spec.bits + form.growth + 1, f"centred_{k}")
            add_product(heap, self.value[k], self.count)
            # −v is ¬v + 1.
            heap.add(heap.named((~self.total).as_signed(), "total"))
            heap.add(1)
            centred.append(heap.compress(heap.height))
        s = pipe.stage(rows=[heap.bits() for heap in centred])
        s = pipe.stage(centred=[sum(heap.from_register(rows).rows())[:heap.width].as_signed()
                                for heap, rows in zip(centred, s.rows, strict=True)])
        for k in lane:
            heap = BitHeap(m, form.product, f"scaled_{k}")
            add_product(heap, s.centred[k], self.gamma[k])
            scaled.append(heap.compress(heap.height))
        s = pipe.stage(rows=[heap.bits() for heap in scaled])
        s = pipe.stage(scaled=[sum(heap.from_register(rows).rows())[:heap.width].as_signed()
                               for heap, rows in zip(scaled, s.rows, strict=True)])
        for k in lane:
            wide = Cat(Const(0, form.window - 1), s.scaled[k]).as_signed()
            shifted, sign = named(m, wide >> self.shift, f"shifted_{k}"), s.scaled[k][-1]
            above = shifted[form.window - 1:]
            over = (above ^ sign.replicate(len(above))).any()
            limit = Cat((~sign).replicate(form.window - 1), sign)
            moved.append(Mux(over, limit, shifted[:form.window]).as_signed())
        s = pipe.stage(moved=moved)
        cut = form.fraction
        for k in lane:
            heap = BitHeap(m, cut + form.window + 1, f"product_{k}")
            add_product(heap, s.moved[k], self.root)
            heap.add(self.offset[k], cut)
            # A half of the result's last bit, to round.
            heap.add(1 << (cut + TERM_FRACTION - 1))
            totals.append(heap.compress(heap.height))
        s = pipe.stage(rows=[heap.bits() for heap in totals])
        s = pipe.stage(total=[sum(heap.from_register(rows).rows())[:heap.width]
                              for heap, rows in zip(totals, s.rows, strict=True)])
        s = pipe.stage(o=[round_half(total[cut:], total[:cut].any(), TERM_FRACTION, spec.bits)
                          for total in s.total])
        m.d.comb += [place.eq(value) for place, value in zip(self.o, s.o, strict=True)]


def add_square(heap, value, subtract=False):
    """Add the square of a signed value to a bit heap: each product of two bits once, doubled."""
    size = len(value)
    for k in range(size):
        bit = value[k]
        heap.add(-1 << (2 * k) if subtract else 0)
        heap.add_bits(~bit if subtract else bit, 2 * k)
        if k + 1 == size:
            break
        # Products with the sign are negative.
        row = value[k + 1:] & bit.replicate(size - k - 1)
        if subtract:
            row = ~row
            heap.add(1 << (2 * k + 2))
        heap.add(heap.named(row, "square").as_signed(), 2 * k + 2)
