"""Pruning against a threshold, in parallel."""

from amaranth.hdl import Cat, Module, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.pipeline import Pipeline
from hwgen.units.dynatran.spec import DynatranSpec


class Dynatran(wiring.Component):
    """Sets values whose magnitude is below `threshold`, and invalid positions, to zero.

    The magnitude is unsigned and as wide as a value, so that the most negative number has one.
    Latency 1 cycle, initiation interval 1; the register slice at the output takes the
    back-pressure.

    Parameters
    ----------
    spec : values a beat and their width

    Ports
    -----
    i : values, which of them are real positions (valid_mask), and whether the tile ends (last)
    o : the pruned values, which of them are not zero (zero_mask), and the input's last
    threshold : smallest magnitude that is kept
    """

    def __init__(self, spec: DynatranSpec):
        self.spec = spec
        value = data.ArrayLayout(signed(spec.bits), spec.parallel)
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({
                "value": value, "valid_mask": unsigned(spec.parallel), "last": 1}))),
            "o": Out(stream.Signature(data.StructLayout({
                "value": value, "zero_mask": unsigned(spec.parallel), "last": 1}))),
            "threshold": In(unsigned(spec.bits)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        pruned = Signal(data.ArrayLayout(signed(spec.bits), spec.parallel))
        zero_mask = Signal(spec.parallel)
        # The least magnitude that is kept is at least 1, for a zero is pruned to itself; so the
        # zero_mask says what is kept.
        below = Signal(spec.bits)
        m.d.comb += below.eq(self.threshold - self.threshold.any())
        for lane in range(spec.parallel):
            value = self.i.p.value[lane].as_unsigned()
            sign = value[-1]
            # |x| > below: x + ¬below carries out, or ¬x + 1 + ¬below for a negative x, whose 1 is
            # the carry of a place before the first.
            size = Cat(sign, value ^ sign.replicate(spec.bits))
            total = Signal(spec.bits + 2, name=f"total_{lane}")
            m.d.comb += [
                total.eq(size + Cat(sign, ~below)),
                zero_mask[lane].eq(self.i.p.valid_mask[lane] & total[-1]),
                pruned[lane].eq(value & zero_mask[lane].replicate(spec.bits)),
            ]
        pipe = Pipeline(m, self.i)
        pipe.finish(self.o, value=pruned, zero_mask=zero_mask, last=self.i.p.last)
        return m
