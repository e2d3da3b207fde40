"""Runs programs on an accelerator's Verilog."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwgen.program import Descriptor, MainMemory, ProgramJob, StoredRows, Word, assemble
from hwgen.simulation.beats import pack
from hwgen.simulation.module import Port, VerilogModule
from hwgen.simulation.run import simulate
from hwgen.simulation.simulators import Simulator, find_simulator
from hwgen.units.buffer.golden import Image
from hwgen.units.buffer.spec import EVEN_WORDS, LINE_ENTRIES, ODD_WORDS, BufferSpec

STATUS = (
    "idle",
    "running",
    "done",
    "other_design",
    "bad_descriptor",
    "overflow",
    "out_of_range",
)
"""Names of an accelerator's states."""


@dataclass(frozen=True)
class MachineCase:
    """What is in the buffers and in main memory, what runs, and what is read back.

    Parameters
    ----------
    program : descriptors, or words that they were assembled to
    loads : by buffer, "activations" or "weights": the data of each word
    unloads : by buffer: words to read when the program has ended
    memory : main memory; None where none may be asked
    """

    program: Sequence[Descriptor | int]
    loads: Mapping[str, Mapping[Word, int]] = field(default_factory=dict)
    unloads: Mapping[str, Iterable[Word]] = field(default_factory=dict)
    memory: MainMemory | None = None


@dataclass(frozen=True)
class MachineResult:
    """What a program did.

    Parameters
    ----------
    status : name of the state in which it left the machine; "running" if it hung
    step_cycles : cycles of each configuration and step, in order
    cycles : clock cycles that were simulated while it ran
    unloads : by buffer: what was read back
    """

    status: str
    step_cycles: tuple[int, ...]
    cycles: int
    unloads: dict[str, dict[Word, int]]


def run_programs(
    module: VerilogModule,
    cases: Sequence[MachineCase],
    simulator: Simulator | str | None = None,
    *,
    cycle_limit: int = 1_000_000,
) -> list[MachineResult]:
    """Run each case from reset.

    Parameters
    ----------
    module : an accelerator, as `hwgen.emit.unit_module` makes it
    simulator : "verilator", "icarus", a found Simulator, or None for the default
    cycle_limit : cycles after which a program counts as hung

    Raises
    ------
    MissingToolError, BuildError, SimulationError
        If there is no simulator, it refuses the Verilog, or the simulation breaks off: also where
        the machine asks main memory for more than its rate.
    """
    if not isinstance(simulator, Simulator):
        simulator = find_simulator(simulator)
    ports = {port.name: port for port in module.ports}

    def access(buffer: str, word: Word, **further: int) -> str:
        memory, bank, address = word
        fields = {"memory": memory, "bank": bank, "address": address, **further}
        names = {one.name for one in ports[buffer].fields}
        beat = {name: 0 for name in names} | {n: v for n, v in fields.items() if n in names}
        return f"{pack(ports[buffer], beat):x}"

    unloads = [{name: list(words) for name, words in case.unloads.items()} for case in cases]
    request = {
        "ports": [port.to_json() for port in module.ports],
        "layout": _memory_layout(ports),
        "cases": [
            {
                "words": [f"{word:x}" for word in _words(case.program)],
                "loads": {
                    name: [access(name, word, write=1, data=data) for word, data in words.items()]
                    for name, words in case.loads.items()
                },
                "unloads": {
                    name: [access(name, word, read=1) for word in words]
                    for name, words in read.items()
                },
                "memory": memory_request(case.memory, ports),
                "limit": cycle_limit,
            }
            for case, read in zip(cases, unloads, strict=True)
        ],
    }
    answers = simulate(module, request, simulator, "hwgen.simulation.machine_bench")
    return [_result(answer, read) for answer, read in zip(answers, unloads, strict=True)]


