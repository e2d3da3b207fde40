"""No path without a register between a unit's ports, but for those that its docstring names."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from combinational import combinational_sources
from units import UNITS, component

from hwgen.lib.flow import Queue
from hwgen.lib.pipeline import RegisterSlice

JOINED = {
    # Both masks, and both operands' values, transfer together; a window's values with the last
    # of its pairs, for which the output may have to make room.
    "pre_sparsity": {
        "i_left_mask.ready": {"i_right_mask.valid", "i_left.valid", "i_right.valid", "o.ready"},
        "i_right_mask.ready": {"i_left_mask.valid", "i_left.valid", "i_right.valid", "o.ready"},
        "i_left.ready": {"i_right.valid", "o.ready"},
        "i_right.ready": {"i_left.valid", "o.ready"},
    },
    "residual_add": {"i_a.ready": {"i_b.valid"}, "i_b.ready": {"i_a.valid"}},
}
"""Paths by unit; every other output comes from registers, so that no valid waits for a ready."""


@pytest.mark.parametrize("name", UNITS)
def test_outputs_come_from_registers(name):
    paths = combinational_sources(component(name))
    assert "o.valid" in paths or "o_value.valid" in paths
    assert {port: inputs for port, inputs in paths.items() if inputs} == JOINED.get(name, {})


@pytest.mark.parametrize("building_block", [RegisterSlice(4), Queue(4, 4)])
def test_building_blocks_cut_every_path(building_block):
    assert not any(combinational_sources(building_block).values())


class Wire(wiring.Component):
    """A stream of which each signal comes from another side, and a memory read at once."""

    i: In(stream.Signature(4))
    o: Out(stream.Signature(4))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.o.valid.eq(self.i.valid & self.o.ready), self.i.ready.eq(self.o.ready)]
        m.d.sync += self.o.payload.eq(self.i.payload)
        return m


def test_paths_are_found():
    assert combinational_sources(Wire()) == {
        "o.valid": {"i.valid", "o.ready"}, "i.ready": {"o.ready"}, "o.payload": set()}
