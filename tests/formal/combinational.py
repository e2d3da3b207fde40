"""Paths through a component that meet no register."""

import json
import tempfile
from pathlib import Path

from amaranth.back import rtlil
from pyosys import libyosys

REGISTERS = {"$dff", "$dffe", "$sdff", "$sdffe", "$sdffce"}


def combinational_sources(component):
    """Return, for each output port of a component, the input ports that it depends on at once.

    Every cell is taken to lead from each of its inputs to each of its outputs, but for registers
    and for memories' clocked read ports, which lead nowhere.

    Returns
    -------
    Mapping from names to sets of names, as in "o.valid" and "i.payload".
    """
    design = libyosys.Design()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "component.il").write_text(rtlil.convert(component, emit_src=False))
        for command in (f"read_rtlil {folder}/component.il", "hierarchy -auto-top", "proc",
                        "flatten", "memory_dff", "opt_clean", f"write_json {folder}/netlist.json"):
            libyosys.run_pass(f"tee -q {command}", design)
        netlist = json.loads((Path(folder) / "netlist.json").read_text())
    module, = netlist["modules"].values()
    # For each bit, the bits that the cell which drives it reads; inputs have no driver.
    read_by = {}
    for cell in module["cells"].values():
        reads = [bit for port, bits in cell["connections"].items()
                 for bit in bits if cell["port_directions"][port] == "input"]
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "output":
                read_by.update((bit, () if _is_clocked(cell) else reads) for bit in bits)
    inputs = {bit: name.replace("__", ".") for name, port in module["ports"].items()
              if port["direction"] == "input" for bit in port["bits"]}
    return {
        name.replace("__", "."): {inputs[bit] for bit in _reached(port["bits"], read_by)
                                  if bit in inputs}
        for name, port in module["ports"].items() if port["direction"] == "output"
    }


def _is_clocked(cell):
    if cell["type"] == "$memrd_v2":
        return int(cell["parameters"]["CLK_ENABLE"], 2) == 1
    return cell["type"] in REGISTERS


def _reached(bits, read_by):
    """All bits from which a path leads to one of some bits."""
    found, open_bits = set(), list(bits)
    while open_bits:
        bit = open_bits.pop()
        if bit not in found:
            found.add(bit)
            open_bits.extend(read_by.get(bit, ()))
    return found
