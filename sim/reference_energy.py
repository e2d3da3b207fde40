"""Energy of one design from what a walk has counted (docs/machine.md, section 7)."""

from __future__ import annotations

import math

from hwgen.design import AcceleratorDesign
from hwgen.technology.constants import Technology
from hwgen.technology.published import PublishedTechnology
from hwgen.technology.scaling import Scaling
from hwgen.technology.sram import memory
from hwgen.technology.synthesised import SynthesisedTechnology
from hwgen.units.dynatran import cost as dynatran
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.layer_norm import cost as layer_norm
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity
from hwgen.units.residual_add import cost as residual_add
from hwgen.units.softmax import cost as softmax
from sim.reference import Walk

PORTS = {
    "activation": ("activation_read", "activation_write"),
    "weight": ("weight_read", "weight_load"),
    "mask": ("mask_read", "mask_write", "mask_load"),
}


def energy_pj(
    result: Walk, design: AcceleratorDesign, technology: Technology
) -> dict[str, float]:
    """Energy of each component over the run; unknown background power counts as 0.

    Parameters
    ----------
    result : of `sim.reference.walk`
    design : what ran
    technology : whose figures are read
    """
    if isinstance(technology, SynthesisedTechnology):
        return _synthesised(result, design, technology)
    assert isinstance(technology, PublishedTechnology)
    return _published(result, design, technology)


def _published(
    result: Walk, design: AcceleratorDesign, technology: PublishedTechnology
) -> dict[str, float]:
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
    for name, listed in PORTS.items():
        megabytes = getattr(design, f"{name}_buffer_kib") / 1024
        figures = table["buffer"][name]
        accesses = sum(blocks[port] for port in listed)
        energy[f"{name}_buffer_access"] = (
            1000 * figures["block_nj_per_sqrt_mb"] * math.sqrt(megabytes) * accesses
        )
        energy[f"{name}_buffer_leakage"] = megabytes * figures["leakage_mw_per_mb"] * run_ns
    energy["main_memory_access"] = _main_memory(result, design, technology)
    energy["main_memory_background"] = (design.memory.background_power_mw or 0.0) * run_ns
    return energy


def _main_memory(
    result: Walk, design: AcceleratorDesign, technology: PublishedTechnology
) -> float:
    memory = design.memory
    access_nj = technology.table["main_memory_block_nj"][memory.type][
        f"{memory.banks}/{memory.ranks}/{memory.channels}"
    ]
    return float(1000 * access_nj * result.blocks["main_memory"])


def _synthesised(
    result: Walk, design: AcceleratorDesign, technology: SynthesisedTechnology
) -> dict[str, float]:
    """Energies of the units' figures: idle power all the time, and what work takes beyond it."""
    node = {"nangate45": "45nm", "nangate45-to-14nm": "14nm", "nangate45-to-7nm": "7nm"}
    scaling = Scaling.between("45nm", node[technology.name])
    specs, work = design.unit_specs, result.work
    run_ns = result.latency_cycles / design.clock_mhz * 1000
    lanes, pes = design.pes * design.lanes_per_pe, design.pes
    compressed = work["results"] + work["row_elements"]
    rows = {
        "lane": (lanes, mac_lane, specs["mac_lane"], work["pairs"]),
        "pre_sparsity": (lanes, pre_sparsity, specs["pre_sparsity"], work["positions"]),
        "dynatran": (lanes, dynatran, DynatranSpec(1, design.bits), work["results"]),
        "row_dynatran": (
            pes * (design.softmax_per_pe + 1), dynatran, specs["dynatran"], work["row_elements"]),
        "post_sparsity": (lanes, post_sparsity, specs["post_sparsity"], compressed),
        "softmax": (
            pes * design.softmax_per_pe, softmax, specs["softmax"], work["softmax_elements"]),
        "layer_norm": (pes, layer_norm, specs["layer_norm"], work["layer_norm_elements"]),
        "residual_add": (pes, residual_add, specs["residual_add"], work["layer_norm_elements"]),
    }
    energy = {}
    for name, (instances, cost, spec, done) in rows.items():
        figures = cost.PPA
        # mW over 0.7 GHz are pJ a cycle.
        idle_cycle_pj = figures.idle_mw(spec) / 0.7
        beyond = figures.energy_pj(spec, 1.0) - idle_cycle_pj / figures.operations(spec)
        spent = beyond * done
        if name == "pre_sparsity":
            half = figures.energy_pj(spec, 0.5) - idle_cycle_pj / figures.operations(spec)
            a_pair = (beyond - half) / (1 - 0.25)
            spent = (beyond - a_pair) * done + a_pair * work["pairs"]
        energy[f"{name}_dynamic"] = scaling.energy * spent
        energy[f"{name}_leakage"] = instances * (
            scaling.area * figures.leakage_mw(spec) * run_ns
            + scaling.energy * idle_cycle_pj * result.latency_cycles
        )
        if name in ("softmax", "layer_norm"):
            made = [memory(*size) for size in cost.macros(spec).values()]
            energy[f"{name}_row_memory_dynamic"] = scaling.energy * cost.memory_pj(spec) * done
            energy[f"{name}_row_memory_leakage"] = (
                instances * scaling.area * sum(each.leakage_mw for each in made) * run_ns)
    for name, listed in PORTS.items():
        entries = math.ceil(getattr(design, f"{name}_buffer_kib") * 8192 / technology.block_bits)
        banks = max(2, math.ceil(entries / 2048))
        bank = memory(math.ceil(entries / banks), technology.block_bits)
        accesses = sum(result.blocks[port] for port in listed)
        energy[f"{name}_buffer_access"] = scaling.energy * bank.read_pj * accesses
        energy[f"{name}_buffer_leakage"] = scaling.area * banks * bank.leakage_mw * run_ns
    energy["main_memory_access"] = _main_memory(result, design, technology.off_chip)
    energy["main_memory_background"] = (design.memory.background_power_mw or 0.0) * run_ns
    return energy
