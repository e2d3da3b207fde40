"""Buffers behind the inputs of a part, so that whoever drives it need not know what is inside."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hwgen.technology.flow.liberty import cell_power
from hwgen.technology.flow.library import CellLibrary, nangate45
from hwgen.technology.flow.macros import INPUT_FF
from hwgen.technology.flow.netlist import Cell, Netlist

ISOLATED_FF = 10.0
"""Load from which on an input has a buffer (fF): about that of ten small cells."""

DRIVEN_FF = 20.0
"""Load that a BUF_X1 drives (fF), and larger buffers in proportion."""

BUFFERS_UM2 = {1: 0.798, 2: 1.064, 4: 1.862, 8: 3.458, 16: 6.65, 32: 13.034}
"""Area of Nangate45's buffers by their drive."""


def isolated(netlist: Netlist, library: CellLibrary | None = None) -> Netlist:
    """Put a buffer behind each input whose load is large, its clock apart.

    Parts that are mapped alone take their inputs from a cell of their own, and what drives them in
    the whole has been mapped for the load of one output. An input of a memory macro counts as that
    of one slice.

    Parameters
    ----------
    netlist : a part
    library : standard cells; Nangate45 by default
    """
    library = library or nangate45()
    macros = {macro.name for macro in netlist.macros}
    inputs = {
        f"{port}[{index}]" if width > 1 else port
        for port, (direction, width) in netlist.widths.items()
        if direction == "input" and port != "clk" for index in range(width)}
    loads: dict[str, float] = defaultdict(float)
    for cell in netlist.cells:
        pins = None if cell.kind in macros else cell_power(library.liberty, cell.kind).pins
        for pin, nets in cell.pins.items():
            for net in inputs.intersection(nets):
                loads[net] += INPUT_FF if pins is None else pins[pin].capacitance_ff
    large = {net: f"isolated_{number}" for number, (net, load) in enumerate(sorted(loads.items()))
             if load > ISOLATED_FF}
    cells = [
        replace(cell, pins={pin: tuple(large.get(net, net) for net in nets)
                            for pin, nets in cell.pins.items()})
        for cell in netlist.cells]
    area = netlist.area_um2
    for net, inside in large.items():
        drive = next((size for size in BUFFERS_UM2 if DRIVEN_FF * size >= loads[net]),
                     max(BUFFERS_UM2))
        cells.append(Cell(inside + "_buffer", f"BUF_X{drive}", {"A": (net,), "Z": (inside,)}))
        area += BUFFERS_UM2[drive]
    return replace(netlist, cells=tuple(cells), area_um2=area)
