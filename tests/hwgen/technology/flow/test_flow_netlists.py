"""The whole way of a small unit: synthesis, timing, simulation against golden, power, FPGA."""

import dataclasses

import numpy as np
import pytest

from hwgen.lib.memory import SynchronousMemory
from hwgen.technology.flow import fpga, ppa
from hwgen.technology.flow import synthesis as synthesis_module
from hwgen.technology.flow.gate_simulation import check_netlist, record
from hwgen.technology.flow.library import nangate45
from hwgen.technology.flow.points import points
from hwgen.technology.flow.synthesis import elaborate, synthesise
from hwgen.technology.flow.timing import critical_path
from hwgen.technology.flow.tools import FlowError
from hwgen.technology.flow.workload import workload
from hwgen.technology.sram import memory
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.registry import RTL_UNITS, component_of, jobs_of, spec_of

SPEC = DynatranSpec(2, 8)

SMALL = {
    "mac_lane": {"macs": 2, "bits": 6, "accumulator_bits": 14, "nonlinearity": "relu"},
    "dynatran": {"parallel": 2, "bits": 8},
    "pre_sparsity": {"macs": 2, "bits": 5, "window": 4, "fifo_depth": 8},
    "post_sparsity": {"bits": 6, "word": 4, "mask_word": 4},
    # Large enough for memory macros.
    "softmax": {"parallel": 2, "bits": 6, "max_row": 256},
    "layer_norm": {"parallel": 2, "bits": 6, "max_row": 256, "epsilon": 1e-5},
    "residual_add": {"parallel": 2, "bits": 6},
}
"""A small spec of each unit; the default one of those that are not named."""


def netlist_of(unit, spec, folder, clock_gating=True):
    elaborated = elaborate(component_of(unit)(spec), unit)
    return synthesise(elaborated, folder, clock_gating=clock_gating)


def test_a_row_has_every_column_and_figures_that_belong_together(flow_tools, tmp_path):
    elaborated = ppa.elaborate_unit("dynatran", SPEC)
    row = ppa.measure("dynatran", SPEC, elaborated, tmp_path)
    assert set(row) == {"parallel", "bits", *ppa.COLUMNS}
    assert row["area_um2"] == pytest.approx(row["logic_um2"] + row["sequential_um2"])
    assert 300 < row["area_um2"] < 400
    assert row["memory_um2"] == row["memory_bits"] == row["memory_leakage_mw"] == 0
    assert 0.3 < row["critical_path_ns"] < row["critical_path_wires_ns"] < 1.0
    energies = [row[f"energy_density_{name}_pj"] for name in ("1", "0_5", "0_25")]
    assert energies[0] > energies[1] > energies[2] > 0.1
    assert row["other_energy_density_0_5_pj"] >= energies[1]
    assert 0 < row["idle_mw"] < 2 * energies[0] / 1.429
    assert 0.001 < row["leakage_mw"] < 0.02
    assert row["operation"] == "element"
    table = ppa.ppa_table("dynatran", tmp_path)
    table.put(row)
    written = table.find(SPEC)
    assert ppa.is_fresh(written, elaborated)
    assert not ppa.is_fresh(written, elaborated, clock_ps=1000)
    assert not ppa.is_fresh({**written, "tools": "others"}, elaborated)
    assert not ppa.is_fresh(written, dataclasses.replace(elaborated, text="other"))


def test_clock_gating_gates(flow_tools, tmp_path):
    gated = netlist_of("dynatran", SPEC, tmp_path / "gated", True)
    plain = netlist_of("dynatran", SPEC, tmp_path / "plain", False)
    assert gated.clock_gating and gated.count("CLKGATE_X1") > 0
    assert plain.count("CLKGATE") == 0
    assert gated.area_um2 < plain.area_um2


def test_a_path_is_named_by_the_rtl_and_is_longer_with_wires(flow_tools, tmp_path):
    netlist = netlist_of("dynatran", SPEC, tmp_path)
    path = critical_path(netlist, tmp_path, 1429)
    assert path.start.startswith(("i__payload", "threshold"))
    assert path.end.startswith("pipeline_slice")
    assert critical_path(netlist, tmp_path, 900).delay_ns == pytest.approx(path.delay_ns, abs=1e-3)
    assert critical_path(netlist, tmp_path, 1429, wire_load=True).delay_ns > path.delay_ns


def test_an_error_of_opensta_is_one(flow_tools, tmp_path):
    netlist = netlist_of("dynatran", SPEC, tmp_path)
    cell = dataclasses.replace(netlist.cells[0], kind="NO_SUCH_CELL")
    broken = dataclasses.replace(netlist, cells=(cell, *netlist.cells[1:]))
    with pytest.raises(FlowError, match="OpenSTA failed .*NO_SUCH_CELL"):
        critical_path(broken, tmp_path, 1429)


