"""RTL of relu and gelu."""

from amaranth.hdl import Array, Const, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import shift_round
from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.multiplier import add_product
from hwgen.lib.pipeline import Pipeline
from hwgen.units.activation.table import DEGREE, LARGEST_GAIN, LIMIT_LOG2, tail_table


class Activation(wiring.Component):
    """relu or gelu of a stream of numbers, and a by-pass.

    Latency 2 (relu) or 10 cycles (gelu), initiation interval 1, elastic: all stages share an
    enable, the ready register of the slice at the output. The constants must be steady from the
    cycle before the first value until the last has left.

    Parameters
    ----------
    spec : ActivationSpec
    carried_bits : width of `carried`, which leaves with the value it came with; 0 for none

    Ports
    -----
    i, o : streams of {value: signed(bits), carried: unsigned(carried_bits)}
    activate : 0: values pass unchanged; 1: the non-linearity; 2: relu, whatever that is
    i_exponent, o_exponent : signed(8), exponents of argument and result
    """

    def __init__(self, spec, carried_bits=0):
        self.spec = spec
        fields = {"value": signed(spec.bits)}
        if carried_bits:
            fields["carried"] = unsigned(carried_bits)
        shape = data.StructLayout(fields)
        super().__init__({
            "i": In(stream.Signature(shape)),
            "o": Out(stream.Signature(shape)),
            "activate": In(range(3)),
            "i_exponent": In(signed(8)),
            "o_exponent": In(signed(8)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        pipe = Pipeline(m, self.i, group=None, name=self.spec.nonlinearity)
        carried = {name: self.i.p[name] for name, _ in self.i.p.shape() if name != "value"}
        if self.spec.nonlinearity == "relu":
            wide, lowest, drop, carried = self._relu(carried)
        else:
            wide, lowest, drop, carried = self._gelu(m, pipe, carried)
        # A constant's arithmetic is registered once, away from the data's path.
        bits = self.spec.bits
        fall = Signal(signed(10))
        shift = Signal(range(max(bits - lowest + 1, 8)), reset_less=True)
        m.d.comb += fall.eq(Mux(self.activate.any(), self.o_exponent - self.i_exponent, 0))
        m.d.sync += shift.eq(Mux(fall < lowest, 0, Mux(fall > bits, bits, fall) - lowest))
        value, carried = shift_round(pipe, wide, shift, bits, drop=drop, **carried)
        pipe.finish(self.o, value=value, **carried)
        return m

    def _relu(self, carried):
        """Return the value shifted up as far as it may have to rise."""
        rise = self.spec.bits - 1
        value = Mux(self.activate.any() & self.i.p.value[-1], 0, self.i.p.value)
        return value.shift_left(rise), -rise, 0, carried

    def _gelu(self, m, pipe, carried):
        """Return relu(x) − |x|·Q(|x|) with the table's fraction bits, after eight stages.

        Horner's steps and the last product are bit heaps; those of more than four levels of adders
        are cut before their carry-propagate adder.
        """
        bits, table = self.spec.bits, tail_table(self.spec.bits)
        whole = table.argument_bits + LIMIT_LOG2
        fall = Signal(range(whole + bits + 1), reset_less=True)
        m.d.sync += fall.eq(Mux(self.i_exponent > LIMIT_LOG2, 0,
                                Mux(self.i_exponent < LIMIT_LOG2 - whole - bits, whole + bits,
                                    LIMIT_LOG2 - self.i_exponent)))

        def stage(s, drop=(), **values):
            """Register values; those of `s` pass along unless dropped or computed anew."""
            kept = {name: value for name, value in vars(s).items() if name not in drop}
            return pipe.stage(**(kept | values))

        value = self.i.p.value
        positive = ~value[-1]
        opposite = Signal(signed(bits))
        m.d.comb += opposite.eq(-value)
        # |x| on the table's grid; what lies above the table's end shows in `beyond`.
        size = Mux(positive, value, opposite).as_unsigned()
        aligned = Signal(whole + bits)
        m.d.comb += aligned.eq(size.shift_left(whole) >> fall)
        s = pipe.stage(
            below=Mux(positive, opposite, value), positive=positive,
            beyond=aligned[whole:].any() | ~self.activate[0],
            inside=aligned[:table.segment_bits], segment=aligned[table.segment_bits:whole],
            **carried)
        s = stage(s, tail=column(table, DEGREE)[s.segment])
        for power, shape in zip(range(DEGREE - 1, -1, -1), tail_shapes(table), strict=True):
            used = table.used_bits[DEGREE - 1 - power]
            heap = BitHeap(m, used + shape.width, f"tail{power}")
            add_product(heap, s.tail, s.inside[-used:])
            heap.add(heap.named(column(table, power)[s.segment], "coefficient"), used)
            if power < DEGREE - 1:
                s = stage(s, drop=("tail", *(() if power else ("inside", "segment"))),
                          bits=heap.compress(heap.height).bits())
                heap = heap.from_register(s.bits)
            left, right = heap.rows()
            total = (left + right)[used:used + shape.width].as_signed()
            s = stage(s, drop=("bits",), tail=total if power else Mux(s.beyond, 0, total))
        heap = BitHeap(m, bits + table.fraction_bits, "product")
        add_product(heap, s.tail, s.below)
        # x itself is the complement of −x, and a 1, where it counts.
        linear = Mux(s.positive, ~s.below, Mux(self.activate.any(), 0, s.below))
        heap.add(heap.named(linear[:bits].as_signed(), "linear"), table.fraction_bits)
        heap.add_bits(s.positive, table.fraction_bits)
        s = stage(s, drop=("tail", "below", "positive", "beyond"),
                  bits=heap.compress(heap.height).bits())
        left, right = heap.from_register(s.bits).rows()
        wide = Signal(signed(heap.width))
        m.d.comb += wide.eq(left + right)
        return (wide, -LARGEST_GAIN, table.fraction_bits - LARGEST_GAIN,
                {name: getattr(s, name) for name in carried})


def column(table, power):
    """Coefficients of a power, as constants of the least width that holds them all."""
    values = [row[power] for row in table.coefficients]
    shape = Shape.cast(range(min(*values, -1), max(*values, 0) + 1))
    return Array(Const(value, shape) for value in values)


def tail_shapes(table):
    """Shapes of what Horner's steps give, the highest power's first: the least that hold it."""
    lows = highs = [row[DEGREE] for row in table.coefficients]
    for power in range(DEGREE - 1, -1, -1):
        # The argument runs from 0 to just below 1, and what is cut off rounds down.
        lows = [row[power] + min(low, 0)
                for row, low in zip(table.coefficients, lows, strict=True)]
        highs = [row[power] + max(high, 0)
                 for row, high in zip(table.coefficients, highs, strict=True)]
        yield Shape.cast(range(min(*lows, -1), max(highs) + 1))
