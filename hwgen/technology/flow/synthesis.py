"""Synthesis of a component: Amaranth to RTLIL to Yosys to cells of the library."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amaranth.back import rtlil

from hwgen.emit import ports_of
from hwgen.technology.flow.library import INPUT_DRIVER, OUTPUT_LOAD_FF, CellLibrary, nangate45
from hwgen.technology.flow.macros import black_boxes
from hwgen.technology.flow.netlist import BlackBox, MemoryMacro, Netlist, read_netlist
from hwgen.technology.flow.tools import run_yosys

CLOCK_PS = 1429
"""Clock period that synthesis aims at: 700 MHz."""

SMALLEST_GATED = 8
"""Registers that a clock gate must serve: a CLKGATE_X1 is as large as three enable multiplexers,
and switches in every cycle."""

MAPPING = (
    "+strash;dch;map,-B,0.9,{D};topo;buffer,-c;topo;upsize,{D};dnsize,{D};stime,-p"
)
"""ABC's script. Yosys' own, and the `abc -fast` inside its `synth`, shrink the prefix trees of fast
adders to ripple chains; this one keeps them, for a little more area."""

FULL_ADDERS = """(* techmap_celltype = "$fa" *)
module full_adders #(parameter WIDTH = 1) (input [WIDTH-1:0] A, B, C, output [WIDTH-1:0] X, Y);
  genvar i;
  generate for (i = 0; i < WIDTH; i = i + 1) begin : bits
    FA_X1 cell_ (.A(A[i]), .B(B[i]), .CI(C[i]), .CO(X[i]), .S(Y[i]));
  end endgenerate
endmodule
"""
"""What a full adder that `extract_fa` has found becomes."""

SYNTHESIS_SECONDS = 3600.0
"""Time after which Yosys is stopped."""


@dataclass
class MacroPlatform:
    """What `hwgen.lib.memory` asks for macros; it keeps a list of those that it gave."""

    macros: dict[str, MemoryMacro] = field(default_factory=dict)

    def memory_macro(self, depth: int, width: int) -> str:
        """Return the name of a memory of `depth` entries of `width` bits."""
        name = f"memory_{depth}x{width}"
        self.macros[name] = MemoryMacro(name, depth, width)
        return name


@dataclass(frozen=True)
class Elaborated:
    """A component as RTLIL.

    Parameters
    ----------
    name : top module
    text : RTLIL
    ports : the component's streams and signals
    macros : memories that are black boxes
    boxes : other parts that are black boxes
    """

    name: str
    text: str
    ports: tuple[Any, ...]
    macros: tuple[MemoryMacro, ...]
    boxes: tuple[BlackBox, ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the RTLIL: it changes with the hardware, not with comments."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def elaborate(component: Any, name: str, *, macros: bool = True) -> Elaborated:
    """Elaborate a component.

    Parameters
    ----------
    component : an Amaranth component whose ports are streams and signals
    name : name of the top module
    macros : whether memories above 2 kbit are macros; otherwise they are registers
    """
    platform = MacroPlatform()
    text = rtlil.convert(
        component, name=name, platform=platform if macros else None, emit_src=False
    )
    return Elaborated(name, text, ports_of(component), tuple(platform.macros.values()))


def synthesise(
    elaborated: Elaborated,
    folder: Path,
    *,
    clock_gating: bool,
    full_adders: bool = True,
    clock_ps: int = CLOCK_PS,
    library: CellLibrary | None = None,
) -> Netlist:
    """Map a component to cells of a library.

    Parameters
    ----------
    elaborated : the component
    folder : where inputs, logs and results lie
    clock_gating : whether registers that share an enable get a gated clock
    full_adders : whether full adders become the library's, which are small and whose delay the
        mapping of the rest does not see
    clock_ps : clock period that mapping and sizing aim at
    library : standard cells; Nangate45 by default

    Raises
    ------
    MissingToolError
        If Yosys or the cells are missing; says what to install.
    FlowError
        If Yosys fails; with the end of its log.
    """
    library = library or nangate45()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "top.il").write_text(elaborated.text)
    (folder / "abc.constr").write_text(
        f"set_driving_cell {INPUT_DRIVER}\nset_load {OUTPUT_LOAD_FF} [all_outputs]\n"
    )
    (folder / "macros.v").write_text(black_boxes([*elaborated.macros, *elaborated.boxes]))
    (folder / "full_adders.v").write_text(FULL_ADDERS)
    adders = "extract_fa -fa\ntechmap -map full_adders.v\nopt_clean"
    gating = f"clockgate -liberty {library.liberty} -min_net_size {SMALLEST_GATED}"
    run_yosys(
        f"""read_liberty -lib {library.liberty}
read_verilog -lib macros.v
read_rtlil top.il
synth -top {elaborated.name} -flatten -booth -noabc
{adders if full_adders else ""}
{gating if clock_gating else ""}
dfflibmap -liberty {library.liberty}
opt
abc -D {clock_ps} -liberty {library.liberty} -constr abc.constr -script {MAPPING}
setundef -zero
opt_clean
write_json names.json
opt_clean -purge
hilomap -singleton -hicell LOGIC1_X1 Z -locell LOGIC0_X1 Z
insbuf -buf BUF_X1 A Z
opt_clean -purge
check -assert -mapped
tee -q -o stat.json stat -json -liberty {library.liberty}
write_json netlist.json
""",
        folder,
        SYNTHESIS_SECONDS,
    )
    statistics = json.loads((folder / "stat.json").read_text())["design"]
    widths, cells, registers = read_netlist(folder, elaborated.name)
    netlist = Netlist(
        elaborated.name,
        elaborated.ports,
        widths,
        cells,
        registers,
        elaborated.macros,
        clock_gating,
        float(statistics.get("area", 0)),
        float(statistics.get("sequential_area", 0)),
        elaborated.boxes,
    )
    (folder / "netlist.v").write_text(netlist.verilog())
    return netlist
