"""Energy from what was done, for whole populations (docs/machine.md, section 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.technology.constants import Technology

Floats = NDArray[np.float64]

WORK = {
    "lane": "lane_cycles",
    "pre_sparsity": "lane_cycles",
    "fifo": "lane_cycles",
    "post_sparsity": "compressed_elements",
    "stochastic_rounding": "rounded_elements",
    "softmax": "softmax_elements",
    "layer_norm": "layer_norm_elements",
    "dataflow": "dataflow_cycles",
    "dma": "dma_cycles",
}
"""What each block is charged by: its busy cycles, all instances together, or its elements."""

ACCESSES = {
    "activation": ("activation_read", "activation_write"),
    "weight": ("weight_read", "weight_load"),
    "mask": ("mask_read", "mask_write", "mask_load"),
}
"""Ports of each buffer."""


def dynamic_pj(
    designs: DesignBatch, prices: dict[str, Floats], sums: dict[str, Floats]
) -> dict[str, Floats]:
    """Dynamic energy of each component that a task's sums give work to, shape (designs,).

    Parameters
    ----------
    designs : the population
    prices : of a technology, for a unit of each block's work and an access of each memory
    sums : what the task does
    """
    none = np.zeros(len(designs))
    results = sums.get("results", none)
    work = {
        **sums,
        "compressed_elements": results + sums.get("row_elements", none),
        "rounded_elements": results * designs.stochastic_rounding,
        "dma_cycles": sums["busy.main_memory"] * designs.pes,
    }
    energy = {
        f"{block}_dynamic": prices[block] * work[measure]
        for block, measure in WORK.items()
        if block in prices and measure in work
    }
    for buffer, ports in ACCESSES.items():
        blocks = sum(sums.get(f"blocks.{port}", none) for port in ports)
        energy[f"{buffer}_buffer_access"] = prices[f"{buffer}_buffer"] * blocks
    energy["main_memory_access"] = prices["main_memory"] * sums["blocks.main_memory"]
    return energy


def static_mw(designs: DesignBatch, technology: Technology) -> dict[str, Floats]:
    """Power of each component that runs whether or not it is used, shape (designs,).

    Main memory's background power counts as 0 where it is unknown; the report then says so.
    """
    power = {f"{block}_leakage": mw for block, mw in technology.leakage_mw(designs).items()}
    return power | {"main_memory_background": np.nan_to_num(designs.memory_background_power_mw)}
