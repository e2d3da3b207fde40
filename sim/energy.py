"""Energy from what was done, for whole populations (docs/machine.md, section 7)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.technology.constants import Technology

Floats = NDArray[np.float64]

ACCESSES = {
    "activation": ("activation_read", "activation_write"),
    "weight": ("weight_read", "weight_load"),
    "mask": ("mask_read", "mask_write", "mask_load"),
}
"""Ports of each buffer."""


def dynamic_pj(
    designs: DesignBatch,
    prices: Mapping[str, Mapping[str, Floats]],
    access_pj: Mapping[str, Floats],
    sums: Mapping[str, Floats],
) -> dict[str, Floats]:
    """Dynamic energy of each component that a task's sums give work to, shape (designs,).

    Parameters
    ----------
    designs : the population
    prices : of a technology, by block and kind of work, for a unit of that work
    access_pj : of a technology, for an access of each memory
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
    energy = {}
    for block, price in prices.items():
        done = [pj * work[kind] for kind, pj in price.items() if kind in work]
        if done:
            energy[f"{block}_dynamic"] = sum(done, none)
    for buffer, ports in ACCESSES.items():
        blocks = sum(sums.get(f"blocks.{port}", none) for port in ports)
        energy[f"{buffer}_buffer_access"] = access_pj[f"{buffer}_buffer"] * blocks
    energy["main_memory_access"] = access_pj["main_memory"] * sums["blocks.main_memory"]
    return energy


def static_mw(designs: DesignBatch, technology: Technology) -> dict[str, Floats]:
    """Power of each component that runs whether or not it is used, shape (designs,).

    Main memory's background power counts as 0 where it is unknown; the report then says so.
    """
    power = {f"{block}_leakage": mw for block, mw in technology.leakage_mw(designs).items()}
    return power | {"main_memory_background": np.nan_to_num(designs.memory_background_power_mw)}
