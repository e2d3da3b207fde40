"""RTL of a MAC lane."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import join, partial_products, shift_round
from hwgen.lib.pipeline import Pipeline
from hwgen.units.activation.rtl import Activation
from hwgen.units.activation.spec import ActivationSpec


class MacLane(wiring.Component):
    """`macs` multipliers, an adder tree, an accumulator, one rounding and a non-linearity.

    Dot products follow one another without a gap, one beat of up to `macs` pairs a cycle
    (initiation interval 1); `initial` is read on a dot product's first beat, and one result leaves
    for each `last`, 6 + log2 macs + the activation's latency after it. Elastic: groups of four
    stages share an enable and end in a register slice, so back-pressure reaches one group a cycle.
    The constants must be steady from the cycle before the first beat until the last result has
    left. Sums wrap at accumulator_bits, which the spec makes wide enough.

    Parameters
    ----------
    spec : MacLaneSpec

    Ports
    -----
    i : stream of {left, right: `macs` × signed(bits), initial: signed(accumulator_bits), last};
        multipliers without a pair get zeros
    o : stream of {value: signed(bits), accumulator: signed(accumulator_bits)}
    shift : right shift of the accumulator, 0 to accumulator_bits − 1
    activate : whether the non-linearity is applied
    i_exponent, o_exponent : signed(8), exponents of the rounded sum and of the activation's result
    """

    def __init__(self, spec):
        self.spec = spec
        operand = data.ArrayLayout(signed(spec.bits), spec.macs)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "left": operand, "right": operand,
                "initial": signed(spec.accumulator_bits), "last": 1}))),
            "o": Out(stream.Signature(data.StructLayout({
                "value": signed(spec.bits), "accumulator": signed(spec.accumulator_bits)}))),
            "shift": In(range(spec.accumulator_bits)),
            "activate": In(1),
            "i_exponent": In(signed(8)),
            "o_exponent": In(signed(8)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        pipe = Pipeline(m, self.i, name="lane")
        accumulator = self._accumulate(m, pipe, self._sum(pipe))
        value, carried = shift_round(pipe, accumulator, self.shift, spec.bits,
                                     accumulator=accumulator)
        m.submodules.activation = activation = Activation(
            ActivationSpec(spec.bits, spec.nonlinearity), carried_bits=spec.accumulator_bits)
        pipe.finish(wiring.flipped(activation.i), value=value, carried=carried["accumulator"])
        m.d.comb += [
            activation.activate.eq(self.activate),
            activation.i_exponent.eq(self.i_exponent),
            activation.o_exponent.eq(self.o_exponent),
            self.o.valid.eq(activation.o.valid),
            self.o.p.value.eq(activation.o.p.value),
            self.o.p.accumulator.eq(activation.o.p.carried),
            activation.o.ready.eq(self.o.ready),
        ]
        return m

    def _sum(self, pipe):
        """Multiply in two stages and add in one a level; the stage with the beat's sum."""
        beat, macs = self.i.p, range(self.spec.macs)
        split = [partial_products(beat.left[k], beat.right[k]) for k in macs]
        s = pipe.stage(initial=beat.initial, last=beat.last,
                       **{f"low{k}": split[k][0] for k in macs},
                       **{f"high{k}": split[k][1] for k in macs})
        # The square of the most negative number needs the product's upper bit.
        terms = [join(getattr(s, f"low{k}"), getattr(s, f"high{k}"), self.spec.bits)
                 [:2 * self.spec.bits].as_signed() for k in macs]
        while True:
            s = pipe.stage(initial=s.initial, last=s.last,
                           **{f"term{k}": term for k, term in enumerate(terms)})
            terms = [getattr(s, f"term{k}") for k in range(len(terms))]
            if len(terms) == 1:
                return s
            terms = [a + b for a, b in zip(terms[::2], terms[1::2], strict=True)]

    def _accumulate(self, m, pipe, s):
        """Add a beat's sum to the open dot product; only what is complete goes on."""
        total = Signal(signed(self.spec.accumulator_bits), reset_less=True)
        first = Signal(init=1)
        accumulated = Signal.like(total)
        m.d.comb += accumulated.eq(Mux(first, s.initial, total) + s.term0)
        with m.If(pipe.advance):
            m.d.sync += [total.eq(accumulated), first.eq(s.last)]
        return pipe.stage(keep=s.last, accumulator=accumulated).accumulator
