"""Pipelines that never stall, between queues that keep room for what is in flight."""

from types import SimpleNamespace

from amaranth.hdl import Module, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out


class Flow:
    """Registers without enable: what enters comes out a fixed number of cycles later.

    There is no back-pressure and so no enable and no ready path at all. Who lets a beat in has
    reserved room for it where it will arrive (see `Queue`). Only the valid bits have a reset.

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
    """First in, first out, in synchronous memory, with a count of reserved entries.

    An entry can be read two cycles after the cycle of its write. `reserve` takes an entry
    before it is written and may only be given while `room`; whoever reserves must not write more
    than that, and needs not look at anything else. An entry is free again after its read.

    Parameters
    ----------
    shape : shape of an entry
    depth : entries, at least 4
    """

    def __init__(self, shape, depth):
        if depth < 4:
            raise ValueError(f"depth must be at least 4 entries, not {depth}")
        self._width = Shape.cast(shape).width
        self._depth = depth
        super().__init__({
            "room": Out(1),
            "reserve": In(1),
            "write": In(1),
            "w_data": In(shape),
            "ready": Out(1),
            "read": In(1),
            "r_data": Out(shape),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=self._width, depth=self._depth)
        reserved = Signal(range(self._depth + 1))
        m.d.comb += [
            self.room.eq(reserved != self._depth),
            fifo.w_data.eq(self.w_data),
            fifo.w_en.eq(self.write),
            self.ready.eq(fifo.r_rdy),
            fifo.r_en.eq(self.read),
            Value.cast(self.r_data).eq(fifo.r_data),
        ]
        m.d.sync += reserved.eq(reserved + self.reserve - (self.read & self.ready))
        return m
