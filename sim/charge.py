"""What a step's transfers cost each engine, for arrays of steps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from sim.tiling import Ints

Floats = NDArray[np.float64]

ENGINES = (
    "lanes",
    "softmax",
    "layer_norm",
    "activation_buffer",
    "weight_buffer",
    "mask_buffer",
    "main_memory",
)
"""What may be the longest in a step."""

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


class Transfers:
    """Bits that move in each step, by flow: whole numbers in float64, shape (flows, steps)."""

    def __init__(self, steps: int) -> None:
        """Nothing moves yet."""
        self.bits = np.zeros((len(FLOWS), steps))

    def add(self, flow: str, bits: Floats | Ints) -> None:
        """Add bits to a flow."""
        self.bits[FLOWS.index(flow)] += bits


def step_constant(designs: DesignBatch) -> Ints:
    """Cycles of every step beyond its longest job, shape (designs,)."""
    levels = np.ceil(np.log2(designs.pes)) + np.ceil(np.log2(designs.lanes_per_pe))
    return np.asarray(2 * levels.astype(np.int64) + 2)


def ceil_divide(bits: Floats, numerator: Floats, denominator: Floats) -> Floats:
    """Cycles of jobs of so many bits on ports of rate numerator / denominator.

    Products and quotients of whole numbers below 2^53 round to the nearest float64, and a quotient
    is nearer to its own ceiling than to the next whole number: the result is exact.
    """
    return np.ceil(bits * denominator / numerator)


def charge(
    designs: DesignBatch,
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
    designs : the population
    design, starts, count : which design a step belongs to, where each begins, how often each comes
    engine : what computes
    compute : its cycles, shape (steps,)
    transfers : what moves
    block_bits : bits of one access
    detailed : whether to return more than what the totals need

    Returns
    -------
    Arrays of shape (designs,): "cycles", "busy.main_memory", "blocks.<port>"; detailed also
    "stall.<cause>", "busy.<engine>" and "bits.<flow>".
    """
    rate = (
        designs.buffer_rate_numerator.astype(np.float64)[design],
        designs.buffer_rate_denominator.astype(np.float64)[design],
    )
    flows = dict(zip(FLOWS, transfers.bits, strict=True))
    memory = flows["memory_read"] + flows["memory_write"]
    memory_cycles = ceil_divide(
        memory, designs.memory_rate_numerator[design], designs.memory_rate_denominator[design]
    )
    times = {
        engine: compute,
        "activation_buffer": ceil_divide(
            np.maximum(flows["activation_read"], flows["activation_write"]), *rate
        )
        + ceil_divide(flows["activation_fill"], *rate),
        "weight_buffer": ceil_divide(flows["weight_read"], *rate),
        "mask_buffer": ceil_divide(np.maximum(flows["mask_read"], flows["mask_write"]), *rate),
        "main_memory": (designs.memory_latency_cycles[design] + memory_cycles) * (memory > 0),
    }
    longest = compute
    for busy in times.values():
        longest = np.maximum(longest, busy)
    constant = step_constant(designs)[design]
    ports = {name: flows[name] for name in PORTS if name in flows} | {"main_memory": memory}
    ports["activation_read"] = flows["activation_read"] + flows["activation_fill"]
    columns: dict[str, Floats | Ints] = {
        "cycles": longest + constant,
        "busy.main_memory": times["main_memory"],
    }
    columns |= {f"blocks.{port}": np.ceil(bits / block_bits) for port, bits in ports.items()}
    if detailed:
        first = np.argmax(np.stack(list(times.values())), axis=0)
        columns["stall.step_constant"] = constant
        for number, name in enumerate(times):
            columns[f"stall.{name}"] = longest * (first == number)
            columns[f"busy.{name}"] = times[name]
        columns |= {f"bits.{flow}": bits for flow, bits in flows.items()}
    table = np.empty((len(columns), len(design)))
    for line, values in zip(table, columns.values(), strict=True):
        np.multiply(values, count, out=line)
    sums = np.add.reduceat(table, starts, axis=1)
    return dict(zip(columns, sums, strict=True))
