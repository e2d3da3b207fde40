"""How fast simulators run a small accelerator."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from hwgen.design import AcceleratorDesign

sys.path.append(str(Path(__file__).parents[2]))  # rtl_tests is no installed package

SMALL = {"pes": 1, "lanes_per_pe": 4, "macs_per_lane": 2, "softmax_per_pe": 2, "tile_x": 4,
         "tile_y": 4, "activation_buffer_kib": 4, "weight_buffer_kib": 4, "mask_buffer_kib": 2,
         "fraction_bits": 6, "k_max": 256, "max_sequence_length": 32, "batch_size": 1}
"""Changes of the design `small`."""

EXTENTS = (1, 16, 16, 32)

PROGRAMS = {"verilator": 16, "icarus": 1}
"""How often the product runs in one process, so that starting one matters little."""


def small_design() -> AcceleratorDesign:
    """Return the accelerator that is simulated."""
    base = AcceleratorDesign.load("small").model_dump()
    kept = {name: value for name, value in base.items()
            if name not in ("window", "k_segment", "fifo_depth")}
    return AcceleratorDesign.load({**kept, **SMALL})


def simulated_speeds(names: list[str], seed: int, repeats: int = 3) -> list[dict[str, Any]]:
    """Simulated cycles a second of one random product, with each simulator.

    Parameters
    ----------
    names : simulators; one that is not installed has a row that says so
    seed : of the operands
    repeats : runs, of which the median counts

    Raises
    ------
    RuntimeError
        If results or cycles are not what golden and the reference say.
    """
    # Amaranth and cocotb are needed here alone.
    from hwgen.emit import unit_module
    from hwgen.simulation.machine import run_programs
    from hwgen.simulation.simulators import MissingToolError, find_simulator
    from hwgen.units.accelerator.rtl import Accelerator
    from hwgen.units.accelerator.spec import AcceleratorSpec
    from rtl_tests.accelerator_cases import differences, prepare, random_product

    design = small_design()
    module = unit_module(Accelerator(AcceleratorSpec.of(design)), "accelerator")
    case = random_product(np.random.default_rng(seed), design, EXTENTS)
    prepared = prepare(case)
    machine = prepared.machine
    moved = sum(map(len, machine.loads.values())) + sum(map(len, machine.unloads.values()))
    found: list[dict[str, Any]] = []
    for name in names:
        try:
            simulator = find_simulator(name)
        except MissingToolError as error:
            found.append({"simulator": name, "missing": str(error)})
            continue
        begun = perf_counter()
        first = run_programs(module, [machine], simulator)[0]
        once = perf_counter() - begun
        if said := differences(case, prepared, first):
            raise RuntimeError(f"the accelerator on {name}: {'; '.join(said)}")
        count = PROGRAMS[name]
        seconds = []
        for _ in range(repeats):
            begun = perf_counter()
            run_programs(module, [machine] * count, simulator)
            seconds.append(perf_counter() - begun)
        cycles = count * (first.cycles + moved)
        found.append({
            "simulator": name, "version": simulator.version, "first_run_seconds": once,
            "program_cycles": first.cycles, "simulated_cycles": cycles,
            "seconds": statistics.median(seconds),
            "cycles_per_second": cycles / statistics.median(seconds)})
    return found