def run_program_jobs(
    module: VerilogModule,
    spec: BufferSpec,
    jobs: Sequence[ProgramJob],
    simulator: Simulator | str | None = None,
) -> list[tuple[MachineResult, list[str]]]:
    """Run jobs on an accelerator and compare what they leave in its activation buffer.

    Parameters
    ----------
    module, simulator : as for `run_programs`
    spec : the activation buffer

    Returns
    -------
    Of each job, what it did and a sentence for each difference; cycles are not compared.
    """
    cases = [
        MachineCase(
            job.words,
            job.loads,
            {"activations": _result_words(spec, job.results)},
            job.memory,
        )
        for job in jobs
    ]
    limits = [1000 + 4 * sum(job.step_cycles) for job in jobs]
    found = run_programs(module, cases, simulator, cycle_limit=max(limits, default=0))
    return [
        (result, _differences(spec, job, result)) for job, result in zip(jobs, found, strict=True)
    ]


def _result_words(spec: BufferSpec, results: Sequence[StoredRows]) -> list[Word]:
    """Words that may hold some rows."""
    entries, words = set(), set()
    for one in results:
        lines = len(one.rows) * -(-one.rows.shape[1] // spec.window)
        first = one.start // spec.piece // 2
        for bank in range(spec.pieces):
            entries |= {(LINE_ENTRIES, bank, one.line + number) for number in range(lines)}
            words |= {
                (memory, bank, address)
                for memory in (EVEN_WORDS, ODD_WORDS)
                for address in range(first, min(first + lines // 2 + 2, spec.words // 2))
            }
    return sorted(entries) + sorted(words)


def _differences(spec: BufferSpec, job: ProgramJob, found: MachineResult) -> list[str]:
    if found.status != "done":
        return [f"the program ends with the status {found.status!r}"]
    memories: dict[int, dict[tuple[int, int], int]] = {
        memory: {} for memory in (LINE_ENTRIES, EVEN_WORDS, ODD_WORDS)
    }
    for (memory, bank, address), data in found.unloads["activations"].items():
        memories[memory][bank, address] = data
    image = Image(
        spec,
        memories[LINE_ENTRIES],
        memories[EVEN_WORDS],
        memories[ODD_WORDS],
        np.zeros(spec.pieces, dtype=np.int64),
    )
    said = []
    for one in job.results:
        try:
            rows = image.rows(one.line, *one.rows.shape)
        except KeyError as missing:
            said.append(f"rows from line {one.line} on: nothing stands at {missing}")
            continue
        wrong = np.argwhere(rows != one.rows)
        if len(wrong):
            row, element = wrong[0]
            said.append(
                f"rows from line {one.line} on: {len(wrong)} of {rows.size} values differ, first "
                f"row {row}, element {element}: {rows[row, element]}, not {one.rows[row, element]}"
            )
    return said


def _memory_layout(ports: Mapping[str, Port]) -> dict[str, int]:
    """Layout of the ports to main memory, as `MainMemoryModel` takes it."""
    fields = {
        f"{name}.{one.name}": one
        for name in ("memory", "memory_data")
        for one in ports[name].fields
    }
    widths = {name: fields[f"memory.{name}"].width for name in ("address", "tag")}
    return {name: one.offset for name, one in fields.items()} | widths


def memory_request(
    memory: MainMemory | None, ports: Mapping[str, Port]
) -> dict[str, Any] | None:
    """Main memory as `MainMemoryModel` takes it."""
    if memory is None:
        return None
    (width,) = (one.width for one in ports["memory_data"].fields if one.name == "word")
    cycles = width / memory.bits_per_cycle
    return {
        "words": [f"{word:x}" for word in memory.words],
        "latency": memory.latency_cycles,
        "numerator": cycles.numerator,
        "denominator": cycles.denominator,
    }


def _words(program: Sequence[Descriptor | int]) -> list[int]:
    return [
        word
        for part in program
        for word in (assemble([part]) if isinstance(part, Descriptor) else [part])
    ]


def _result(answer: dict[str, Any], unloads: Mapping[str, Sequence[Word]]) -> MachineResult:
    starts = answer["starts"] + ([answer["ended"]] if answer["ended"] is not None else [])
    return MachineResult(
        STATUS[answer["status"]],
        tuple(after - before for before, after in zip(starts, starts[1:], strict=False)),
        answer["cycles"],
        {
            name: {
                word: int(bits, 2)
                for word, bits in zip(unloads[name], found, strict=True)
                if set(bits) <= {"0", "1"}
            }
            for name, found in answer["unloads"].items()
        },
    )
