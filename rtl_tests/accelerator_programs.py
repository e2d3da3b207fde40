"""A small accelerator, a good program of each kind for it, and how others run beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from hwgen.design import AcceleratorDesign
from hwgen.emit import unit_module
from hwgen.program import Descriptor
from hwgen.simulation.machine import MachineCase, MachineResult, run_programs
from hwgen.simulation.module import VerilogModule
from hwgen.units.accelerator.rtl import Accelerator
from hwgen.units.accelerator.spec import AcceleratorSpec
from rtl_tests.accelerator_cases import (
    Case,
    Prepared,
    differences,
    prepare,
    random_prefetch,
    random_product,
    random_rows,
)

DESIGN = AcceleratorDesign.model_validate({
    "tile_b": 2, "tile_x": 4, "tile_y": 4, "nonlinearity": "relu", "pes": 1, "lanes_per_pe": 4,
    "macs_per_lane": 2, "softmax_per_pe": 2, "batch_size": 1, "activation_buffer_kib": 4,
    "weight_buffer_kib": 4, "mask_buffer_kib": 2,
    "memory": {"type": "dram", "banks": 32, "ranks": 2, "channels": 1}, "loop_order": "bijk",
    "integer_bits": 4, "fraction_bits": 6, "k_max": 256, "max_sequence_length": 32,
    "window": 8, "k_segment": 16,
})
SPEC = AcceleratorSpec.of(DESIGN)

CYCLE_LIMIT = 40_000
"""Some times what any of these programs takes."""

Program = Sequence[Descriptor | int]


def cases() -> dict[str, Case]:
    """One operation of each kind."""
    rng = np.random.default_rng(4)
    return {
        "product": random_product(rng, DESIGN, (3, 6, 9, 24)),
        "activations": random_product(rng, DESIGN, (3, 6, 9, 16), has_weight=False),
        "softmax": random_rows(rng, DESIGN, "softmax", (5, 19)),
        "norm": random_rows(rng, DESIGN, "add_norm", (3, 21)).with_prefetch(
            random_prefetch(rng, DESIGN, (9, 11))),
        "streams": random_product(rng, DESIGN, (2, 6, 9, 24), streams=True),
    }


CASES = cases()
PREPARED = {name: prepare(case) for name, case in CASES.items()}


@cache
def module() -> VerilogModule:
    """Return the accelerator's Verilog."""
    return unit_module(Accelerator(SPEC), "accelerator")


def program_of(name: str) -> list[Descriptor]:
    """Return a good program's descriptors."""
    return [part for part in PREPARED[name].machine.program if isinstance(part, Descriptor)]


def configuration_of(name: str) -> Descriptor:
    """Return a good program's configuration."""
    return next(part for part in program_of(name) if part.opcode == "configure")


def changed(name: str, opcode: str, holds: Callable[[Mapping[str, int]], object],
            fields: Mapping[str, int]) -> list[Descriptor]:
    """Return a good program whose first descriptor of some sort has other fields.

    The copy that opens the program is none of them.
    """
    program = program_of(name)
    first = program.index(configuration_of(name))
    number = next(number for number, part in enumerate(program)
                  if number >= first and part.opcode == opcode and holds(part.fields))
    program[number] = Descriptor(opcode, {**program[number].fields, **fields})
    return program


GOOD = ("product", "softmax", "norm", "activations", "streams")


def run_with_good_ones(
    simulator: str, programs: Sequence[tuple[str, Program]],
    cycle_limit: int = CYCLE_LIMIT,
) -> list[tuple[MachineResult, list[str]]]:
    """Run each program, and after it, from reset, a good one.

    Returns
    -------
    For each program its result, and what was wrong with the good one's.
    """
    machine: list[MachineCase] = []
    checked: list[tuple[Case, Prepared]] = []
    for number, (base, program) in enumerate(programs):
        good = GOOD[number % len(GOOD)]
        checked.append((CASES[good], PREPARED[good]))
        machine += [replace(PREPARED[base].machine, program=program, unloads={}),
                    PREPARED[good].machine]
    results = run_programs(module(), machine, simulator, cycle_limit=cycle_limit)
    return [(fault, differences(case, prepared, good)) for fault, good, (case, prepared)
            in zip(results[::2], results[1::2], checked, strict=True)]
