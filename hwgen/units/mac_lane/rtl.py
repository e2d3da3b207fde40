"""RTL of a MAC lane."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.arithmetic import shift_round, shift_stochastic
from hwgen.lib.bit_heap import BitHeap
from hwgen.lib.multiplier import add_product
from hwgen.lib.pipeline import Pipeline
from hwgen.units.activation.rtl import Activation
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.mac_lane.cost import FIRST_LEVELS, LAST_LEVELS, tree_rows
from hwgen.units.stages import carry_save_levels
from hwgen.units.stochastic_rounding.rtl import noise_of


class MacLane(wiring.Component):
    """`macs` multipliers, one sum, an accumulator, one rounding and a non-linearity.

    The rows of all multipliers' Booth digits and the initial value are summed in one carry-save
    tree, whose last two rows meet the accumulator in the only carry-propagate adder.

    Dot products follow one another without a gap, one beat of up to `macs` pairs a cycle
    (initiation interval 1); `initial` is read on a dot product's first beat, and one result leaves
    for each `last`: `cost.latency` cycles after it, 4 (5 with more than 12 levels of adders), one
    more with stochastic rounding, and the activation's. Elastic: two groups of stages, up to the
    rounded sum and from there on, share an enable each and end in a register slice, so
    back-pressure reaches one group a cycle. Inputs are not registered before the multipliers. The
    constants must be steady from the cycle before the first beat until the last result has left.
    Sums wrap at accumulator_bits, which the spec makes wide enough.

    With `noise_bits` a lane rounds stochastically where `stochastic` is 1. The noise of a result
    follows from `seed` and the result's place in its tile, and so does not depend on stalls.

    Parameters
    ----------
    spec : MacLaneSpec

    Ports
    -----
    i : stream of {left, right: `macs` × signed(bits), initial: signed(accumulator_bits), last};
        multipliers without a pair get zeros. With `noise_bits` also `tile_last`, which counts
        together with `last`: the tile's last dot product ends
    o : stream of {value: signed(bits), accumulator: signed(accumulator_bits)}
    shift : right shift of the accumulator, 0 to accumulator_bits − 1
    stochastic : only with `noise_bits`: 1: sums are rounded up with the probability of the
        fraction; 0: to nearest, ties to even
    seed : only with `noise_bits`: unsigned(noise_bits), of every tile's noise; 0 counts as 1
    activate : 0: rounded sums as they are; 1: the non-linearity is applied; 2: relu
    i_exponent, o_exponent : signed(8), exponents of the rounded sum and of the activation's result
    """

    def __init__(self, spec):
        self.spec = spec
        operand = data.ArrayLayout(signed(spec.bits), spec.macs)
        tile_last = {"tile_last": 1} if spec.noise_bits else {}
        constants = {"stochastic": In(1), "seed": In(spec.noise_bits)} if spec.noise_bits else {}
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "left": operand, "right": operand,
                "initial": signed(spec.accumulator_bits), "last": 1, **tile_last}))),
            "o": Out(stream.Signature(data.StructLayout({
                "value": signed(spec.bits), "accumulator": signed(spec.accumulator_bits)}))),
            "shift": In(range(spec.accumulator_bits)),
            **constants,
            "activate": In(range(3)),
            "i_exponent": In(signed(8)),
            "o_exponent": In(signed(8)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        pipe = Pipeline(m, self.i, group=None, name="lane")
        accumulator, s = self._accumulate(m, pipe, *self._multiply(m, pipe))
        if spec.noise_bits:
            noise = noise_of(m, self.seed, s.tile_last, pipe.advance)
            value, carried = shift_stochastic(pipe, accumulator, self.shift, spec.bits, noise,
                                              ~self.stochastic, accumulator=accumulator)
        else:
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

    def _multiply(self, m, pipe):
        """Begin the sum of a beat's products and of the dot product's initial value."""
        spec, beat = self.spec, self.i.p
        first = Signal(init=1)
        with m.If(pipe.advance):
            m.d.sync += first.eq(beat.last)
        heap = BitHeap(m, spec.accumulator_bits, "sum")
        for left, right in zip(beat.left, beat.right, strict=True):
            add_product(heap, left, right)
        heap.add(heap.named(Mux(first, beat.initial, 0), "initial"))
        s = pipe.stage(bits=heap.compress(FIRST_LEVELS).bits(), first=first, last=beat.last,
                       **self._tile_end(beat))
        heap = heap.from_register(s.bits)
        if carry_save_levels(tree_rows(spec)) > FIRST_LEVELS + LAST_LEVELS:
            s = pipe.stage(bits=heap.compress(FIRST_LEVELS).bits(), first=s.first, last=s.last,
                           **self._tile_end(s))
            heap = heap.from_register(s.bits)
        return heap, s

    def _accumulate(self, m, pipe, heap, s):
        """Add a beat's sum to the open dot product; only what is complete goes on."""
        total = Signal(signed(self.spec.accumulator_bits), reset_less=True)
        # The loop's bits come in last, where one level of adders is left.
        rows = heap.rows()
        heap = BitHeap(m, self.spec.accumulator_bits, "accumulated")
        for row in (*rows, Mux(s.first, 0, total.as_unsigned())):
            heap.add_bits(heap.named(row, "row"), 0)
        left, right = heap.rows()
        with m.If(pipe.advance):
            m.d.sync += total.eq(left + right)
        return total, pipe.stage(keep=s.last, **self._tile_end(s))

    def _tile_end(self, stage):
        """What noise must know of a beat, beside its sum."""
        return {"tile_last": stage.tile_last} if self.spec.noise_bits else {}
