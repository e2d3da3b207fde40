"""A gather whose lanes share the decompression of their operands, to compare with pre_sparsity."""

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.compaction import PrefixCounts, close_gaps, switches
from hwgen.lib.pipeline import Pipeline
from hwgen.units.pre_sparsity.rtl import SIDES, PreSparsity


class Decompressor(wiring.Component):
    """Brings the values of zero-free windows to their positions; other positions hold anything.

    The zero_mask is taken two cycles before its values. Latency 3, interval 1; one serves the lanes
    to which its operand is broadcast.

    Parameters
    ----------
    spec : a PreSparsitySpec, of which bits and window matter
    """

    def __init__(self, spec):
        self.spec = spec
        values = stream.Signature(data.StructLayout({
            "value": data.ArrayLayout(signed(spec.bits), spec.window)}))
        super().__init__({"i_mask": In(stream.Signature(unsigned(spec.window))),
                          "i": In(values), "o": Out(values)})

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        spec = self.spec
        pipe = Pipeline(m, self.i_mask)
        counts = PrefixCounts.of(m, list(self.i_mask.p), "nonzeros")
        s = pipe.stage(counts=counts.packed(spec.window))
        before = counts.unpacked(s.counts, spec.window).added(m, Const(0, 1), "rank")
        settings = switches(before, spec.window)
        swap = Signal(len(settings))
        m.d.comb += swap.eq(settings)
        s = pipe.stage(swap=swap, stay=~swap)
        # The network backwards: a level is its own inverse.
        values = [Value.cast(self.i.p.value[k]) for k in range(spec.window)]
        half = spec.window // 2
        for level in reversed(range(spec.window.bit_length() - 1)):
            part = slice(level * half, (level + 1) * half)
            values = _one_level(m, values, list(s.swap)[part], list(s.stay)[part], level)
        full, advance = Signal(), Signal()
        place = Signal(spec.window * spec.bits, reset_less=True)
        m.d.comb += [
            advance.eq(pipe.valid & self.i.valid & (~full | self.o.ready)),
            self.i.ready.eq(pipe.valid & (~full | self.o.ready)),
            self.o.valid.eq(full), Value.cast(self.o.payload).eq(place)]
        pipe.hold(advance)
        m.d.sync += full.eq(advance | (full & ~self.o.ready))
        with m.If(advance):
            m.d.sync += place.eq(Cat(values))
        return m


def _one_level(m, values, swap, keep, level):
    """Pass one level of switches, which `close_gaps` has as the only one of paired places."""
    half = 1 << level
    order = [low + part for block in range(0, len(values), 2 * half)
             for low in range(block, block + half) for part in (0, half)]
    moved = close_gaps(m, [values[k] for k in order], swap, keep, 2, f"level_{level}")
    result = list(values)
    for k, value in zip(order, moved, strict=True):
        result[k] = value
    return result


class DenseGather(PreSparsity):
    """pre_sparsity for windows of values at their positions: both operands have the same pairs."""

    def kept(self, m, pipe):
        """Which values have a partner."""
        both = self.i_left_mask.p.zero_mask & self.i_right_mask.p.zero_mask
        return pipe.stage(last=self.i_left_mask.p.last, **dict.fromkeys(SIDES, both))
