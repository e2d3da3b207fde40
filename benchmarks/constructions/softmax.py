"""What softmax's arithmetic alone takes: a plain lower bound, and the dividers it stands for."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Const, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from constructions.registers import Registers

from hwgen.units.softmax.rtl import Softmax
from hwgen.units.softmax.table import Format


class SoftmaxBound(Softmax):
    """A part of softmax's arithmetic: exponentials, the reciprocal, or the last products.

    `parallel` exponentials, one reciprocal and `parallel` products, a beat of each every cycle: the
    unit's own tables and products, each in registers of values. Left out, of what softmax has: the
    row's maximum and sum, row buffers and all other queues, masks, the sum's power of two, valid
    bits, enables and back-pressure. What the parts give one another comes from outside.

    Parameters
    ----------
    spec : SoftmaxSpec
    part : one of `PARTS`

    Ports of "exponential"
    ----------------------
    i_exponent : exponent of the scores
    distance : maximum less score, `parallel` × unsigned(bits)
    term : its exponential, kept + 1 bits

    Ports of "reciprocal"
    ---------------------
    mantissa, power : the sum of a row, as (1 + mantissa · 2^−inverse) · 2^power
    inverse : its reciprocal

    Ports of "product"
    ------------------
    term, inverse : the factors
    value : their product, rounded
    """

    PARTS = ("exponential", "reciprocal", "product")

    def __init__(self, spec, part):
        self._spec = spec
        self._part = part
        self._format = form = Format.of(spec)
        terms = data.ArrayLayout(unsigned(form.kept + 1), spec.parallel)
        ports = {
            "exponential": {
                "i_exponent": In(signed(8)),
                "distance": In(data.ArrayLayout(unsigned(spec.bits), spec.parallel)),
                "term": Out(terms)},
            "reciprocal": {"mantissa": In(form.inverse), "power": In(range(form.growth + 1)),
                           "inverse": Out(form.inverse)},
            "product": {"term": In(terms), "inverse": In(form.inverse),
                        "value": Out(data.ArrayLayout(signed(spec.bits), spec.parallel))},
        }
        wiring.Component.__init__(self, ports[part])

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        pipe = Registers(m, self._part)
        if self._part == "exponential":
            self._terms(m, pipe)
        elif self._part == "reciprocal":
            m.d.comb += self.inverse.eq(self._inverse(m, pipe, self.mantissa, self.power))
        else:
            terms = SimpleNamespace(value=list(self.term), last=Const(0, 1))
            s = self._product(m, pipe, terms, self.inverse)
            m.d.comb += [place.eq(value) for place, value in zip(self.value, s.value, strict=True)]
        self.latency = pipe.latency
        return m

    def _terms(self, m, pipe):
        """Exponentials as they go into the row buffer."""
        form, lane = self._format, range(self._spec.parallel)
        s = self._exponential(m, pipe, list(self.distance), last=Const(0, 1),
                              valid_mask=Const(-1, self._spec.parallel))
        cut = form.fraction + form.growth - form.kept
        for k in lane:
            shifted = Signal(form.fraction + form.growth + 1, name=f"shifted_{k}")
            m.d.comb += [shifted.eq(Cat(Const(0, form.growth), s.mantissa[k]) >> s.whole[k]),
                         self.term[k].eq(shifted[cut:])]


class Divider(wiring.Component):
    """Unsigned division without registers but that of the quotient: one row a quotient bit.

    Each row subtracts the divisor from what is left and keeps the difference if it is not negative
    (restoring division).

    Parameters
    ----------
    dividend_bits, divisor_bits : widths
    kind : how a row subtracts. "ripple": full adders one after another, each no wider than the
        divisor and a bit; "operator": the language's `//`, for which the synthesiser makes
        carry-lookahead subtracters as wide as the dividend

    Ports
    -----
    dividend, divisor : unsigned; the divisor is not 0
    quotient : unsigned(dividend_bits), in the cycle after
    """

    def __init__(self, dividend_bits, divisor_bits, kind):
        if kind not in ("ripple", "operator"):
            raise ValueError(f"kind must be 'ripple' or 'operator', not {kind!r}")
        self._kind = kind
        super().__init__({"dividend": In(dividend_bits), "divisor": In(divisor_bits),
                          "quotient": Out(dividend_bits)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        if self._kind == "operator":
            m.d.sync += self.quotient.eq(self.dividend // self.divisor)
        else:
            m.d.sync += self.quotient.eq(self._rows(m))
        return m

    def _rows(self, m):
        """The quotient, from its highest bit."""
        size = len(self.divisor)
        rest, quotient = Const(0, size), []
        for number, bit in enumerate(reversed(self.dividend)):
            left = Cat(bit, rest)
            difference, fits = self._subtract(m, left, number)
            quotient.append(fits)
            following = Signal(size, name=f"rest_{number}")
            m.d.comb += following.eq((difference & fits.replicate(size))
                                     | (left[:size] & (~fits).replicate(size)))
            rest = following
        return Cat(reversed(quotient))

    def _subtract(self, m, left, number):
        """Left less the divisor, and whether it is not negative: a carry from bit to bit."""
        carry, difference = Const(1, 1), []
        for k, bit in enumerate(left):
            other = ~self.divisor[k] if k < len(self.divisor) else Const(1, 1)
            half = Signal(name=f"half_{number}_{k}")
            following = Signal(name=f"carry_{number}_{k}")
            m.d.comb += [half.eq(bit ^ other), following.eq((bit & other) | (carry & half))]
            difference.append(half ^ carry)
            carry = following
        return Cat(difference[:len(self.divisor)]), carry
