"""Operations on an accelerator's RTL: what is loaded, run and read, and what must come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwgen.simulation.machine import MachineCase, MachineResult
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import Image
from hwgen.units.buffer.spec import LINE_ENTRIES
from rtl_tests.buffer_contents import read_rows, words_of_lines
from sim.machine_cases import Case, random_product, random_rows, random_values
from sim.machine_jobs import prepare as lay_out

__all__ = ["Case", "Prepared", "differences", "prepare", "random_product", "random_rows",
           "random_values"]


@dataclass(frozen=True)
class Prepared:
    """A case as the machine gets it.

    Parameters
    ----------
    machine : what is loaded, run and read
    base : line of the result's first row
    rows : the result as it lies in the buffer, shape (rows, elements)
    image : the buffer's part that holds it
    """

    machine: MachineCase
    base: int
    rows: np.ndarray
    image: Image


def prepare(case: Case) -> Prepared:
    """Lay a case out, and say what is read back.

    Raises
    ------
    ValueError
        If operands, partial sums or the result do not fit the buffers.
    """
    made = lay_out(case)
    spec = AcceleratorSpec.of(case.plan.design).activations
    rows, elements = made.rows.shape
    unload = words_of_lines(spec, made.base, rows * -(-elements // spec.window), made.start)
    machine = MachineCase(made.program, made.loads, {"activations": unload})
    return Prepared(machine, made.base, made.rows, made.image)


def differences(case: Case, prepared: Prepared, found: MachineResult) -> list[str]:
    """Say what is not as it must be: status, line entries, values, cycles of a step."""
    if found.status != "done":
        return [f"status {found.status} after {found.cycles} cycles"]
    said = []
    unloaded = found.unloads["activations"]
    entries = prepared.image.entries
    wrong = [place for place, entry in entries.items()
             if unloaded.get((LINE_ENTRIES, *place)) != entry]
    if wrong:
        said.append(f"{len(wrong)} of {len(entries)} line entries differ, first {wrong[0]}")
    spec = AcceleratorSpec.of(case.plan.design).activations
    try:
        values = read_rows(spec, unloaded, prepared.base, prepared.rows.shape)
    except KeyError as error:
        said.append(f"(memory, bank, address) {error} is missing or unknown")
    else:
        wrong = np.argwhere(values != prepared.rows).tolist()
        if wrong:
            said.append(f"{len(wrong)} of {values.size} values differ, first {wrong[0]}")
    expected = case.step_cycles()
    if found.step_cycles != expected:
        pairs = enumerate(zip(found.step_cycles, expected, strict=False), start=-2)
        wrong_steps = [f"{number}: {one}, not {other}" for number, (one, other) in pairs
                       if one != other]
        said.append(f"{len(found.step_cycles)} steps, not {len(expected)}; cycles that differ: "
                    f"{'; '.join(wrong_steps[:8])}")
    return said
