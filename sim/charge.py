"""What a step's transfers cost each engine, for arrays of steps."""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass
class Transfers:
    """Bits that move in each step, by flow; arrays of shape (steps,)."""

    steps: int
    bits: dict[str, Ints] = field(default_factory=dict)

    def add(self, flow: str, bits: Ints) -> None:
        """Add bits to a flow."""
        self.bits[flow] = self.bits[flow] + bits if flow in self.bits else bits

    def __getitem__(self, flow: str) -> Ints:
        """Return the bits of a flow, zeros where nothing was added."""
        return self.bits[flow] if flow in self.bits else np.zeros(self.steps, dtype=np.int64)


def step_constant(designs: DesignBatch) -> Ints:
    """Cycles of every step beyond its longest job, shape (designs,)."""
    levels = np.ceil(np.log2(designs.pes)) + np.ceil(np.log2(designs.lanes_per_pe))
    return np.asarray(2 * levels.astype(np.int64) + 2)


def ceil_divide(bits: Ints, numerator: Ints, denominator: Ints) -> Ints:
    """Cycles of a job of so many bits on a port of rate numerator / denominator."""
    return -(-bits * denominator // numerator)


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
    rate = designs.buffer_rate_numerator[design], designs.buffer_rate_denominator[design]
    flows = {flow: transfers[flow] for flow in FLOWS}
    memory = flows["memory_read"] + flows["memory_write"]
    memory_cycles = ceil_divide(
        memory, designs.memory_rate_numerator[design], designs.memory_rate_denominator[design]
    )
    times: dict[str, NDArray[np.float64] | Ints] = {
        engine: compute,
        "activation_buffer": np.maximum(
            ceil_divide(flows["activation_read"], *rate),
            ceil_divide(flows["activation_write"], *rate),
        )
        + ceil_divide(flows["activation_fill"], *rate),
        "weight_buffer": ceil_divide(flows["weight_read"], *rate),
        "mask_buffer": np.maximum(
            ceil_divide(flows["mask_read"], *rate), ceil_divide(flows["mask_write"], *rate)
        ),
        "main_memory": np.where(
            memory > 0, designs.memory_latency_cycles[design] + memory_cycles, 0
        ),
    }
    stacked = np.stack(list(times.values())).astype(np.float64)
    longest = np.max(stacked, axis=0)
    constant = step_constant(designs)[design]
    ports = {
        "activation_read": flows["activation_read"] + flows["activation_fill"],
        **{
            port: flows[port]
            for port in ("activation_write", "weight_read", "mask_read", "mask_write")
        },
        "main_memory": memory,
    }
    columns: dict[str, Floats | Ints] = {
        "cycles": longest + constant,
        "busy.main_memory": times["main_memory"],
    }
    columns |= {f"blocks.{port}": -(-bits // block_bits) for port, bits in ports.items()}
    if detailed:
        first = np.argmax(stacked, axis=0)
        columns["stall.step_constant"] = constant
        for number, name in enumerate(times):
            columns[f"stall.{name}"] = np.where(first == number, longest, 0)
            columns[f"busy.{name}"] = times[name]
        columns |= {f"bits.{flow}": bits for flow, bits in flows.items()}
    table = np.stack(list(columns.values())).astype(np.float64) * count
    sums = np.add.reduceat(table, starts, axis=1)
    return dict(zip(columns, sums, strict=True))
