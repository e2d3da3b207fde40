"""What a step's transfers cost each engine, for arrays of steps."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from sim.ports import Ports
from sim.tiling import Ints

Floats = NDArray[np.float64]

ENGINES = (
    "lanes",
    "softmax",
    "layer_norm",
    "activation_buffer",
    "weight_buffer",
    "main_memory",
    "program",
    "configure",
)
"""What may be the longest in a step; of several, the first is what the step waits for."""

CAUSES = (*ENGINES, "step_constant")
"""What a run's time goes to."""

FLOWS = (
    "activation_read",
    "activation_write",
    "activation_fill",
    "weight_read",
    "mask_read",
    "mask_write",
    "memory_read",
    "memory_write",
)
"""Where a step's bits may go: reads and writes of the buffers and of main memory."""

PORTS = (
    "activation_read",
    "activation_write",
    "weight_read",
    "mask_read",
    "mask_write",
    "main_memory",
)
"""What is charged by the block: fills are reads, main memory is one port."""


BEATS = ("activation_lines", "weight_lines", "pieces", "drain", "fill", "waiting")
"""What takes a port's time: lines that are read, pieces that are stored, and cycles in which
partial sums leave and come back; of main memory, bits of slots beyond those that the step moves:
shares of an image, which is counted as a whole, and idle slots."""


class Transfers:
    """What moves in each step.

    `bits` by flow and `beats` by what takes time: whole numbers in float64, shape (…, steps).
    """

    def __init__(self, steps: int) -> None:
        """Nothing moves yet."""
        self.bits = np.zeros((len(FLOWS), steps))
        self.beats = np.zeros((len(BEATS), steps))

    def add(self, flow: str, bits: Floats | Ints, at: Ints | slice = slice(None)) -> None:
        """Add bits to a flow, in all steps or in some."""
        self.bits[FLOWS.index(flow), at] += bits

    def occupy(self, what: str, beats: Floats | Ints, at: Ints | slice = slice(None)) -> None:
        """Add what takes time to that of a port, in all steps or in some."""
        self.beats[BEATS.index(what), at] += beats


def port_cycles(ports: SimpleNamespace, transfers: Transfers) -> tuple[Floats, Floats]:
    """Cycles of the activation buffer and of the weight buffer in each step.

    Sums come back behind the lines that are read.
    """
    beats = dict(zip(BEATS, transfers.beats, strict=True))
    stored = np.ceil(beats["pieces"] / ports.pieces) + beats["drain"]
    store = (stored + ports.store_overhead) * (stored > 0)
    lines = np.ceil(beats["activation_lines"] / ports.lines) + beats["fill"]
    activation = (lines + ports.read_overhead) * (lines > 0)
    lines = np.ceil(beats["weight_lines"] / ports.lines)
    weight = (lines + ports.read_overhead) * (lines > 0)
    return np.maximum(activation, store), weight


def memory_cycles(ports: SimpleNamespace, bits: Floats) -> Floats:
    """Cycles of main memory in each step."""
    moved = ceil_divide(bits, ports.memory_numerator, ports.memory_denominator)
    return np.asarray((ports.memory_overhead + moved) * (bits > 0))


def ceil_divide(bits: Floats, numerator: Floats, denominator: Floats) -> Floats:
    """Cycles of jobs of so many bits on ports of rate numerator / denominator.

    Products and quotients of whole numbers below 2^53 round to the nearest float64, and a quotient
    is nearer to its own ceiling than to the next whole number: the result is exact.
    """
    return np.asarray(np.ceil(bits * denominator / numerator))


def charge(
    ports: Ports,
    design: Ints,
    starts: Ints,
    count: Ints,
    engine: str,
    compute: Floats,
    transfers: Transfers,
    block_bits: int,
    detailed: bool,
) -> dict[str, Floats]:
    """Sum the classes of steps of one task.

    Parameters
    ----------
    ports : of the population
    design, starts, count : which design a step belongs to, where each begins, how often each comes
    engine : what computes, or "configure"
    compute : its cycles, shape (steps,)
    transfers : what moves
    block_bits : bits of one access
    detailed : whether to return more than what the totals need

    Returns
    -------
    Arrays of shape (designs,): "cycles", "busy.main_memory", "blocks.<port>"; detailed also
    "stall.<cause>", "busy.<engine>" and "bits.<flow>".
    """
    flows = dict(zip(FLOWS, transfers.bits, strict=True))
    memory = flows["memory_read"] + flows["memory_write"]
    waiting = transfers.beats[BEATS.index("waiting")]
    machine = ports.at(design)
    activation, weight = port_cycles(machine, transfers)
    found = {
        engine: compute,
        "activation_buffer": activation,
        "weight_buffer": weight,
        "main_memory": memory_cycles(machine, memory + waiting),
        "program": machine.program,
    }
    times = {name: found[name] for name in ENGINES if name in found}
    longest = compute
    for busy in times.values():
        longest = np.maximum(longest, busy)
    accesses = {name: flows[name] for name in PORTS if name in flows} | {"main_memory": memory}
    accesses["activation_read"] = flows["activation_read"] + flows["activation_fill"]
    columns: dict[str, Floats | Ints] = {
        "cycles": longest + machine.step_constant,
        "busy.main_memory": times["main_memory"],
    }
    columns |= {f"blocks.{port}": np.ceil(bits / block_bits) for port, bits in accesses.items()}
    if detailed:
        first = np.argmax(np.stack(list(times.values())), axis=0)
        columns["stall.step_constant"] = machine.step_constant
        for number, name in enumerate(times):
            columns[f"stall.{name}"] = longest * (first == number)
            columns[f"busy.{name}"] = times[name]
        columns |= {f"bits.{flow}": bits for flow, bits in flows.items()}
    table = np.empty((len(columns), len(design)))
    for line, values in zip(table, columns.values(), strict=True):
        np.multiply(values, count, out=line)
    sums = np.add.reduceat(table, starts, axis=1)
    return dict(zip(columns, sums, strict=True))
