"""Energy of one design from what a walk has counted (docs/machine.md, section 7)."""

from __future__ import annotations

import math

from hwgen.design import AcceleratorDesign
from hwgen.technology.published import PublishedTechnology
from sim.reference import Walk


def energy_pj(
    result: Walk, design: AcceleratorDesign, technology: PublishedTechnology
) -> dict[str, float]:
    """Energy of each component over the run; unknown background power counts as 0.

    Parameters
    ----------
    result : of `sim.reference.walk`
    design : what ran
    technology : whose table is read
    """
    table, work, blocks = technology.table, result.work, result.blocks
    gigahertz = table["clock_mhz"] / 1000
    run_ns = result.latency_cycles / design.clock_mhz * 1000
    lanes = design.pes * design.lanes_per_pe
    modules = design.pes * design.softmax_per_pe
    rounding = lanes if design.stochastic_rounding else 0
    lane = table["lane"][design.macs_per_lane][design.nonlinearity]
    softmax = table["tile_module"]["softmax"][design.tile_x]
    layer_norm = table["tile_module"]["layer_norm"][design.tile_x]
    block = table["block"]
    wide = design.tile_x * design.tile_y
    results = work["results"]
    # Instances, figures, and busy cycles over all instances.
    rows = {
        "lane": (lanes, lane, work["lane_cycles"]),
        "pre_sparsity": (lanes, block["pre_sparsity"], work["lane_cycles"]),
        "fifo": (lanes, block["fifo"], work["lane_cycles"]),
        "post_sparsity": (lanes, block["post_sparsity"], results + work["row_elements"]),
        "stochastic_rounding": (
            rounding,
            block["stochastic_rounding"],
            results if design.stochastic_rounding else 0,
        ),
        "softmax": (modules, softmax, work["softmax_elements"] / wide),
        "layer_norm": (design.pes, layer_norm, work["layer_norm_elements"] / wide),
        "dataflow": (design.pes, block["dataflow"], work["dataflow_cycles"]),
        "dma": (design.pes, block["dma"], work["busy.main_memory"] * design.pes),
    }
    energy = {}
    for name, (instances, figures, busy) in rows.items():
        energy[f"{name}_dynamic"] = figures["dynamic_mw"] / gigahertz * busy
        energy[f"{name}_leakage"] = instances * figures["leakage_mw"] * run_ns
    ports = {
        "activation": ("activation_read", "activation_write"),
        "weight": ("weight_read", "weight_load"),
        "mask": ("mask_read", "mask_write", "mask_load"),
    }
    for name, listed in ports.items():
        megabytes = getattr(design, f"{name}_buffer_kib") / 1024
        figures = table["buffer"][name]
        accesses = sum(blocks[port] for port in listed)
        energy[f"{name}_buffer_access"] = (
            1000 * figures["block_nj_per_sqrt_mb"] * math.sqrt(megabytes) * accesses
        )
        energy[f"{name}_buffer_leakage"] = megabytes * figures["leakage_mw_per_mb"] * run_ns
    memory = design.memory
    access_nj = table["main_memory_block_nj"][memory.type][
        f"{memory.banks}/{memory.ranks}/{memory.channels}"
    ]
    energy["main_memory_access"] = 1000 * access_nj * blocks["main_memory"]
    energy["main_memory_background"] = (memory.background_power_mw or 0.0) * run_ns
    return energy
