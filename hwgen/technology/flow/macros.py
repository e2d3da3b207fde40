"""Memory macros and other black boxes in the flow: their ports, timing in liberty, simulation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwgen.technology.flow.netlist import BlackBox, MemoryMacro
from hwgen.technology.sram import memory

INPUT_FF = 5.0
"""Capacitance of a macro's inputs (fF), as the published macros state it."""

CLOCK_FF = 25.0
"""Capacitance of a macro's clock (fF), as the published macros state it."""

OUTPUT_SLEW_NS = 0.009
"""Transition of a macro's outputs (ns), as the published macros state it for 5 fF."""


@dataclass(frozen=True)
class Boundary:
    """What the outside of a black box is like.

    Parameters
    ----------
    area_um2 : its area
    clock_ff, input_ff : capacitance of its clock and of its other inputs
    setup_ns : inputs before the clock edge
    access_ns : clock edge to outputs
    """

    area_um2: float
    clock_ff: float
    input_ff: float
    setup_ns: float
    access_ns: float


def black_boxes(macros: Sequence[MemoryMacro | BlackBox]) -> str:
    """Return empty Verilog modules with the ports of memory macros and other black boxes."""
    return "".join(f"(* blackbox *) {_header(macro)} endmodule\n" for macro in macros)


def simulation_models(macros: Sequence[MemoryMacro]) -> str:
    """Return Verilog of memory macros: a read a cycle after its address, unknown until written."""
    return "".join(
        f"""{_header(macro)}
  reg [{macro.width - 1}:0] entries [0:{macro.depth - 1}];
  reg [{macro.width - 1}:0] word;
  assign read_data = word;
  always @(posedge clk) begin
    if (read_enable) word <= entries[read_address];
    if (write_enable) entries[write_address] <= write_data;
  end
endmodule
"""
        for macro in macros
    )


def liberty(
    macros: Sequence[MemoryMacro],
    boxes: Sequence[tuple[BlackBox, Boundary]] = (),
    *,
    buffered: bool = False,
) -> str:
    """Return a liberty library with area, timing and pin loads of black boxes (ns, fF).

    Parameters
    ----------
    macros : memories
    boxes : other parts, and what they are like from outside
    buffered : whether an input weighs as that of one slice, as if what drives several were buffered
    """
    cells = [_cell(macro, macro_timing(macro, buffered)) for macro in macros]
    cells += [_cell(box, boundary) for box, boundary in boxes]
    ports = [*(macro.ports for macro in macros), *(box.ports for box, _ in boxes)]
    widths = sorted({width for each in ports for _, width in each.values()})
    types = "".join(
        f"  type (bus_{width}) {{ base_type : array; data_type : bit; bit_width : {width}; "
        f"bit_from : {width - 1}; bit_to : 0; downto : true; }}\n"
        for width in widths
    )
    return (
        "library (black_boxes) {\n"
        '  delay_model : table_lookup;\n  time_unit : "1ns";\n  voltage_unit : "1V";\n'
        '  current_unit : "1mA";\n  leakage_power_unit : "1nW";\n'
        "  capacitive_load_unit (1,ff);\n  nom_voltage : 1.1;\n"
        "  input_threshold_pct_rise : 50;\n  input_threshold_pct_fall : 50;\n"
        "  output_threshold_pct_rise : 50;\n  output_threshold_pct_fall : 50;\n"
        "  slew_lower_threshold_pct_rise : 30;\n  slew_lower_threshold_pct_fall : 30;\n"
        "  slew_upper_threshold_pct_rise : 70;\n  slew_upper_threshold_pct_fall : 70;\n"
        + types
        + "".join(cells)
        + "}\n"
    )


def _header(macro: MemoryMacro | BlackBox) -> str:
    ports = ", ".join(
        f"{direction} {f'[{width - 1}:0] ' if width > 1 else ''}{name}"
        for name, (direction, width) in macro.ports.items()
    )
    return f"module {macro.name} ({ports});"


def macro_timing(macro: MemoryMacro, buffered: bool = False) -> Boundary:
    """Area, timing and pin loads of a memory macro."""
    cost = memory(macro.depth, macro.width)
    return Boundary(cost.area_um2, CLOCK_FF * cost.slices,
                    INPUT_FF * (1 if buffered else cost.slices), cost.setup_ns, cost.access_ns)


def _cell(macro: MemoryMacro | BlackBox, cost: Boundary) -> str:
    groups = [f"    area : {cost.area_um2:.3f};\n    interface_timing : true;\n"]
    for name, (direction, width) in macro.ports.items():
        bus = f"    bus ({name}) {{ bus_type : bus_{width};"
        kind = bus if width > 1 else f"    pin ({name}) {{"
        if name == "clk":
            body = f"direction : input; clock : true; capacitance : {cost.clock_ff};"
        elif direction == "input":
            body = f"direction : input; capacitance : {cost.input_ff}; " + "".join(
                f"timing () {{ related_pin : clk; timing_type : {check}_rising; "
                f'rise_constraint (scalar) {{ values ("{value}"); }} '
                f'fall_constraint (scalar) {{ values ("{value}"); }} }} '
                for check, value in (("setup", cost.setup_ns), ("hold", cost.setup_ns))
            )
        else:
            delay = f'values ("{cost.access_ns:.6f}");'
            slew = f'values ("{OUTPUT_SLEW_NS}");'
            body = (
                "direction : output; timing () { related_pin : clk; timing_type : rising_edge; "
                f"cell_rise (scalar) {{ {delay} }} cell_fall (scalar) {{ {delay} }} "
                f"rise_transition (scalar) {{ {slew} }} fall_transition (scalar) {{ {slew} }} }}"
            )
        groups.append(f"{kind} {body} }}\n")
    return f"  cell ({macro.name}) {{\n{''.join(groups)}  }}\n"
