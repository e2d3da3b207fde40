"""Compression of results to zero-free form, a value a cycle."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.pipeline import OutputRegister, Skid
from hwgen.units.post_sparsity.spec import PostSparsitySpec


class PostSparsity(wiring.Component):
    """Packs values that are not zero, `word` a beat, and their zero_mask, `mask_word` bits a beat.

    A tile ends with one `last` beat on each output. A word leaves when the next non-zero value or
    the end of the tile has come, so that a tile of n non-zeros is max(1, ⌈n / word⌉) beats of
    which only the last may hold fewer than `word`: `count` says how many, the others are zero.
    `o_mask` has ⌈elements / mask_word⌉ beats, the last filled up with zeros.

    A value is taken in every cycle; the last beats leave 2 cycles after the tile's last value came.
    Each output has a collecting register and an output register of its own: while one of them
    stalls, the other goes on, and the input with it until a beat of the stalled one has nowhere to
    go; then one more value fits in front. So a word needs two registers and no third. `valid`, the
    payloads and `i.ready` come from registers.

    Parameters
    ----------
    spec : widths of a value and of a beat of each output

    Ports
    -----
    i : the tile's values, one a beat; last marks the tile's end
    o_value : values that are not zero, in order; count says how many a beat holds
    o_mask : the zero_mask, a bit for each of the tile's values, set where it is not zero
    """

    def __init__(self, spec: PostSparsitySpec):
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(data.StructLayout({"value": signed(spec.bits), "last": 1}))),
            "o_value": Out(stream.Signature(data.StructLayout({
                "value": data.ArrayLayout(signed(spec.bits), spec.word),
                "count": range(spec.word + 1), "last": 1}))),
            "o_mask": Out(stream.Signature(data.StructLayout({
                "zero_mask": unsigned(spec.mask_word), "last": 1}))),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        m.submodules.skid = skid = Skid(self.i.payload.shape())
        m.submodules.value_register = value_register = OutputRegister(self.o_value.payload.shape())
        m.submodules.mask_register = mask_register = OutputRegister(self.o_mask.payload.shape())
        wiring.connect(m, wiring.flipped(self.i), skid.i)
        wiring.connect(m, value_register.o, wiring.flipped(self.o_value))
        wiring.connect(m, mask_register.o, wiring.flipped(self.o_mask))
        value_free, mask_free, take = Signal(), Signal(), Signal()
        incoming = Signal(signed(self.spec.bits))
        ends = Signal()
        m.d.comb += [
            skid.o.ready.eq(value_free & mask_free),
            take.eq(skid.o.valid & skid.o.ready),
            incoming.eq(skid.o.p.value),
            ends.eq(skid.o.p.last),
        ]
        self._collect_values(m, value_register.i, take, incoming, ends, value_free)
        self._collect_mask(m, mask_register.i, take, incoming != 0, ends, mask_free)
        return m

    def _collect_values(self, m, o, take, value, last, free):
        """Gather a word. A full one waits, for it may turn out to be the tile's last."""
        spec = self.spec
        word = [Signal(signed(spec.bits), name=f"word_{k}", reset_less=True)
                for k in range(spec.word)]
        count = Signal(range(spec.word + 1), name="word_count")
        ended = Signal(name="word_ended")
        found, full, leave = Signal(), Signal(name="word_full"), Signal(name="word_leaves")
        base = Signal.like(count)
        m.d.comb += [
            found.eq(take & (value != 0)),
            full.eq(count == spec.word),
            free.eq(o.ready | ~(full | ended)),
            o.valid.eq(ended | (full & found)),
            o.p.count.eq(count),
            o.p.last.eq(ended),
            leave.eq(o.valid & o.ready),
            base.eq(Mux(leave, 0, count)),
        ]
        m.d.sync += [count.eq(base + found), ended.eq(Mux(take, last, ended & ~leave))]
        for k, register in enumerate(word):
            m.d.comb += o.p.value[k].eq(Mux(count > k, register, 0))
            with m.If(found & (base == k)):
                m.d.sync += register.eq(value)

    def _collect_mask(self, m, o, take, kept, last, free):
        """Gather the bits of a word of the zero_mask."""
        spec = self.spec
        bits = [Signal(name=f"mask_{k}", reset_less=True) for k in range(spec.mask_word)]
        count = Signal(range(spec.mask_word + 1), name="mask_count")
        ended = Signal(name="mask_ended")
        leave, base = Signal(name="mask_leaves"), Signal.like(count)
        m.d.comb += [
            o.valid.eq(ended | (count == spec.mask_word)),
            free.eq(o.ready | ~o.valid),
            o.p.zero_mask.eq(Cat(bit & (count > k) for k, bit in enumerate(bits))),
            o.p.last.eq(ended),
            leave.eq(o.valid & o.ready),
            base.eq(Mux(leave, 0, count)),
        ]
        m.d.sync += [count.eq(base + take), ended.eq(Mux(take, last, ended & ~leave))]
        for k, bit in enumerate(bits):
            with m.If(take & (base == k)):
                m.d.sync += bit.eq(kept)
