"""Pipelines that never stall, between queues that keep room for what is in flight."""

from types import SimpleNamespace

from amaranth.hdl import Module, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out


class Flow:
    """Registers without enable: what enters comes out a fixed number of cycles later.

    There is no back-pressure and so no enable and no ready path at all. Who lets a beat in has
    reserved room for it where it will arrive (see `room`). Only the valid bits have a reset.

    Parameters
    ----------
    m : the module that the registers are added to
    valid : whether a beat enters in this cycle
    name : prefix of the signals
    """

    def __init__(self, m, valid, name):
        self._m = m
        self._name = name
        self.valid = valid
        self.latency = 0

    def stage(self, keep=None, **values):
        """Register `values`, each a value or a list of values, and return the registers.

        Parameters
        ----------
        keep : if given, only beats for which it is 1 go on
        """
        m, prefix = self._m, f"{self._name}_{self.latency}"
        valid = Signal(name=f"{prefix}_valid")
        m.d.sync += valid.eq(self.valid if keep is None else self.valid & keep)
        registers = {}
        for name, value in values.items():
            if isinstance(value, list):
                registers[name] = [self._register(f"{prefix}_{name}_{lane}", element)
                                   for lane, element in enumerate(value)]
            else:
                registers[name] = self._register(f"{prefix}_{name}", value)
        self.valid = valid
        self.latency += 1
        return SimpleNamespace(**registers)

    def _register(self, name, value):
        value = Value.cast(value)
        register = Signal(value.shape(), name=name, reset_less=True)
        self._m.d.sync += register.eq(value)
        return register


class Queue(wiring.Component):
    """First in, first out, in synchronous memory.

    An entry can be read two cycles after the cycle of its write. There is no way to refuse a write:
    who writes knows that there is room (see `room`).

    Parameters
    ----------
    shape : shape of an entry
    depth : entries, at least 4: fewer could not keep up with a write a cycle
    """

    def __init__(self, shape, depth):
        self._width = Shape.cast(shape).width
        self.depth = depth
        super().__init__({
            "write": In(1),
            "w_data": In(shape),
            "ready": Out(1),
            "read": In(1),
            "r_data": Out(shape),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=self._width, depth=self.depth)
        m.d.comb += [
            fifo.w_data.eq(self.w_data),
            fifo.w_en.eq(self.write),
            self.ready.eq(fifo.r_rdy),
            fifo.r_en.eq(self.read),
            Value.cast(self.r_data).eq(fifo.r_data),
        ]
        return m


def room(m, queue, reserve, name):
    """Whether a queue has an entry that is neither in use nor reserved: a register's comparison.

    Parameters
    ----------
    m : the module that gets the counter
    queue : the queue; what is read from it is free again
    reserve : takes an entry in this cycle, for a write some cycles later; given only with room
    name : prefix of the counter
    """
    reserved = Signal(range(queue.depth + 1), name=f"{name}_reserved")
    m.d.sync += reserved.eq(reserved + reserve - (queue.read & queue.ready))
    return reserved != queue.depth
