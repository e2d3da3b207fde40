"""Power of a netlist from the recorded activity of its nets and the library's tables.

The sums are those of every static power tool: a net's load times V² over two a transition, the
cells' internal energy a transition by input transition and load, and leakage. They are formed here
because the OpenSTA that Debian has overrides the activity of combinational pins with its own
estimate and lets every gated clock run; a test holds these sums against its report where both can
be given the same activity. No wires, no clock tree, an ideal clock.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product

from hwgen.technology.flow.activity import Activity
from hwgen.technology.flow.liberty import CellPower, Energy, Pin, cell_power
from hwgen.technology.flow.library import (
    INPUT_DRIVER,
    OUTPUT_LOAD_FF,
    CellLibrary,
    nangate45,
)
from hwgen.technology.flow.macros import CLOCK_FF, INPUT_FF
from hwgen.technology.flow.netlist import Cell, MemoryMacro, Netlist
from hwgen.technology.sram import memory

CLOCK_SLEW_NS = 0.0
"""Transition of the ideal clock, as in static timing."""


@dataclass(frozen=True)
class Power:
    """Energy of a window of cycles, and leakage.

    Parameters
    ----------
    internal_pj : inside cells
    switching_pj : of the nets' loads
    memory_pj : accesses of memory macros
    leakage_mw : of the cells
    memory_leakage_mw : of memory macros
    """

    internal_pj: float
    switching_pj: float
    memory_pj: float
    leakage_mw: float
    memory_leakage_mw: float

    @property
    def logic_pj(self) -> float:
        """Dynamic energy without memory macros."""
        return self.internal_pj + self.switching_pj


class PowerModel:
    """Loads and transitions of a netlist, which do not depend on activity.

    Parameters
    ----------
    netlist : cells and nets
    library : standard cells; Nangate45 by default
    """

    def __init__(self, netlist: Netlist, library: CellLibrary | None = None) -> None:
        self._library = library or nangate45()
        self._netlist = netlist
        self._macros = {macro.name: macro for macro in netlist.macros}
        self._loads: dict[str, float] = defaultdict(float)
        for cell in netlist.cells:
            for pin, nets in cell.pins.items():
                for net in nets:
                    self._loads[net] += self._input_load(cell, pin)
        for port, (direction, width) in netlist.widths.items():
            if direction == "output":
                for index in range(width):
                    self._loads[f"{port}[{index}]" if width > 1 else port] += OUTPUT_LOAD_FF
        self._slews = self._transitions()

    def power(self, activity: Activity) -> Power:
        """Sum the energy of a window.

        Parameters
        ----------
        activity : toggles and duty of every net of the netlist
        """
        voltage = self._library.voltage
        switching_fj = sum(
            0.5 * voltage**2 * self._loads[net] * count
            for net, count in activity.toggles.items() if net in self._loads
        )
        internal_fj = leakage_nw = memory_pj = memory_leakage_mw = 0.0
        for cell in self._netlist.cells:
            macro = self._macros.get(cell.kind)
            if macro is not None:
                memory_pj += _memory_pj(cell, macro, activity)
                memory_leakage_mw += memory(macro.depth, macro.width).leakage_mw
                continue
            kind = cell_power(self._library.liberty, cell.kind)
            leakage_nw += kind.leakage_nw
            internal_fj += self._internal_fj(cell, kind, activity)
        return Power(
            internal_fj / 1000, switching_fj / 1000, memory_pj, leakage_nw * 1e-6,
            memory_leakage_mw,
        )

    def _input_load(self, cell: Cell, pin: str) -> float:
        macro = self._macros.get(cell.kind)
        if macro is not None:
            if macro.ports[pin][0] == "output":
                return 0.0
            slices = memory(macro.depth, macro.width).slices
            return slices * (CLOCK_FF if pin == "clk" else INPUT_FF)
        return cell_power(self._library.liberty, cell.kind).pins[pin].capacitance_ff

    def _internal_fj(self, cell: Cell, kind: CellPower, activity: Activity) -> float:
        toggles, duty = _at_pins(cell, kind, activity)
        total = 0.0
        for name, pin in kind.pins.items():
            count = toggles.get(name, 0)
            if count and pin.energies:
                total += count * self._pin_fj(cell, name, pin, toggles, duty)
        return total

    def _pin_fj(
        self,
        cell: Cell,
        name: str,
        pin: Pin,
        toggles: Mapping[str, int],
        duty: Mapping[str, float],
    ) -> float:
        """Mean internal energy of a transition of a pin, over its causes and conditions."""
        load = self._loads[cell.pins[name][0]] if name in cell.pins and cell.pins[name][0] else 0.0
        causes: dict[str, list[Energy]] = defaultdict(list)
        for energy in pin.energies:
            causes[energy.related].append(energy)
        # A transition is charged to the inputs in the shares in which they change themselves.
        weights = {related: toggles.get(related, 0) if related else 1 for related in causes}
        whole = sum(weights.values())
        energy_fj = 0.0
        for related, energies in causes.items():
            weight = weights[related] / whole if whole else 1 / len(causes)
            slew = self._slew(cell, related or name)
            likely = [probability(energy.when, duty) for energy in energies]
            # An output's conditions exclude one another but need not cover all states; an input's
            # energies beyond its conditions are those of the outputs that it moves.
            scale = sum(likely) if pin.direction == "output" else 1.0
            if not scale:
                likely, scale = [1.0] * len(energies), len(energies)
            energy_fj += weight * sum(
                share / scale * (energy.rise.at(slew, load) + energy.fall.at(slew, load)) / 2
                for share, energy in zip(likely, energies, strict=True)
            )
        return energy_fj

    def _slew(self, cell: Cell, pin: str) -> float:
        nets = cell.pins.get(pin)
        return max(self._slews.get(nets[0], (CLOCK_SLEW_NS, CLOCK_SLEW_NS))) if nets else 0.0

    def _transitions(self) -> dict[str, tuple[float, float]]:
        """Transition times of every net, rising and falling, the slowest of its causes."""
        slews: dict[str, tuple[float, float]] = {}
        clocks = _clock_nets(self._netlist)
        driver = cell_power(self._library.liberty, INPUT_DRIVER)
        for port, (direction, width) in self._netlist.widths.items():
            if direction == "input":
                for index in range(width):
                    net = f"{port}[{index}]" if width > 1 else port
                    slews[net] = self._output_slew(driver.pins["Z"], {}, self._loads[net])
        slews.update((net, (CLOCK_SLEW_NS, CLOCK_SLEW_NS)) for net in clocks)
        for cell in _in_order(self._netlist, self._library):
            kind = cell_power(self._library.liberty, cell.kind)
            inputs = {pin: slews.get(nets[0], (0.0, 0.0)) for pin, nets in cell.pins.items()}
            for name, pin in kind.pins.items():
                net = cell.pins.get(name, ("",))[0]
                if pin.direction == "output" and net and net not in clocks:
                    slews[net] = self._output_slew(pin, inputs, self._loads[net])
        return slews

    @staticmethod
    def _output_slew(
        pin: Pin, inputs: Mapping[str, tuple[float, float]], load: float
    ) -> tuple[float, float]:
        rise = fall = 0.0
        for arc in pin.arcs:
            before_rise, before_fall = inputs.get(arc.related, (0.0, 0.0))
            if arc.sense == "negative_unate":
                before_rise, before_fall = before_fall, before_rise
            elif arc.sense == "non_unate":
                before_rise = before_fall = max(before_rise, before_fall)
            rise = max(rise, arc.rise.at(before_rise, load))
            fall = max(fall, arc.fall.at(before_fall, load))
        return rise, fall


def _at_pins(
    cell: Cell, kind: CellPower, activity: Activity
) -> tuple[dict[str, int], dict[str, float]]:
    """Toggles and duty of a cell's pins; an unconnected complement follows its output."""
    toggles, duty = {}, {}
    for name in kind.pins:
        net = cell.pins.get(name, ("",))[0]
        if net in activity.toggles:
            toggles[name], duty[name] = activity.toggles[net], activity.duty[net]
    for one, other in (("Q", "QN"), ("QN", "Q")):
        if one in kind.pins and one not in toggles and other in toggles:
            toggles[one], duty[one] = toggles[other], 1 - duty[other]
    return toggles, duty


