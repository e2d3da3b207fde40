"""Pipelines that never stall, between queues that keep room for what is in flight."""

from types import SimpleNamespace

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hwgen.lib.memory import SynchronousMemory


class Flow:
    """Registers that never wait: what enters comes out a fixed number of cycles later.

    There is no back-pressure and so no ready path at all. Who lets a beat in has reserved room for
    it where it will arrive (see `room`). Only the valid bits have a reset. Data registers move only
    with a beat, so that they take no clock power while idle once their clock is gated.

    A flow of few stages may have one enable for all of them instead, and stand still while it is 0.

    Parameters
    ----------
    m : the module that the registers are added to
    valid : whether a beat enters in this cycle
    name : prefix of the signals
    enable : whether beats move in this cycle; by default always
    """

    def __init__(self, m, valid, name, enable=None):
        self._m = m
        self._name = name
        self._enable = Const(1, 1) if enable is None else enable
        self.valid = valid
        self.latency = 0

    def stage(self, keep=None, **values):
        """Register `values` and return their registers as a namespace.

        Parameters
        ----------
        keep : if given, only beats for which it is 1 go on
        values : anything Amaranth takes as a value, or lists or mappings of such, nested at will
        """
        m, prefix = self._m, f"{self._name}_{self.latency}"
        valid = Signal(name=f"{prefix}_valid")
        kept = self.valid if keep is None else self.valid & keep
        with m.If(self._enable):
            m.d.sync += valid.eq(kept)
        with m.If(self._enable & kept):
            registers = self._registers(prefix, values)
        self.valid = valid
        self.latency += 1
        return SimpleNamespace(**registers)

    def copies(self, value, name, needed):
        """Register one value several times, beside the next stage, and return the registers.

        Parameters
        ----------
        value, name : what is registered
        needed : of each copy, whether it is needed for this beat: it does not move for others,
            which also keeps synthesis from taking all copies for one
        """
        registers = []
        for number, wanted in enumerate(needed):
            with self._m.If(self._enable & self.valid & wanted):
                registers.append(
                    self._registers(f"{self._name}_{self.latency}_{name}_{number}", value))
        return registers

    def _registers(self, name, value):
        if isinstance(value, dict):
            return {key: self._registers(f"{name}_{key}", part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [self._registers(f"{name}_{place}", part) for place, part in enumerate(value)]
        value = Value.cast(value)
        register = Signal(value.shape(), name=name, reset_less=True)
        self._m.d.sync += register.eq(value)
        return register


class Queue(wiring.Component):
    """First in, first out, in synchronous memory.

    An entry can be read two cycles after the cycle of its write. There is no way to refuse a write:
    who writes knows that there is room (see `room`). The memory's output register holds the first
    entry, the memory the others; no address is read in the cycle in which it is written.

    Parameters
    ----------
    shape : shape of an entry
    depth : entries, at least 4: fewer could not keep up with a write a cycle

    Raises
    ------
    ValueError
        If the depth is below 4.
    """

    def __init__(self, shape, depth):
        if depth < 4:
            raise ValueError(f"depth must be at least 4 entries, not {depth}")
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
        stored = self.depth - 1
        m.submodules.memory = memory = SynchronousMemory(self.w_data.shape(), stored)
        level = Signal(range(stored + 1))
        fetch = Signal()
        m.d.comb += [
            fetch.eq((level != 0) & (self.read | ~self.ready)),
            memory.write_enable.eq(self.write),
            memory.write_data.eq(self.w_data),
            memory.read_enable.eq(fetch),
            self.r_data.eq(memory.read_data),
        ]
        m.d.sync += [
            level.eq(level + self.write - fetch),
            self.ready.eq(fetch | (self.ready & ~self.read)),
        ]
        for enable, address in ((self.write, memory.write_address), (fetch, memory.read_address)):
            following = Signal.like(address)
            m.d.comb += address.eq(following)
            with m.If(enable):
                m.d.sync += following.eq(Mux(following == stored - 1, 0, following + 1))
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


def running_sum(m, flow, value, shape, last, name):
    """Sum of the values of a row's beats so far, this one included.

    Parameters
    ----------
    m : the module that gets the register
    flow : the pipeline in whose current stage `value` and `last` are
    value, shape : a beat's part of the sum, and the sum's shape
    last : whether the beat is the last of its row
    name : prefix of the signals
    """
    so_far = Signal(shape, name=f"{name}_so_far")
    now = Signal(shape, name=f"{name}_now")
    m.d.comb += now.eq(so_far + value)
    with m.If(flow.valid):
        m.d.sync += so_far.eq(Mux(last, 0, now))
    return now
