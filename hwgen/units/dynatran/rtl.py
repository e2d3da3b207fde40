"""Pruning against a threshold, in parallel."""

from amaranth.hdl import Module, Mux, Signal, signed, unsigned
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
        for lane in range(spec.parallel):
            value = self.i.p.value[lane]
            magnitude = Signal(spec.bits, name=f"magnitude_{lane}")
            m.d.comb += magnitude.eq(Mux(value < 0, -value, value))
            with m.If(self.i.p.valid_mask[lane] & (magnitude >= self.threshold)):
                m.d.comb += [pruned[lane].eq(value), zero_mask[lane].eq(magnitude != 0)]
        pipe = Pipeline(m, self.i)
        pipe.finish(self.o, value=pruned, zero_mask=zero_mask, last=self.i.p.last)
        return m
