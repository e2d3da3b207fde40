"""The one wrapper around memories that are larger than a few registers."""

from amaranth.hdl import ClockSignal, Instance, Module, Shape, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hwgen.units.stages import MACRO_BITS


class SynchronousMemory(wiring.Component):
    """Memory with one write port and one read port, as memory compilers make them (1R1W).

    `read_data` is what stood at `read_address` at the last edge at which `read_enable` was high:
    latency 1 cycle, a read and a write a cycle. An address must not be read in the cycle in which
    it is written. Contents are undefined until they are written.

    For a platform that has `memory_macro(depth, width)`, which returns the name of a module with
    the ports `clk` and those below, a memory of more than `MACRO_BITS` bits is an instance of it.

    Parameters
    ----------
    shape : shape of an entry
    depth : entries, at least 1

    Ports
    -----
    write_enable, write_address, write_data, read_enable, read_address, read_data
    """

    def __init__(self, shape, depth):
        if depth < 1:
            raise ValueError(f"depth must be at least 1 entry, not {depth}")
        self.depth = depth
        self.width = Shape.cast(shape).width
        super().__init__({
            "write_enable": In(1),
            "write_address": In(range(depth)),
            "write_data": In(shape),
            "read_enable": In(1),
            "read_address": In(range(depth)),
            "read_data": Out(shape),
        })

    def elaborate(self, platform):
        """Return the module."""
        m = Module()
        write_data, read_data = Value.cast(self.write_data), Value.cast(self.read_data)
        if hasattr(platform, "memory_macro") and self.depth * self.width > MACRO_BITS:
            m.submodules.macro = Instance(
                platform.memory_macro(self.depth, self.width),
                i_clk=ClockSignal(),
                i_write_enable=self.write_enable, i_write_address=self.write_address,
                i_write_data=write_data,
                i_read_enable=self.read_enable, i_read_address=self.read_address,
                o_read_data=read_data)
            return m
        m.submodules.storage = storage = memory.Memory(
            shape=unsigned(self.width), depth=self.depth, init=[])
        write, read = storage.write_port(), storage.read_port()
        m.d.comb += [
            write.en.eq(self.write_enable),
            write.addr.eq(self.write_address),
            write.data.eq(write_data),
            read.en.eq(self.read_enable),
            read.addr.eq(self.read_address),
            read_data.eq(read.data),
        ]
        return m
