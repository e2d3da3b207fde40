"""ELECTOR: time and energy of whole populations of designs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwgen.design import AcceleratorDesign, DesignBatch
from hwgen.technology.constants import Technology
from sim.closed_form import Floats, Population, task_sums
from sim.energy import dynamic_pj, static_mw
from sim.lanes import LaneTimes
from sim.proof import done_in_rtl
from sim.report import Details, Report
from sim.workload import Workload

CHUNK_DESIGNS = 4096
"""Most designs that are worked on at once."""

CHUNK_STEPS = 1 << 16
"""About the most classes of steps that are worked on at once."""

DETAILED_DESIGNS = 1 << 14
"""Largest population whose breakdowns are kept; those of a larger one are computed on request."""


def evaluate(
    designs: DesignBatch | Sequence[AcceleratorDesign | Mapping[str, Any] | str | Path],
    workload: Workload,
    technology: Technology | str = "acceltran-14nm",
) -> Report:
    """Cost a workload on each of many designs, in density mode.

    Parameters
    ----------
    designs : a population, or a list of designs, names, files or mappings
    workload : what runs
    technology : what energy and area are taken from

    Returns
    -------
    Report, with one entry a design.

    Raises
    ------
    ValueError
        If a design cannot run the workload or the technology has no figures for it.
    """
    population, priced = DesignBatch.of(designs), Technology.load(technology)
    workload.check(population)
    priced.check(population)
    keep = len(population) <= DETAILED_DESIGNS
    totals, details = summarise(population, workload, priced, keep)
    return Report(
        population,
        workload,
        priced,
        totals["latency_cycles"],
        totals["energy_pj"],
        details,
        lambda: summarise(population, workload, priced, True)[1],
    )


def summarise(
    designs: DesignBatch, workload: Workload, technology: Technology, keep: bool
) -> tuple[Details, dict[str, Details] | None]:
    """Add up a population's tasks, a bounded number of designs at a time.

    Parameters
    ----------
    keep : whether to keep what the totals are made of

    Returns
    -------
    The totals, and tables of arrays of shape (designs,): "latency_cycles.operation",
    "latency_cycles.component", "energy_pj.operation", "energy_pj.component", "in_rtl" (by
    operation), "bits" and "work".
    """
    lane_times = LaneTimes()
    parts = []
    for start in range(0, len(designs), CHUNK_DESIGNS):
        chunk = designs.take(slice(start, start + CHUNK_DESIGNS))
        for part in Population(chunk, workload, lane_times, 0, keep).cuts(CHUNK_STEPS):
            population = Population(
                chunk.take(part), workload, lane_times, technology.block_bits, keep
            )
            parts.append(_summarise_chunk(population, technology))
    totals = {name: np.concatenate([part[0][name] for part in parts]) for name in parts[0][0]}
    if not keep:
        return totals, None
    details = {
        table: {name: np.concatenate([part[1][table][name] for part in parts]) for name in columns}
        for table, columns in parts[0][1].items()
    }
    return totals, details


def _summarise_chunk(
    population: Population, technology: Technology
) -> tuple[Details, dict[str, Details]]:
    designs = population.designs
    cycle_us = 1 / designs.clock_mhz
    prices, access_pj = technology.dynamic_pj(designs), technology.access_pj(designs)
    static = static_mw(designs, technology)
    # mW · µs is nJ.
    static_pj = {name: 1000 * mw * cycle_us for name, mw in static.items()}
    all_static_pj = sum(static_pj.values())
    totals: Details = {name: np.zeros(len(designs)) for name in ("latency_cycles", "energy_pj")}
    details: dict[str, Details] = {}

    def add(table: str, name: str, values: Floats) -> None:
        columns = details.setdefault(table, {})
        columns[name] = columns[name] + values if name in columns else values

    if population.detailed:
        for label, done in done_in_rtl(population).items():
            add("in_rtl", label, done.astype(np.float64))
    for label, sums in task_sums(population):
        dynamic = dynamic_pj(designs, prices, access_pj, sums)
        energy = sum(dynamic.values()) + all_static_pj * sums["cycles"]
        totals["latency_cycles"] = totals["latency_cycles"] + sums["cycles"]
        totals["energy_pj"] = totals["energy_pj"] + energy
        if not population.detailed:
            continue
        add("latency_cycles.operation", label, sums["cycles"])
        add("energy_pj.operation", label, energy)
        for name, values in dynamic.items():
            add("energy_pj.component", name, values)
        for name, values in static_pj.items():
            add("energy_pj.component", name, values * sums["cycles"])
        for name, values in sums.items():
            kind, _, rest = name.partition(".")
            if kind == "stall":
                add("latency_cycles.component", rest, values)
            elif kind == "bits":
                add("bits", rest, values)
            elif kind != "blocks":
                add("work", name, values)
    return totals, details
