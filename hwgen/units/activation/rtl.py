"""RTL of relu and gelu."""

from amaranth.hdl import Array, Const, Module, Mux, Shape, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import join, magnitude, partial_products, shift_bytes, shift_round
from hwgen.lib.pipeline import Pipeline
from hwgen.units.activation.table import DEGREE, LARGEST_GAIN, LIMIT_LOG2, tail_table


class Activation(wiring.Component):
    """relu or gelu of a stream of numbers, and a by-pass.

    Latency 3 (relu) or 15 cycles (gelu), initiation interval 1, elastic: groups of four stages
    that share an enable, cut by register slices. The constants must be steady from the cycle
    before the first value until the last has left.

    Parameters
    ----------
    spec : ActivationSpec
    carried_bits : width of `carried`, which leaves with the value it came with; 0 for none

    Ports
    -----
    i, o : streams of {value: signed(bits), carried: unsigned(carried_bits)}
    activate : values pass unchanged while 0
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
            "activate": In(1),
            "i_exponent": In(signed(8)),
            "o_exponent": In(signed(8)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        pipe = Pipeline(m, self.i, name=self.spec.nonlinearity)
        carried = {name: self.i.p[name] for name, _ in self.i.p.shape() if name != "value"}
        if self.spec.nonlinearity == "relu":
            wide, lowest, drop, carried = self._relu(carried)
        else:
            wide, lowest, drop, carried = self._gelu(m, pipe, carried)
        # A constant's arithmetic is registered once, away from the data's path.
        bits = self.spec.bits
        fall = Signal(signed(10))
        shift = Signal(range(max(bits - lowest + 1, 8)), reset_less=True)
        m.d.comb += fall.eq(Mux(self.activate, self.o_exponent - self.i_exponent, 0))
        m.d.sync += shift.eq(Mux(fall < lowest, 0, Mux(fall > bits, bits, fall) - lowest))
        value, carried = shift_round(pipe, wide, shift, bits, drop=drop, **carried)
        pipe.finish(self.o, value=value, **carried)
        return m

    def _relu(self, carried):
        """Return the value shifted up as far as it may have to rise."""
        rise = self.spec.bits - 1
        value = Mux(self.activate & self.i.p.value[-1], 0, self.i.p.value)
        return value.shift_left(rise), -rise, 0, carried

    def _gelu(self, m, pipe, carried):
        """Return relu(x) − |x|·Q(|x|) with the table's fraction bits, after twelve stages."""
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
        s = pipe.stage(negative=value[-1], size=magnitude(value), **carried)
        # |x| on the table's grid; what lies above the table's end shows in `beyond`.
        s = stage(s, aligned=shift_bytes(s.size.shift_left(whole), fall[3:]))
        s = stage(s, aligned=s.aligned >> fall[:3])
        segment = s.aligned[table.segment_bits:whole]
        s = stage(s, drop=("aligned",), inside=s.aligned[:table.segment_bits],
                  beyond=s.aligned[whole:].any() | ~self.activate,
                  **{f"c{power}": column[segment]
                     for power, column in enumerate(_columns(table))})
        tail = f"c{DEGREE}"
        for power, used in zip(range(DEGREE - 1, -1, -1), table.used_bits, strict=True):
            low, high = partial_products(getattr(s, tail), s.inside[-used:])
            s = stage(s, drop=(tail,), low=low, high=high)
            total = getattr(s, f"c{power}") + join(s.low, s.high, used).shift_right(used)
            tail = f"c{power}"
            s = stage(s, drop=("low", "high"),
                      **{tail: total if power else Mux(s.beyond, 0, total)})
        low, high = partial_products(s.c0, s.size)
        linear = Mux(s.negative, Mux(self.activate, 0, -s.size), s.size)[:bits].as_signed()
        s = stage(s, drop=("c0", "inside", "beyond", "negative", "size"),
                  low=low, high=high, linear=linear)
        wide = s.linear.shift_left(table.fraction_bits) - join(s.low, s.high, bits)
        s = stage(s, drop=("low", "high", "linear"), wide=wide)
        return (s.wide, -LARGEST_GAIN, table.fraction_bits - LARGEST_GAIN,
                {name: getattr(s, name) for name in carried})


def _columns(table):
    """Coefficients by power, as constants of the least width that holds the column."""
    for column in zip(*table.coefficients, strict=True):
        shape = Shape.cast(range(min(*column, -1), max(*column, 0) + 1))
        yield Array(Const(value, shape) for value in column)