def test_a_large_memory_is_a_macro_with_the_models_timing(flow_tools, tmp_path, monkeypatch):
    monkeypatch.setattr(synthesis_module, "ports_of", lambda component: ())
    elaborated = elaborate(SynchronousMemory(32, 128), "buffer")
    netlist = synthesise(elaborated, tmp_path, clock_gating=True)
    ((_, macro),) = netlist.macro_instances
    assert (macro.depth, macro.width) == (128, 32)
    path = critical_path(netlist, tmp_path, 1429)
    # 0.1 ns are left to the outside.
    assert path.delay_ns == pytest.approx(memory(128, 32).access_ns + 0.1, abs=2e-3)
    small = elaborate(SynchronousMemory(32, 64), "buffer")
    assert small.macros == ()


def test_a_netlist_that_differs_from_golden_is_found(flow_tools, tmp_path):
    netlist = netlist_of("dynatran", SPEC, tmp_path)
    work = workload("dynatran", SPEC, 0.5)
    recording = record(netlist, SPEC, work.job, tmp_path)
    assert recording.busy.cycles == work.job.cycles
    assert recording.busy.toggles["clk"] == 2 * work.job.cycles
    assert sum(recording.idle.toggles.values()) < 0.2 * sum(recording.busy.toggles.values())
    number, cell = next((number, cell) for number, cell in enumerate(netlist.cells)
                        if cell.kind == "XNOR2_X1")
    pins = {name: nets for name, nets in cell.pins.items() if name != "ZN"}
    wrong = dataclasses.replace(cell, kind="XOR2_X1", pins={**pins, "Z": cell.pins["ZN"]})
    cells = (*netlist.cells[:number], wrong, *netlist.cells[number + 1:])
    broken = dataclasses.replace(netlist, cells=cells)
    with pytest.raises(FlowError, match="dynatran netlist, density 0.5: port o, beat"):
        record(broken, SPEC, work.job, tmp_path)
    with pytest.raises(AssertionError, match="expected"):
        check_netlist(broken, SPEC, [work.job])


def test_gated_registers_take_what_stood_before_the_edge(flow_tools):
    """The cells' models have no delays; outputs of registers come after all clocks."""
    text = nangate45().cell_models()
    assert "specify" not in text
    start = text.index("module DFF_X1 ")
    body = text[start : text.index("endmodule", start)]
    assert "always @(IQ) Q <= IQ;" in body
    assert "buf(Q, IQ)" not in body


@pytest.mark.slow
@pytest.mark.parametrize("gating", [True, False])
@pytest.mark.parametrize("unit", RTL_UNITS)
def test_a_small_netlist_of_every_unit_equals_golden(unit, gating, flow_tools, tmp_path):
    spec = spec_of(unit, SMALL[unit]) if unit in SMALL else points(unit)[0]
    rng = np.random.default_rng(3)
    jobs = [jobs_of(unit).random_job(spec, rng) for _ in range(4)]
    check_netlist(netlist_of(unit, spec, tmp_path, gating), spec, jobs, stall_seeds=(1, 2))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("unit", RTL_UNITS)
def test_the_default_netlist_of_every_unit_equals_golden(unit, flow_tools, tmp_path):
    spec = points(unit)[0]
    rng = np.random.default_rng(4)
    # Long rows would take hours, and show no more of the netlist.
    drawn = [jobs_of(unit).random_job(spec, rng) for _ in range(8)]
    jobs = [job for job in drawn if job.cycles <= 1000][:2]
    assert len(jobs) == 2
    check_netlist(netlist_of(unit, spec, tmp_path), spec, jobs)


def test_an_fpga_row_has_every_column(fpga_tools, tmp_path):
    elaborated = fpga.elaborate_unit("dynatran", SPEC)
    row = fpga.measure("dynatran", SPEC, elaborated, tmp_path)
    assert set(row) == {"parallel", "bits", *fpga.COLUMNS}
    assert row["flip_flops"] == 40
    assert 50 < row["luts"] < 200
    assert row["dsps"] == row["block_rams"] == 0
    assert row["fmax_mhz"] > 200
    table = fpga.ecp5_table("dynatran", tmp_path)
    table.put(row)
    assert fpga.is_fresh(table.find(SPEC), elaborated)
    assert not fpga.is_fresh({**table.find(SPEC), "target_mhz": "1"}, elaborated)


def test_a_missed_frequency_is_a_figure_and_no_error(fpga_tools, tmp_path, monkeypatch):
    monkeypatch.setattr(fpga, "TARGET_MHZ", 2000)
    row = fpga.measure("dynatran", SPEC, fpga.elaborate_unit("dynatran", SPEC), tmp_path)
    assert 0 < row["fmax_mhz"] < 2000


def test_what_is_too_large_says_how_large(tmp_path):
    output = ("Info: \t              DP16KD:      33/    208    15%\n"
              "Info: \t        TRELLIS_COMB:   88467/  83640   105%\n"
              "ERROR: Unable to find legal placement for all cells.\n")
    said = r"legal placement .*; it needs 88,467 TRELLIS_COMB of the chip's 83,640$"
    with pytest.raises(FlowError, match=said):
        fpga._counts(output, tmp_path)


def test_what_cannot_be_placed_is_an_error(fpga_tools, tmp_path, monkeypatch):
    monkeypatch.setattr(fpga, "DEVICE", ("--85k", "--package", "NONE"))
    with pytest.raises(FlowError, match="nextpnr failed"):
        fpga.measure("dynatran", SPEC, fpga.elaborate_unit("dynatran", SPEC), tmp_path)
