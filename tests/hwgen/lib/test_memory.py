"""The memory wrapper: what it stores, and what stands in its place in synthesis."""

import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from hwgen.lib.memory import MACRO_BITS, SynchronousMemory


class Platform:
    """Notes which macros are asked for."""

    def __init__(self):
        self.macros = []

    def memory_macro(self, depth, width):
        self.macros.append((depth, width))
        return f"ram_{depth}x{width}"


def test_reads_what_was_written_and_holds_it():
    memory = SynchronousMemory(8, 5)

    async def testbench(ctx):
        for address in range(5):
            ctx.set(memory.write_enable, 1)
            ctx.set(memory.write_address, address)
            ctx.set(memory.write_data, 10 + address)
            await ctx.tick()
        ctx.set(memory.write_enable, 0)
        for address in (3, 0, 4):
            ctx.set(memory.read_enable, 1)
            ctx.set(memory.read_address, address)
            await ctx.tick()
            assert ctx.get(memory.read_data) == 10 + address
        ctx.set(memory.read_enable, 0)
        ctx.set(memory.read_address, 1)
        await ctx.tick()
        assert ctx.get(memory.read_data) == 14

    simulator = Simulator(memory)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.run()


@pytest.mark.parametrize(("depth", "macros"), [(64, []), (65, [(65, 32)])])
def test_above_two_kilobits_a_platform_gives_a_macro(depth, macros):
    assert MACRO_BITS == 64 * 32
    platform = Platform()
    text = rtlil.convert(SynchronousMemory(32, depth), platform=platform)
    assert platform.macros == macros
    assert ("ram_65x32" in text) == bool(macros)


def test_without_such_a_platform_it_is_a_plain_memory():
    assert "$mem" in rtlil.convert(SynchronousMemory(32, 65))


def test_a_memory_of_no_entry_is_refused():
    with pytest.raises(ValueError, match="at least 1 entry, not 0"):
        SynchronousMemory(8, 0)
