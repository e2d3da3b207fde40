"""Power: by hand on a tiny library, and against OpenSTA's report where that can be had."""

import re

import pytest

from hwgen.technology.flow.activity import Activity
from hwgen.technology.flow.library import CellLibrary
from hwgen.technology.flow.netlist import Cell, MemoryMacro, Netlist
from hwgen.technology.flow.power import PowerModel, probability
from hwgen.technology.sram import memory

LIBRARY = """
library (tiny) {
  cell (BUF_X2) {
    pin (A) { direction : input; capacitance : 1; }
    pin (Z) { direction : output; timing () { related_pin : "A"; timing_sense : positive_unate;
      rise_transition (s) { values ("0.5"); } fall_transition (s) { values ("0.25"); } } }
  }
  cell (NAND) {
    cell_leakage_power : 3;
    pin (A) { direction : input; capacitance : 1; }
    pin (B) { direction : input; capacitance : 2; }
    pin (Z) { direction : output;
      internal_power () { related_pin : "A"; rise_power (s) { values ("10"); }
                                             fall_power (s) { values ("20"); } }
      internal_power () { related_pin : "B"; when : "A"; rise_power (s) { values ("30"); }
                                             fall_power (s) { values ("50"); } }
      timing () { related_pin : "A"; timing_sense : negative_unate;
        rise_transition (t) { index_1 ("0,1"); index_2 ("0,10"); values ("0,0", "1,1"); }
        fall_transition (t) { index_1 ("0,1"); index_2 ("0,10"); values ("0,0", "2,2"); } } }
  }
  cell (DFF) {
    cell_leakage_power : 7;
    pin (D) { direction : input; capacitance : 4; }
    pin (CK) { direction : input; capacitance : 8;
      internal_power () { when : "D & !Q & QN"; rise_power (s) { values ("6"); }
                                          fall_power (s) { values ("2"); } } }
    pin (Q) { direction : output;
      internal_power () { related_pin : "CK"; rise_power (t) { index_1 ("0,1");
        index_2 ("0,10"); values ("1,11", "5,15"); } fall_power (s) { values ("3"); } } }
    pin (QN) { direction : output;
      internal_power () { related_pin : "CK"; rise_power (s) { values ("7"); }
                                              fall_power (s) { values ("9"); } } }
  }
}
"""


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "tiny.lib"
    path.write_text(LIBRARY)
    return CellLibrary("tiny", path, path, "", 1.1)


def netlist(cells, widths, macros=()):
    return Netlist("top", (), widths, tuple(cells), {}, tuple(macros), False, 0, 0)


def test_the_sums_by_hand(library):
    model = PowerModel(netlist(
        [Cell("c0", "NAND", {"A": ("a",), "B": ("b",), "Z": ("n1",)}),
         Cell("c1", "DFF", {"D": ("n1",), "CK": ("clk",), "Q": ("q",)})],
        {"clk": ("input", 1), "a": ("input", 1), "b": ("input", 1), "q": ("output", 1)},
    ), library)
    power = model.power(Activity(
        10,
        {"clk": 20, "a": 6, "b": 2, "n1": 5, "q": 4},
        {"clk": 0.5, "a": 0.25, "b": 0.5, "n1": 0.75, "q": 0.125},
    ))
    # ½ V² C toggles: clk 8 fF, a 1 fF, b 2 fF, n1 4 fF, and 5 fF at the output.
    assert power.switching_pj == pytest.approx(
        0.5 * 1.1**2 * (20 * 8 + 6 * 1 + 2 * 2 + 5 * 4 + 4 * 5) / 1000)
    # Causes of n1 in the shares 6 : 2 of the inputs' toggles, mean of rise and fall each.
    nand = 5 * (0.75 * 15 + 0.25 * 40)
    # The clock's condition holds with 0.75 · 0.875; QN, unconnected, toggles with Q.
    clock = 20 * 0.75 * 0.875 * 4
    # An ideal clock: slew 0; load 5 fF.
    register = 4 * ((6 + 3) / 2 + (7 + 9) / 2)
    assert power.internal_pj == pytest.approx((nand + clock + register) / 1000)
    assert power.logic_pj == power.internal_pj + power.switching_pj
    assert power.leakage_mw == pytest.approx(10e-6)
    assert power.memory_pj == power.memory_leakage_mw == 0