def _memory_pj(cell: Cell, macro: MemoryMacro, activity: Activity) -> float:
    """Energy of a macro's accesses: its enables are registers' outputs or logic of a cycle."""
    cost = memory(macro.depth, macro.width)
    reads, writes = (
        activity.duty.get(cell.pins[pin][0], 0.0) * activity.cycles
        for pin in ("read_enable", "write_enable")
    )
    return reads * cost.read_pj + writes * cost.write_pj


def probability(when: str, duty: Mapping[str, float]) -> float:
    """Probability of a condition over pins that are taken as independent (QN as not Q).

    Parameters
    ----------
    when : a liberty condition such as `!CK & (Q | E)`; empty is always true
    duty : share of the time in which each pin is 1; a half where it is not known
    """
    return sum(
        _weight(names, values, duty) for names, values in _true_states(when)
    ) if when else 1.0


def _weight(names: tuple[str, ...], values: tuple[bool, ...], duty: Mapping[str, float]) -> float:
    weight = 1.0
    for name, value in zip(names, values, strict=True):
        share = duty.get(name, 0.5)
        weight *= share if value else 1 - share
    return weight


@cache
def _true_states(when: str) -> tuple[tuple[tuple[str, ...], tuple[bool, ...]], ...]:
    """States of the pins in which a condition holds."""
    tokens = re.findall(r"\w+|[!&|()]", re.sub(r"\bQN\b", "(!Q)", when))
    names = tuple(sorted({token for token in tokens if token not in "!&|()"}))
    return tuple(
        (names, values)
        for values in product((False, True), repeat=len(names))
        if _holds(list(reversed(tokens)), dict(zip(names, values, strict=True)))
    )


