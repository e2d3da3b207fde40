"""Energy from what was done, for whole populations (docs/machine.md, section 7)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.technology.constants import BUFFERS, PRICED_BLOCKS, Technology

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


def access_prices_pj(designs: DesignBatch, technology: Technology) -> dict[str, Floats]:
    """Energy of one busy cycle, element or access of each component, shape (designs,)."""
    prices = {block: technology.figures(block, designs).dynamic_pj for block in WORK}
    for block in ("softmax", "layer_norm"):
        # Published tile² wide: an element is one of tile_x · tile_y.
        prices[block] = prices[block] / (designs.tile_x * designs.tile_y)
    prices |= {
        f"{buffer}_buffer": technology.buffer_block_pj(buffer, designs) for buffer in ACCESSES
    }
    return prices | {"main_memory": technology.main_memory_block_pj(designs)}


def access_pj(
    designs: DesignBatch, prices: dict[str, Floats], sums: dict[str, Floats]
) -> dict[str, Floats]:
    """Dynamic energy of each component that a task's sums give work to, shape (designs,)."""
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
        if measure in work
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
    power = {
        f"{block}_leakage": technology.figures(block, designs).leakage_mw
        * technology.instances(block, designs)
        for block in PRICED_BLOCKS
    }
    power |= {
        f"{buffer}_buffer_leakage": technology.buffer_leakage_mw(buffer, designs)
        for buffer in BUFFERS
    }
    return power | {"main_memory_background": np.nan_to_num(designs.memory_background_power_mw)}


def constant_of(component: str) -> str:
    """Name the technology's constant behind a component of the energy."""
    name, _, what = component.rpartition("_")
    if name == "main_memory":
        return (
            "main_memory_block_nj"
            if what == "access"
            else ("memory.background_power_mw of the design (hwgen/technology/main_memory.yaml)")
        )
    if name.removesuffix("_buffer") in BUFFERS and name.endswith("_buffer"):
        key = "block_nj_per_sqrt_mb" if what == "access" else "leakage_mw_per_mb"
        return f"buffer.{name.removesuffix('_buffer')}.{key}"
    group = {
        "lane": "lane",
        "softmax": "tile_module.softmax",
        "layer_norm": "tile_module.layer_norm",
    }
    return f"{group.get(name, f'block.{name}')}.{what}_mw"
