"""Operations on an accelerator's RTL: what is loaded, run and read, and what must come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwgen.simulation.machine import MachineCase, MachineResult, Word
from hwgen.units.accelerator.spec import AcceleratorSpec
from hwgen.units.buffer.golden import Image, pack
from hwgen.units.buffer.spec import LINE_ENTRIES
from rtl_tests.buffer_contents import bias_words, read_rows, words_of_biases, words_of_lines
from sim.machine_cases import Case, random_prefetch, random_product, random_rows, random_values
from sim.machine_jobs import prepare as lay_out
from sim.schedule import NO_IMAGE
from sim.weights import Place

__all__ = ["Case", "Prepared", "differences", "prepare", "random_prefetch", "random_product",
           "random_rows", "random_values"]


@dataclass(frozen=True)
class Prepared:
    """A case as the machine gets it.

    Parameters
    ----------
    machine : what is loaded, run and read
    base : line of the result's first row
    rows : the result as it lies in the buffer, shape (rows, elements)
    image : the buffer's part that holds it
    prefetch : where what comes meanwhile lies in the weight buffer, if anything does
    """

    machine: MachineCase
    base: int
    rows: np.ndarray
    image: Image
    prefetch: Place | None


def prepare(case: Case) -> Prepared:
    """Lay a case out, and say what is read back.

    Raises
    ------
    ValueError
        If operands, partial sums or the result do not fit the buffers.
    """
    made = lay_out(case)
    spec = AcceleratorSpec.of(case.plan.design)
    rows, elements = made.rows.shape
    lines = rows * -(-elements // spec.activations.window)
    unloads = {"activations": words_of_lines(spec.activations, made.base, lines, made.start)}
    if case.prefetch is not None and made.prefetch is not None:
        size, place = case.prefetch.size, made.prefetch
        unloads["weights"] = [
            *words_of_lines(spec.weights, place.line, size.lines, place.word * spec.weights.piece),
            *words_of_biases(place.bias, size.biases)]
    machine = MachineCase(made.program, made.loads, unloads, made.memory)
    return Prepared(machine, made.base, made.rows, made.image, made.prefetch)


def differences(case: Case, prepared: Prepared, found: MachineResult) -> list[str]:
    """Say what is not as it must be: status, line entries, values, cycles of a step."""
    if found.status != "done":
        return [f"status {found.status} after {found.cycles} cycles"]
    said = _row_differences(
        found.unloads["activations"], prepared.image, prepared.base, prepared.rows)
    if case.prefetch is not None:
        said += _prefetch_differences(case, prepared, found)
    expected = case.step_cycles()
    if found.step_cycles != expected:
        first = -2 if case.plan.image == NO_IMAGE else -3
        pairs = enumerate(zip(found.step_cycles, expected, strict=False), start=first)
        wrong_steps = [f"{number}: {one}, not {other}" for number, (one, other) in pairs
                       if one != other]
        said.append(f"{len(found.step_cycles)} steps, not {len(expected)}; cycles that differ: "
                    f"{'; '.join(wrong_steps[:8])}")
    return said


def _prefetch_differences(case: Case, prepared: Prepared, found: MachineResult) -> list[str]:
    """Say what of the weight that came meanwhile is not as it must be."""
    prefetch, place = case.prefetch, prepared.prefetch
    assert prefetch is not None and place is not None
    spec, unloaded = AcceleratorSpec.of(case.plan.design).weights, found.unloads["weights"]
    image = pack(spec, prefetch.rows, place.line, place.word * spec.piece)
    said = _row_differences(unloaded, image, place.line, prefetch.rows)
    biases = bias_words(spec, place.bias, prefetch.biases)
    wrong = [at for at, word in biases.items() if unloaded.get(at) != word]
    if wrong:
        said.append(f"{len(wrong)} of {len(biases)} words of biases differ, first {wrong[0]}")
    return [f"meanwhile: {one}" for one in said]


def _row_differences(
    unloaded: Mapping[Word, int], image: Image, base: int, expected: np.ndarray
) -> list[str]:
    """Say what of some rows from line `base` on is not as it must be."""
    said = []
    wrong = [place for place, entry in image.entries.items()
             if unloaded.get((LINE_ENTRIES, *place)) != entry]
    if wrong:
        said.append(f"{len(wrong)} of {len(image.entries)} line entries differ, first {wrong[0]}")
    try:
        values = read_rows(image.spec, unloaded, base, expected.shape)
    except KeyError as error:
        said.append(f"(memory, bank, address) {error} is missing or unknown")
    else:
        places = np.argwhere(values != expected).tolist()
        if places:
            said.append(f"{len(places)} of {values.size} values differ, first {places[0]}")
    return said
