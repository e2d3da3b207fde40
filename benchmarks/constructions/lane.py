"""What a MAC lane's arithmetic alone takes: a plain lower bound for mac_lane."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from constructions.registers import Registers, accumulate, noise

from hwgen.lib.arithmetic import shift_round, shift_stochastic
from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.multiplier import add_product
from hwgen.units.activation.rtl import column, tail_shapes
from hwgen.units.activation.table import DEGREE, LARGEST_GAIN, LIMIT_LOG2, tail_table

FIRST_LEVELS = 9
"""Levels of full adders in the cycle of the multipliers: the more, the fewer bits are registered;
with one more, 16 multipliers of 20 bits miss 1.429 ns."""


class LaneBound(wiring.Component):
    """Dot products of `macs` pairs a cycle, rounded, and gelu of the result.

    A lane with `noise_bits` rounds stochastically alone: its shifter is wider and takes one stage
    more, and a register of noise leaps in every cycle.

    Multipliers (Booth's rows), one carry-save tree, the accumulator with the only carry-propagate
    adder, shift, rounding and saturation; gelu's table, Horner's steps and product, and again shift
    and rounding. Between them the registers of values that a pipeline of 700 MHz needs, in the
    middle of the tree where it is as narrow as the clock lets it be.

    Left out, of what mac_lane has: valid bits, enables, back-pressure and the slices; the initial
    value and the sum as a second result, which passes through all stages of the activation; relu,
    the by-pass and the arithmetic of exponents, which come as shifts. A register holds what the
    next stage needs of a beat, and nothing else.

    Parameters
    ----------
    spec : MacLaneSpec of a gelu lane
    with_initial : whether the tree also adds an initial value, where `first` is 1
    with_sum : whether the sum leaves as a second result, too

    Ports
    -----
    left, right : `macs` × signed(bits), a beat every cycle
    first : whether a dot product begins
    initial : signed(accumulator_bits)
    shift : of the sum, 0 to accumulator_bits − 1
    fall : right shift of the rounded sum, 2^`whole` times larger, onto the table's grid
    rise : right shift of the result, which is 2^LARGEST_GAIN times too large
    load, seed : with noise alone: whether it begins at `seed` in the next cycle
    noise : with noise alone: what is added to a sum in the cycle after it is complete
    value : signed(bits), `latency` cycles after a dot product's last beat
    accumulator : the sum
    """

    def __init__(self, spec, *, with_initial=False, with_sum=False):
        self.spec = spec
        self.table = tail_table(spec.bits)
        self.whole = self.table.argument_bits + LIMIT_LOG2
        self._with_initial, self._with_sum = with_initial, with_sum
        operand = data.ArrayLayout(signed(spec.bits), spec.macs)
        wide = signed(spec.accumulator_bits)
        super().__init__({
            "left": In(operand), "right": In(operand), "first": In(1),
            "shift": In(range(spec.accumulator_bits)),
            "fall": In(range(self.whole + spec.bits + 1)),
            "rise": In(range(spec.bits + LARGEST_GAIN + 1)),
            "value": Out(signed(spec.bits)),
            **({"load": In(1), "seed": In(spec.noise_bits), "noise": Out(spec.noise_bits)}
               if spec.noise_bits else {}),
            **({"initial": In(wide)} if with_initial else {}),
            **({"accumulator": Out(wide)} if with_sum else {}),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        pipe = Registers(m, "lane")
        total = self._accumulate(m, pipe)
        carried = {"accumulator": total} if self._with_sum else {}
        if spec.noise_bits:
            m.d.comb += self.noise.eq(noise(m, self.load, self.seed))
            value, carried = shift_stochastic(pipe, total, self.shift, spec.bits, self.noise,
                                              **carried)
        else:
            value, carried = shift_round(pipe, total, self.shift, spec.bits, **carried)
        s = pipe.stage(value=value, **carried)
        carried = {name: getattr(s, name) for name in carried}
        value, carried = self._gelu(m, pipe, s.value, carried)
        s = pipe.stage(value=value, **carried)
        m.d.comb += self.value.eq(s.value)
        if self._with_sum:
            m.d.comb += self.accumulator.eq(s.accumulator)
        # The accumulator is the one register that the pipeline does not count.
        self.latency = pipe.latency + 1
        return m

    def _accumulate(self, m, pipe):
        """Sum the products of the beats since the last `first`."""
        width = self.spec.accumulator_bits
        heap = BitHeap(m, width, "sum")
        for left, right in zip(self.left, self.right, strict=True):
            add_product(heap, left, right)
        if self._with_initial:
            heap.add(heap.named(Mux(self.first, self.initial, 0), "initial"))
        s = pipe.stage(bits=heap.compress(FIRST_LEVELS).bits(), first=self.first)
        return accumulate(m, heap.from_register(s.bits), s.first, "total")

    def _gelu(self, m, pipe, value, carried):
        """x·Φ(x) as relu(x) − |x|·Q(|x|), rounded but not registered."""
        bits, table = self.spec.bits, self.table
        positive = ~value[-1]
        opposite = Signal(signed(bits))
        aligned = Signal(self.whole + bits)
        m.d.comb += [
            opposite.eq(-value),
            aligned.eq(Mux(positive, value, opposite).as_unsigned().shift_left(self.whole)
                       >> self.fall),
        ]
        # x > 0 is the complement of what is registered, −x, and a 1.
        s = pipe.stage(below=Mux(positive, opposite, value), positive=positive,
                       beyond=aligned[self.whole:].any(), inside=aligned[:table.segment_bits],
                       segment=aligned[table.segment_bits:self.whole], **carried)
        s = self._stage(pipe, s, tail=column(table, DEGREE)[s.segment])
        for power, shape in zip(range(DEGREE - 1, -1, -1), tail_shapes(table), strict=True):
            used = table.used_bits[DEGREE - 1 - power]
            heap = BitHeap(m, used + shape.width, f"tail{power}")
            add_product(heap, s.tail, s.inside[-used:])
            heap.add(heap.named(column(table, power)[s.segment], "coefficient"), used)
            if power < DEGREE - 1:
                gone = ("tail", *(() if power else ("inside", "segment")))
                s = self._stage(pipe, s, gone, bits=heap.compress(heap.height).bits())
                heap = heap.from_register(s.bits)
            total = sum(heap.rows())[used:used + shape.width].as_signed()
            s = self._stage(pipe, s, ("bits",), tail=total if power else Mux(s.beyond, 0, total))
        heap = BitHeap(m, bits + table.fraction_bits, "product")
        add_product(heap, s.tail, s.below)
        linear = heap.named((~s.below[:] & s.positive.replicate(bits)).as_signed(), "linear")
        heap.add(linear, table.fraction_bits)
        heap.add_bits(s.positive, table.fraction_bits)
        s = self._stage(pipe, s, ("tail", "below", "positive", "beyond"),
                        bits=heap.compress(heap.height).bits())
        wide = Signal(signed(heap.width))
        m.d.comb += wide.eq(sum(heap.from_register(s.bits).rows()))
        return shift_round(pipe, wide, self.rise, bits, drop=table.fraction_bits - LARGEST_GAIN,
                           **{name: getattr(s, name) for name in carried})

    def _stage(self, pipe, s, gone=(), **values):
        """Register values; what was in the stage before and is needed later passes along."""
        kept = {name: value for name, value in vars(s).items() if name not in gone}
        return pipe.stage(**(kept | values))
