"""A gate-level netlist: cells, nets and ports as Yosys gives them, and its Verilog."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hwgen.simulation.module import Port
from hwgen.technology.flow.tools import FlowError


@dataclass(frozen=True)
class Cell:
    """One cell: a standard cell or a memory macro.

    Parameters
    ----------
    name : c and a number
    kind : the library's name of the cell
    pins : nets of each pin, the least significant bit first
    """

    name: str
    kind: str
    pins: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class MemoryMacro:
    """A memory that is a black box in synthesis (1 write port and 1 read port).

    Parameters
    ----------
    name : name of its module
    depth : entries
    width : bits of an entry
    """

    name: str
    depth: int
    width: int

    @property
    def address_bits(self) -> int:
        """Bits of an address."""
        return (self.depth - 1).bit_length()

    @property
    def ports(self) -> dict[str, tuple[str, int]]:
        """Direction and width of each port."""
        return {
            "clk": ("input", 1),
            "write_enable": ("input", 1),
            "write_address": ("input", self.address_bits),
            "write_data": ("input", self.width),
            "read_enable": ("input", 1),
            "read_address": ("input", self.address_bits),
            "read_data": ("output", self.width),
        }


@dataclass(frozen=True)
class BlackBox:
    """A part of a component that is a black box in synthesis.

    Parameters
    ----------
    name : name of its module
    ports : direction and width of each port
    """

    name: str
    ports: dict[str, tuple[str, int]]


@dataclass(frozen=True)
class Netlist:
    """A unit as cells of a library.

    Parameters
    ----------
    name : top module
    ports : streams and signals, as the unit's component has them
    widths : direction and width of each Verilog port
    cells : all cells
    registers : what the RTL calls the output of a register, by the name of the cell
    macros : the memories among their kinds
    clock_gating : whether registers that share an enable have their clock gated
    area_um2 : area of all standard cells
    sequential_um2 : area of registers and clock gates among it
    boxes : other black boxes among the cells' kinds
    """

    name: str
    ports: tuple[Port, ...]
    widths: dict[str, tuple[str, int]]
    cells: tuple[Cell, ...]
    registers: dict[str, str]
    macros: tuple[MemoryMacro, ...]
    clock_gating: bool
    area_um2: float
    sequential_um2: float
    boxes: tuple[BlackBox, ...] = ()

    @property
    def logic_um2(self) -> float:
        """Area of combinational cells (µm²)."""
        return self.area_um2 - self.sequential_um2

    @cached_property
    def macro_instances(self) -> list[tuple[Cell, MemoryMacro]]:
        """Every instance of a memory macro."""
        by_name = {macro.name: macro for macro in self.macros}
        return [(cell, by_name[cell.kind]) for cell in self.cells if cell.kind in by_name]

    def count(self, prefix: str) -> int:
        """Return the number of cells whose kind begins with `prefix`."""
        kinds = Counter(cell.kind for cell in self.cells)
        return sum(count for kind, count in kinds.items() if kind.startswith(prefix))

    def verilog(self) -> str:
        """Return the netlist as structural Verilog without assignments."""
        lines = [f"module {self.name} ({', '.join(self.widths)});"]
        for name, (direction, width) in self.widths.items():
            lines.append(f"  {direction} {_range(width)}{name};")
        internal = sorted({
            net for cell in self.cells for nets in cell.pins.values() for net in nets
            if net and "[" not in net and net not in self.widths
        })
        lines += [f"  wire {net};" for net in internal]
        for cell in self.cells:
            pins = ", ".join(f".{pin}({_connection(nets)})" for pin, nets in cell.pins.items())
            lines.append(f"  {cell.kind} {cell.name} ({pins});")
        return "\n".join([*lines, "endmodule", ""])


def _range(width: int) -> str:
    return f"[{width - 1}:0] " if width > 1 else ""


def _connection(nets: tuple[str, ...]) -> str:
    return nets[0] if len(nets) == 1 else "{" + ", ".join(reversed(nets)) + "}"


def read_netlist(
    folder: Path, top: str
) -> tuple[dict[str, tuple[str, int]], tuple[Cell, ...], dict[str, str]]:
    """Read ports, cells and the names of registers of a module that Yosys wrote.

    netlist.json is the module; names.json is it before the RTL's names were dropped. A net is
    named after the port's bit that it is, or n and a number.

    Raises
    ------
    FlowError
        If a net is two ports' bits, or a constant: synthesis puts cells there.
    """
    module = json.loads((folder / "netlist.json").read_text())["modules"][top]
    names: dict[Any, str] = {}
    widths: dict[str, tuple[str, int]] = {}
    for port, entry in module["ports"].items():
        bits = entry["bits"]
        if not bits:
            continue
        widths[port] = (entry["direction"], len(bits))
        for index, bit in enumerate(bits):
            name = f"{port}[{index}]" if len(bits) > 1 else port
            if isinstance(bit, str) or bit in names:
                raise FlowError(f"{top}: {name} is {names.get(bit, bit)}, not a net of its own")
            names[bit] = name

    def net(bit: Any) -> str:
        if isinstance(bit, str):
            if bit != "x":
                raise FlowError(f"{top}: a pin is constant {bit}, not a tie cell's")
            return ""
        return names.setdefault(bit, f"n{bit}")

    cells = tuple(
        Cell(f"c{index}", entry["type"],
             {pin: tuple(net(bit) for bit in bits) for pin, bits in entry["connections"].items()
              if bits})
        for index, entry in enumerate(module["cells"].values())
    )
    known = _register_names(json.loads((folder / "names.json").read_text())["modules"][top])
    registers = {
        f"c{index}": known[name] for index, name in enumerate(module["cells"]) if name in known
    }
    return widths, cells, registers


def _register_names(module: dict[str, Any]) -> dict[str, str]:
    """Name of the net that each register drives."""
    nets = {
        bit: f"{name}[{index}]" if len(entry["bits"]) > 1 else name
        for name, entry in _named(module["netnames"])
        for index, bit in enumerate(entry["bits"])
    }
    driven = {name: entry["connections"].get("Q") for name, entry in module["cells"].items()}
    return {name: nets[bits[0]] for name, bits in driven.items() if bits and bits[0] in nets}


def _named(nets: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Nets that the RTL named; Amaranth's names for unnamed signals begin with a dollar sign."""
    for name, entry in nets.items():
        if not entry["hide_name"]:
            yield name.lstrip("\\"), entry
