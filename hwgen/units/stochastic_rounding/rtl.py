"""Stochastic rounding of accumulators, one a cycle."""

from functools import reduce
from operator import xor

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import shift_stochastic
from hwgen.lib.pipeline import Pipeline
from hwgen.units.stochastic_rounding.noise import ZERO_SEED, leap_columns
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec


class StochasticRounding(wiring.Component):
    """Shifts right and rounds up with the probability of the discarded fraction, saturating.

    The noise is a linear feedback shift register that takes a tile's seed with its first element
    and leaps with every element that is accepted, and so does not depend on stalls.

    Latency 3 cycles, initiation interval 1, elastic: one enable for the three stages, the ready
    register of the slice at the output. `shift` must be steady from the cycle before the first
    element until the last result has left.

    Parameters
    ----------
    spec : widths of accumulator, result and noise

    Ports
    -----
    i : stream of {value: signed(accumulator_bits), seed: unsigned(noise_bits), last}; the seed
        counts on the first element of a tile, 0 as 1
    o : stream of {value: signed(bits), last}
    shift : right shift of the accumulators, 0 to accumulator_bits − 1
    """

    def __init__(self, spec: StochasticRoundingSpec):
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "value": signed(spec.accumulator_bits), "seed": unsigned(spec.noise_bits),
                "last": 1}))),
            "o": Out(stream.Signature(data.StructLayout({
                "value": signed(spec.bits), "last": 1}))),
            "shift": In(range(spec.accumulator_bits)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        # The constant is registered, so that its fan-out is not its driver's.
        shift = Signal.like(self.shift, reset_less=True)
        m.d.sync += shift.eq(self.shift)
        pipe = Pipeline(m, self.i, name="round")
        noise = noise_of(m, self.i.p.seed, self.i.p.last, pipe.advance)
        value, carried = shift_stochastic(pipe, self.i.p.value, shift, self.spec.bits, noise,
                                          last=self.i.p.last)
        pipe.finish(self.o, value=value, **carried)
        return m


def noise_of(m, seed, last, accepted):
    """Noise of the element that is offered: a register that leaps with every element.

    Parameters
    ----------
    m : the module that gets the register
    seed : unsigned value; counts on the first element of a tile, 0 as 1
    last : whether the element is the last of its tile
    accepted : whether it goes on in this cycle
    """
    state = Signal(len(seed), reset_less=True)
    first = Signal(init=1)
    start, leapt = Signal.like(state), Signal.like(state)
    columns = leap_columns(len(seed))
    m.d.comb += [
        start.eq(Mux(first, Mux(seed == 0, ZERO_SEED, seed), state)),
        leapt.eq(Cat(
            reduce(xor, (bit for bit, column in zip(start, columns, strict=True)
                         if column >> place & 1))
            for place in range(len(seed)))),
    ]
    with m.If(accepted):
        m.d.sync += [state.eq(leapt), first.eq(last)]
    return leapt
