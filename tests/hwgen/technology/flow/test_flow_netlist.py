"""Netlists: what Yosys writes, as cells and as Verilog; macros in liberty and simulation."""

import json

import pytest

from hwgen.technology.flow.liberty import parse
from hwgen.technology.flow.macros import black_boxes, liberty, simulation_models
from hwgen.technology.flow.netlist import Cell, MemoryMacro, Netlist, read_netlist
from hwgen.technology.flow.tools import FlowError
from hwgen.technology.sram import memory

PORTS = {"clk": {"direction": "input", "bits": [2]}, "a": {"direction": "input", "bits": [3, 4]},
         "none": {"direction": "input", "bits": []}, "q": {"direction": "output", "bits": [5]}}
CELLS = {
    "$1": {"type": "NAND2_X1", "connections": {"A1": [3], "A2": [4], "ZN": [6]}},
    "$2": {"type": "DFF_X1", "connections": {"D": [6], "CK": [2], "Q": [5], "QN": [9]}},
    "$3": {"type": "ram", "connections": {"data": [6, 3], "clk": [2]}},
}
NAMES = {"q": {"hide_name": 0, "bits": [7]}, "\\sum": {"hide_name": 0, "bits": [8, 5]},
         "$x": {"hide_name": 1, "bits": [6]}}


def write(folder, ports=PORTS, cells=CELLS):
    module = {"ports": ports, "cells": cells}
    (folder / "netlist.json").write_text(json.dumps({"modules": {"top": module}}))
    module = {"cells": cells, "netnames": NAMES}
    (folder / "names.json").write_text(json.dumps({"modules": {"top": module}}))


def test_nets_are_named_after_ports_and_registers_after_the_rtl(tmp_path):
    write(tmp_path)
    widths, cells, registers = read_netlist(tmp_path, "top")
    assert widths == {"clk": ("input", 1), "a": ("input", 2), "q": ("output", 1)}
    assert cells[0] == Cell("c0", "NAND2_X1", {"A1": ("a[0]",), "A2": ("a[1]",), "ZN": ("n6",)})
    assert cells[1].pins["Q"] == ("q",)
    assert registers == {"c1": "sum[1]"}
    text = Netlist("top", (), widths, cells, registers, (), False, 0, 0).verilog()
    assert text == """module top (clk, a, q);
  input clk;
  input [1:0] a;
  output q;
  wire n6;
  wire n9;
  NAND2_X1 c0 (.A1(a[0]), .A2(a[1]), .ZN(n6));
  DFF_X1 c1 (.D(n6), .CK(clk), .Q(q), .QN(n9));
  ram c2 (.data({a[0], n6}), .clk(clk));
endmodule
"""


@pytest.mark.parametrize(
    ("ports", "cells", "message"),
    [
        ({**PORTS, "o": {"direction": "output", "bits": [3]}}, CELLS, r"o is a\[0\], not a net"),
        ({**PORTS, "o": {"direction": "output", "bits": ["1"]}}, CELLS, "o is 1, not a net"),
        (PORTS, {"$1": {"type": "INV", "connections": {"A": ["0"]}}}, "constant 0, not a tie"),
    ],
)
def test_what_has_no_net_of_its_own_is_refused(tmp_path, ports, cells, message):
    write(tmp_path, ports, cells)
    with pytest.raises(FlowError, match=message):
        read_netlist(tmp_path, "top")


def test_areas_and_counts():
    macro = MemoryMacro("ram", 4, 2)
    cells = (Cell("c0", "DFF_X1", {}), Cell("c1", "DFF_X2", {}), Cell("c2", "ram", {}))
    netlist = Netlist("top", (), {}, cells, {}, (macro,), True, 10.0, 7.0)
    assert netlist.logic_um2 == 3.0
    assert netlist.count("DFF") == 2
    assert netlist.macro_instances == [(cells[2], macro)]


def test_a_macro_has_a_black_box_a_model_and_timing():
    macro = MemoryMacro("memory_100x240", 100, 240)
    assert macro.address_bits == 7
    assert "output [239:0] read_data" in black_boxes([macro])
    assert "reg [239:0] entries [0:99]" in simulation_models([macro])
    library = parse(liberty([macro]))
    (cell,) = library.of("cell")
    cost = memory(100, 240)
    assert float(cell.attributes["area"]) == pytest.approx(cost.area_um2)
    clock = next(pin for pin in cell.of("pin") if pin.arguments == ["clk"])
    assert float(clock.attributes["capacitance"]) == 25.0 * cost.slices
    buses = {bus.arguments[0]: bus for bus in cell.of("bus")}
    assert set(buses) == {"write_address", "write_data", "read_address", "read_data"}
    assert float(buses["write_data"].attributes["capacitance"]) == 5.0 * cost.slices
    checks = {check.attributes["timing_type"]: check.first("rise_constraint").attributes["values"]
              for check in buses["write_data"].of("timing")}
    assert checks == {"setup_rising": ["0.05"], "hold_rising": ["0.05"]}
    (arc,) = buses["read_data"].of("timing")
    assert float(arc.first("cell_rise").attributes["values"][0]) == pytest.approx(
        cost.access_ns, abs=1e-6)
    assert arc.first("fall_transition").attributes["values"] == ["0.009"]