def _holds(tokens: list[str], state: Mapping[str, bool]) -> bool:
    """Evaluate a condition, whose first token is the list's last, up to its end or bracket."""
    result = False
    while tokens and tokens[-1] != ")":
        if tokens[-1] == "|":
            tokens.pop()
        term = _factor(tokens, state)
        while tokens and tokens[-1] == "&":
            tokens.pop()
            term &= _factor(tokens, state)
        result |= term
    return result


def _factor(tokens: list[str], state: Mapping[str, bool]) -> bool:
    token = tokens.pop()
    if token == "!":
        return not _factor(tokens, state)
    if token == "(":
        value = _holds(tokens, state)
        tokens.pop()
        return value
    return state[token]


def _clock_nets(netlist: Netlist) -> set[str]:
    """The clock and what clock gates make of it."""
    nets = {"clk"}
    for cell in netlist.cells:
        if cell.kind.startswith("CLKGATE"):
            nets.update(cell.pins["GCK"])
    return nets


def _in_order(netlist: Netlist, library: CellLibrary) -> list[Cell]:
    """Standard cells such that each comes after the cells that drive it, registers first."""
    registers: list[Cell] = []
    logic: list[Cell] = []
    for cell in netlist.cells:
        if cell.kind in {macro.name for macro in netlist.macros}:
            continue
        (registers if "CK" in cell.pins else logic).append(cell)
    driver = {
        net: cell
        for cell in logic
        for pin, nets in cell.pins.items()
        if cell_power(library.liberty, cell.kind).pins[pin].direction == "output"
        for net in nets
    }
    ordered, done = list(registers), set()
    for first in logic:
        stack = [first]
        while stack:
            cell = stack[-1]
            if cell.name in done:
                stack.pop()
                continue
            waiting = [
                driver[net] for nets in cell.pins.values() for net in nets
                if net in driver and driver[net] is not cell and driver[net].name not in done
            ]
            if waiting:
                stack.extend(waiting)
            else:
                done.add(cell.name)
                ordered.append(stack.pop())
    return ordered
