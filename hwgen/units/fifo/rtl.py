"""First in, first out, with full back-pressure."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.flow import Queue
from hwgen.units.fifo.spec import FifoSpec


class Fifo(wiring.Component):
    """A queue between two streams.

    An entry leaves 2 cycles after it came at the earliest; initiation interval 1. `i.ready` and
    `o.valid` are registers, `level` too; `o.payload` is the memory's output register. `i.ready` is
    low exactly while `level` is `depth`, so an entry that leaves makes room in the next cycle.

    Parameters
    ----------
    spec : width and number of entries

    Ports
    -----
    i, o : streams of unsigned(bits)
    level : entries that have come and not left, 0 to depth
    """

    def __init__(self, spec: FifoSpec):
        self.spec = spec
        super().__init__({
            "i": In(stream.Signature(unsigned(spec.bits))),
            "o": Out(stream.Signature(unsigned(spec.bits))),
            "level": Out(range(spec.depth + 1)),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        depth = self.spec.depth
        m.submodules.queue = queue = Queue(unsigned(self.spec.bits), depth)
        level, ready = Signal.like(self.level), Signal(init=1)
        write, read = Signal(), Signal()
        m.d.comb += [
            write.eq(self.i.valid & ready),
            read.eq(queue.ready & self.o.ready),
            queue.write.eq(write),
            queue.w_data.eq(self.i.payload),
            queue.read.eq(read),
            self.i.ready.eq(ready),
            self.o.valid.eq(queue.ready),
            self.o.payload.eq(queue.r_data),
            self.level.eq(level),
        ]
        m.d.sync += [
            level.eq(level + write - read),
            ready.eq(read | ~((level == depth) | (write & (level == depth - 1)))),
        ]
        return m