def test_a_transition_runs_through_the_cells(library):
    model = PowerModel(netlist(
        [Cell("c1", "NAND", {"A": ("n1",), "B": ("b",), "Z": ("n2",)}),
         Cell("c0", "NAND", {"A": ("a",), "B": ("b",), "Z": ("n1",)})],
        {"a": ("input", 1), "b": ("input", 1)},
    ), library)
    # a: rise 0.5, fall 0.25; a negative-unate cell's output rises with its input's fall.
    assert model._slews["n1"] == (0.25, 1.0)
    assert model._slews["n2"] == (1.0, 0.5)


def test_a_memory_costs_its_accesses(library):
    macro = MemoryMacro("memory_128x32", 128, 32)
    pins = {name: tuple(f"{name}[{bit}]" for bit in range(width)) if width > 1 else (name,)
            for name, (_, width) in macro.ports.items()}
    model = PowerModel(netlist([Cell("c0", macro.name, pins)], {}, [macro]), library)
    nets = [net for each in pins.values() for net in each]
    duty = dict.fromkeys(nets, 0.5) | {"read_enable": 0.25, "write_enable": 0.75}
    power = model.power(Activity(40, dict.fromkeys(nets, 0), duty))
    cost = memory(128, 32)
    assert power.memory_pj == pytest.approx(10 * cost.read_pj + 30 * cost.write_pj)
    assert power.memory_leakage_mw == cost.leakage_mw
    assert model._loads["clk"] == 25
    assert model._loads["write_data[3]"] == 5
    assert model._loads["read_data[3]"] == 0


@pytest.mark.parametrize(
    ("when", "expected"),
    [("", 1.0), ("A", 0.25), ("!A & B", 0.375), ("A | B", 0.625), ("!(A | B) & C", 0.1875),
     ("!Q & QN", 0.5), ("Q & QN", 0.0), ("(A & B) | (!A & !B)", 0.5)],
)
def test_the_probability_of_a_condition(when, expected):
    assert probability(when, {"A": 0.25, "B": 0.5}) == pytest.approx(expected)


def test_registers_loads_and_leakage_are_as_opensta_reports_them(flow_tools, tmp_path):
    """Without data toggles; its figures of switching outputs charge rise and fall to either."""
    from hwgen.technology.flow.library import nangate45
    from hwgen.technology.flow.synthesis import elaborate, synthesise
    from hwgen.technology.flow.tools import run
    from hwgen.units.dynatran.rtl import Dynatran
    from hwgen.units.dynatran.spec import DynatranSpec

    library = nangate45()
    elaborated = elaborate(Dynatran(DynatranSpec(2, 8)), "dynatran")
    found = synthesise(elaborated, tmp_path, clock_gating=False)
    library.write_without_wires(tmp_path / "cells.liberty")
    nets = {net for cell in found.cells for pin in cell.pins.values() for net in pin}
    cycles = 1000

    def report(activity):
        script = [
            "read_liberty cells.liberty", "read_verilog netlist.v", "link_design dynatran",
            "create_clock -name clk -period 1 [get_ports clk]",
            "set_input_delay 0.1 -clock clk [get_ports {i__payload i__valid o__ready rst}]",
            "set_input_delay 0.1 -clock clk [get_ports threshold]",
            "set_load 5 [all_outputs]",
            f"sta::set_power_global_activity {activity} 0.5", "report_power -digits 6", "exit",
        ]
        (tmp_path / "power.tcl").write_text("\n".join(script) + "\n")
        text = run(["sta", "-no_splash", "-exit", "power.tcl"], tmp_path, "power.log", 120)
        assert "Error" not in text
        internal, switching, leakage, _ = re.search(
            r"^Total +(\S+) +(\S+) +(\S+) +(\S+)", text, re.M).groups()
        return float(internal) * 1e3, float(switching) * 1e3, float(leakage) * 1e3

    model = PowerModel(found, library)

    def power(activity):
        toggles = {net: 2 * cycles if net == "clk" else activity * cycles for net in nets}
        return model.power(Activity(cycles, toggles, dict.fromkeys(nets, 0.5)))

    idle, busy = power(0.0), power(1.0)
    internal_mw, _, leakage_mw = report(0.0)
    assert idle.internal_pj / cycles == pytest.approx(internal_mw, rel=1e-4)
    assert idle.leakage_mw == pytest.approx(leakage_mw, rel=1e-4)
    # It charges loads of cells' outputs, not those of ports, which something outside drives.
    ports = sum(load for net, load in model._loads.items()
                if net.partition("[")[0] in found.widths
                and found.widths[net.partition("[")[0]][0] == "input" and net != "clk")
    driven = busy.switching_pj - idle.switching_pj - 0.5 * 1.1**2 * ports * cycles / 1000
    assert driven / cycles == pytest.approx(report(1.0)[1], rel=1e-3)
