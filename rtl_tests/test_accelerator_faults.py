"""Whatever a program asks for, the machine ends it, says what was wrong, and works after a reset.

The watchdog is `run_programs`' cycle limit: a machine that hangs is found "running".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from hwgen.design import AcceleratorDesign
from hwgen.emit import unit_module
from hwgen.program import (
    DESCRIPTOR_WORDS,
    FIELDS,
    KINDS,
    OPCODE_BITS,
    WORD_BITS,
    Descriptor,
    assemble,
    disassemble,
)
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

pytestmark = pytest.mark.rtl

DESIGN = AcceleratorDesign.model_validate({
    "tile_b": 2, "tile_x": 4, "tile_y": 4, "nonlinearity": "relu", "pes": 1, "lanes_per_pe": 4,
    "macs_per_lane": 2, "softmax_per_pe": 2, "batch_size": 1, "activation_buffer_kib": 4,
    "weight_buffer_kib": 4, "mask_buffer_kib": 2,
    "memory": {"type": "dram", "banks": 32, "ranks": 2, "channels": 1}, "loop_order": "bijk",
    "integer_bits": 4, "fraction_bits": 6, "k_max": 256, "max_sequence_length": 32,
    "window": 8, "k_segment": 16,
})
SPEC = AcceleratorSpec.of(DESIGN)
LINES, LANES, BUFFER = SPEC.activations.lines, SPEC.lanes, SPEC.activations

CYCLE_LIMIT = 40_000
"""Some times what any of these programs takes."""

LONG = {"prefetch_slots": 10}
"""A field that only makes a step long, and the bits of it that garbage has."""

ERRORS = ("other_design", "bad_descriptor", "overflow", "out_of_range")

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


@pytest.fixture(scope="module")
def module() -> VerilogModule:
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


@dataclass(frozen=True)
class Fault:
    """A program with an error.

    Parameters
    ----------
    base : the operation whose operands are in the buffers
    program, status : what runs, and what it must end with
    """

    base: str
    program: Program
    status: str = "bad_descriptor"


def _structure() -> Iterator[tuple[str, Fault]]:
    """Programs whose descriptors do not follow one another as they must."""
    good = program_of("product")
    header, copy, configure, *steps, end = good
    fault = partial(Fault, "product")
    for opcode in (len(FIELDS), 9, 15):
        unknown = [opcode] + [0] * (DESCRIPTOR_WORDS - 1)
        yield f"opcode {opcode}", fault([header, configure, *unknown, end])
        yield f"opcode {opcode} first", fault([*unknown, end])
    yield "no header", fault(good[1:])
    yield "an end alone", fault([end])
    yield "a second header", fault([header, configure, header, *steps, end])
    yield "a step before any configuration", fault([header, *steps, end])
    for name in ("compute", *(f"{port}_enable" for port in (
            "left", "right", "drain", "fill", "write"))):
        more = Descriptor("step", {**copy.fields, name: 1})
        yield f"{name} before any configuration", fault([header, more, configure, *steps, end])
    for version in (0, 1, 255):
        other = Descriptor("header", {**header.fields, "version": version})
        yield f"version {version}", fault([other, *good[1:]])
    relative = DESIGN.model_copy(update={"mask_buffer_kib": 3})
    for name, number in (("another design", AcceleratorSpec.of(relative).number), ("no design", 0),
                         ("one bit of the number", header.fields["machine"] ^ 1 << 63)):
        other = Descriptor("header", {**header.fields, "machine": number})
        yield name, fault([other, *good[1:]], "other_design")


def _values() -> Iterator[tuple[str, Fault]]:
    """Descriptors with a field that no unit can do, or beyond what there is."""
    def each(base: str, opcode: str, holds: Callable[[Mapping[str, int]], object],
             changes: Sequence[Mapping[str, int]], status: str = "bad_descriptor",
             ) -> Iterator[tuple[str, Fault]]:
        for fields in changes:
            said = ", ".join(f"{name} {value}" for name, value in fields.items())
            yield f"{base}: {said}", Fault(base, changed(base, opcode, holds, fields), status)

    positions, engines = BUFFER.positions, SPEC.softmax_engines
    yield from each("product", "configure", lambda _: True, [
        {"kind": len(KINDS)}, {"activate": 3}, {"shift": DESIGN.accumulator_bits}, {"shift": 63},
        {"threshold": 1 << DESIGN.bits}, {"stochastic": 1}, {"start": 2}, {"start": positions},
        {"limit": positions - 1}, {"limit": positions + BUFFER.piece},
        *({f"unroll_{name}": value} for name in "bij" for value in (0, LANES + 1, 2047)),
        # More tiles than lanes, and a lane that is not there.
        {"unroll_i": LANES, "unroll_j": LANES, "unroll_b": LANES},
        {"unroll_i": LANES, "unroll_j": LANES, "lane_b": 0, "lane_i": 0, "lane_j": 0},
        {"unroll_i": LANES, "lane_i": LANES - 1}, {"unroll_j": LANES, "lane_j": 1023},
    ])
    yield from each("softmax", "configure", lambda _: True, [
        {"length": 0}, {"length": SPEC.softmax.softmax.max_row + 1}, {"valid_j": 20}])
    yield from each("norm", "configure", lambda _: True, [
        {"length": 0}, {"length": SPEC.norm.layer_norm.max_row + 1}, {"weights_lines": 0},
        {"weights_lines": 4}, {"weights_lines": 1023}, {"weights_absent": BUFFER.pieces}])

    lane = SPEC.lane
    yield from each("product", "step", lambda fields: fields.get("compute"), [
        {"windows": 0}, {"windows": lane.segment_lines + 1}, {"initial": 3},
        *({f"tiles_{name}": value} for name in "bij" for value in (0, LANES + 1, 2047)),
        *({f"last_{name}": value} for name, tile in
          (("b", lane.tile_b), ("i", lane.tile_x), ("j", lane.tile_y)) for value in (0, tile + 1)),
    ])
    for side in ("left", "right"):
        yield from each("product", "step", lambda fields, side=side: fields.get(f"{side}_enable"), [
            {f"{side}_{name}": value} for name, values in (
                ("b", (0, lane.tile_b * LANES + 1, 4095)), ("rows", (0, 4 * LANES + 1, 16383)),
                ("lines", (0, lane.segment_lines + 1, 1023)), ("absent", (BUFFER.pieces, 255)))
            for value in values])
    yield from each("product", "step", lambda fields: fields.get("bias_enable"), [
        {"right_weights": 0}])
    yield from each("product", "step", lambda fields: fields.get("write_enable"), [
        *({f"write_{name}": value} for name, most in (
            ("b", 4095), ("rows", 16383), ("pieces", 16383)) for value in (0, 4 * LANES + 1, most)),
    ])
    yield from each("product", "step", lambda fields: not fields.get("write_enable"), [
        {"write_flush": 1}])

    computes = {"softmax": engines, "norm": 1}
    for base, count in computes.items():
        yield from each(base, "step", lambda fields: fields.get("compute"), [
            {"tiles_i": 0}, {"tiles_i": count + 1}, {"tiles_i": 2047}])
        yield from each(base, "step", lambda fields: fields.get("left_enable"), [
            {"left_b": 0}, {"left_b": 2}, {"left_rows": count + 1}, {"left_lines": 4},
            {"left_lines": 1023}])
        yield from each(base, "step", lambda fields: fields.get("write_enable"), [
            {"write_b": 2}, {"write_rows": count + 1}, {"write_pieces": 7},
            {"write_pieces": 16383}])
    yield from each("softmax", "step", lambda fields: fields.get("left_enable"), [
        {"right_enable": 1, "right_b": 1, "right_rows": 1, "right_lines": 1}])
    yield from each("norm", "step", lambda fields: fields.get("right_enable"), [
        {"right_weights": 1}])
    yield from each("norm", "step", lambda fields: fields.get("load"), [{"load": 0}])
    yield from each("product", "configure", lambda _: True, [{"groups": LANES + 1}])
    for way in ("drain", "fill"):
        # A sum of a row; of the bank that is computed; behind the last word.
        yield from each("softmax", "step", lambda _: True, [{f"{way}_enable": 1}])
        yield from each(
            "product", "step", lambda fields: fields.get("compute") and not fields.get("sums_bank"),
            [{f"{way}_enable": 1, f"{way}_bank": 0}])
        for word in (BUFFER.words, BUFFER.words - 1, (1 << 20) - 1):
            header, copy, configure, *rest = changed(
                "product", "step", lambda fields: not fields.get("compute"),
                {f"{way}_enable": 1, f"{way}_word": word})
            spills = Descriptor("configure", {**configure.fields, "groups": 1})
            yield f"product: {way}_word {word}", Fault(
                "product", [header, copy, spills, *rest], "out_of_range")
    yield from each("product", "step", lambda fields: fields.get("write_enable"), [
        {"drain_enable": 1}])

    yield from each("product", "step", lambda fields: fields.get("left_enable"), [
        {"left_line": LINES}, {"left_line": 2 * LINES}, {"left_line": (1 << 20) - 1},
    ], "out_of_range")
    yield from each("product", "step", lambda fields: fields.get("right_enable"), [
        {"right_line": SPEC.weights.lines}, {"right_line": SPEC.weights.lines - 1},
    ], "out_of_range")
    yield from each("product", "step", lambda fields: fields.get("bias_enable"), [
        {"bias": SPEC.weights.biases}, {"bias": SPEC.weights.biases - 1}, {"bias": 65535},
    ], "out_of_range")
    yield from each("product", "step", lambda fields: fields.get("write_enable"), [
        {"write_line": LINES}, {"write_line": LINES - 1}, {"write_line": (1 << 20) - 1},
    ], "out_of_range")
    yield from each("product", "configure", lambda _: True, [
        {"left_row_stride": LINES}, {"left_row_stride": (1 << 20) - 1, "left_b_stride": 0},
        {"right_row_stride": 1 << 19}, {"result_row_stride": LINES}, {"result_b_stride": LINES},
    ], "out_of_range")
    yield from each("norm", "configure", lambda _: True, [
        {"weights_line": LINES}, {"weights_line": LINES - 1}], "out_of_range")
    yield from each("softmax", "step", lambda fields: fields.get("left_enable"), [
        {"left_line": LINES}], "out_of_range")
    for base in CASES:
        start = configuration_of(base).fields["start"]
        yield from each(base, "configure", lambda _: True, [
            {"limit": start}, {"limit": start + BUFFER.piece}, {"start": positions - BUFFER.piece},
        ], "overflow")


def _images() -> Iterator[tuple[str, Fault]]:
    """Images that no loader can bring, or that go beyond the weight buffer."""
    buffer = SPEC.weights
    rooms = {"line": buffer.lines, "word": buffer.words, "bias": buffer.bias_words}
    beyond = [{name: at} for name, room in rooms.items()
              for at in (room, room - 1, (1 << (16 if name == "bias" else 20)) - 1)]
    large = [{"lines": buffer.lines + 1}, {"lines": (1 << 20) - 1},
             {"biases": buffer.bias_words + 1}]
    for base, number in (("product", 1), ("streams", next(
            number for number, part in enumerate(program_of("streams"))
            if number > 1 and part.fields.get("copy_biases")))):
        program = program_of(base)
        fields = program[number].fields
        assert fields["copy_enable"]
        bad = [{"lines": 0}, {"slots": fields["copy_values"]}, {"slots": 0}, {"values": 63}, *large]
        for status, changes in (("bad_descriptor", bad), ("out_of_range", beyond)):
            for change in changes:
                made = list(program)
                own = {f"copy_{name}": value for name, value in change.items()}
                made[number] = Descriptor("step", {**fields, **own})
                yield f"{base}: descriptor {number}, {own}", Fault(base, made, status)
    values = configuration_of("norm").fields["prefetch_values"]
    bad = [{"slots": values}, {"slots": 0}, {"values": 63}, *large]
    for status, changes in (("bad_descriptor", bad), ("out_of_range", beyond)):
        for change in changes:
            own = {f"prefetch_{name}": value for name, value in change.items()}
            yield f"norm: {own}", Fault("norm", changed(
                "norm", "configure", lambda _: True, own), status)


def _banks() -> Iterator[tuple[str, Fault]]:
    """Steps that write what they compute from, or read what they make."""
    def conflicts(base: str, holds: Callable[[Mapping[str, int]], object], bank: str, other: str,
                  ) -> Fault:
        program = program_of(base)
        fields = next(part.fields for part in program if part.opcode == "step"
                      and part.fields.get("compute") and holds(part.fields))
        return Fault(base, changed(base, "step", lambda own: own is fields,
                                   {bank: fields.get(other, 0)}))

    def is_row(base: str) -> bool:
        return base in ("softmax", "norm")

    for base in CASES:
        # What rows are computed from lies in one bank for both addends.
        for side in ("left",) if base == "softmax" else ("left", "right"):
            other = "compute_left" if is_row(base) else f"compute_{side}"
            yield f"{base}: {side}_bank = {other}", conflicts(
                base, lambda fields, side=side: fields.get(f"{side}_enable")
                and not fields.get("load"), f"{side}_bank", other)
        # Of a product of two segments, no wave closes while one is written.
        if base not in ("product", "streams"):
            yield f"{base}: write_bank = result_bank", conflicts(
                base, lambda fields, base=base: fields.get("write_enable")
                and (is_row(base) or fields.get("closing")), "write_bank", "result_bank")


FAULTS = dict((*_structure(), *_values(), *_images(), *_banks()))

GOOD = ("product", "softmax", "norm", "activations", "streams")


def run_with_good_ones(
    module: VerilogModule, simulator: str, programs: Sequence[tuple[str, Program]],
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
    results = run_programs(module, machine, simulator, cycle_limit=cycle_limit)
    return [(fault, differences(case, prepared, good)) for fault, good, (case, prepared)
            in zip(results[::2], results[1::2], checked, strict=True)]


@pytest.fixture(scope="module")
def outcomes(
    module: VerilogModule, simulator: str,
) -> dict[str, tuple[MachineResult, list[str]]]:
    """Results of all faults, from one simulation."""
    programs = [(fault.base, fault.program) for fault in FAULTS.values()]
    return dict(zip(FAULTS, run_with_good_ones(module, simulator, programs), strict=True))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_with_its_status(
    name: str, outcomes: dict[str, tuple[MachineResult, list[str]]],
) -> None:
    result, differences_after = outcomes[name]
    assert result.status == FAULTS[name].status
    assert differences_after == []


def test_a_truncated_program_waits_for_its_rest(module: VerilogModule, simulator: str) -> None:
    words = assemble(program_of("product"))
    lengths = [1, 3, 4, 5, 8, 11, 14, len(words) // 2, len(words) - 4, len(words) - 1]
    results = run_with_good_ones(
        module, simulator, [("product", words[:length]) for length in lengths], cycle_limit=4000)
    for length, (result, differences_after) in zip(lengths, results, strict=True):
        # Until its header is whole and known, nothing runs.
        assert result.status == ("running" if length >= DESCRIPTOR_WORDS else "idle")
        assert result.cycles == 4000
        assert differences_after == []


def random_words(rng: np.random.Generator) -> tuple[str, Program]:
    """Words of any bits."""
    bits = rng.integers(0, 2, (int(rng.integers(4, 24)), WORD_BITS))
    return "product", [int("".join(map(str, row)), 2) for row in bits.tolist()] + _ends()


def random_descriptors(rng: np.random.Generator) -> tuple[str, Program]:
    """Known descriptors of any values, most of them small, behind a good header."""
    base = str(rng.choice(list(CASES)))
    program: list[Descriptor] = [program_of(base)[0]]
    for _ in range(int(rng.integers(1, 8))):
        opcode = str(rng.choice(["configure", "step", "step", "step"]))
        fields = {}
        for name, bits in FIELDS[opcode]:
            size = int(rng.choice([1, 2, 3, LONG.get(name, abs(bits))]))
            value = int(rng.integers(0, 1 << min(size, abs(bits))))
            fields[name] = value - (1 << -bits - 1) if bits < 0 else value
        program.append(Descriptor(opcode, fields))
    return base, [*program, *_ends()]


def nearly_good(rng: np.random.Generator) -> tuple[str, Program]:
    """A good program with some values changed, a little or altogether."""
    base = str(rng.choice(list(CASES)))
    program = program_of(base)
    for _ in range(int(rng.integers(1, 4))):
        number = int(rng.integers(1, len(program) - 1))
        opcode = program[number].opcode
        name, bits = FIELDS[opcode][int(rng.integers(len(FIELDS[opcode])))]
        low, high = (-(1 << -bits - 1), (1 << -bits - 1) - 1) if bits < 0 else (0, (1 << bits) - 1)
        value = program[number].fields.get(name, 0)
        near = [value + 1, value - 1, 2 * value, value // 2, 0, high, int(rng.integers(low, high))]
        fields = {**program[number].fields, name: min(high, max(low, int(rng.choice(near))))}
        program[number] = _short(Descriptor(opcode, fields))
    return base, program


def one_bit_off(rng: np.random.Generator) -> tuple[str, Program]:
    """A good program's words with one bit turned; then ends, if it lost its own."""
    base = str(rng.choice(list(CASES)))
    words = assemble(program_of(base))
    used = OPCODE_BITS + sum(abs(bits) for _, bits in FIELDS["configure"])
    number, bit = int(rng.integers(len(words) // DESCRIPTOR_WORDS)), int(rng.integers(used))
    words[number * DESCRIPTOR_WORDS + bit // WORD_BITS] ^= 1 << bit % WORD_BITS
    part = slice(number * DESCRIPTOR_WORDS, (number + 1) * DESCRIPTOR_WORDS)
    if words[part][0] % (1 << OPCODE_BITS) < len(FIELDS):
        (found,) = disassemble(words[part])
        if (short := _short(found)) != found:
            words[part] = assemble([short])
    return base, [*words, *_ends()]


def _short(descriptor: Descriptor) -> Descriptor:
    """Take the bits away by which a step would only be long."""
    fields = descriptor.fields
    return Descriptor(descriptor.opcode, {
        **fields, **{name: fields[name] % (1 << bits) for name, bits in LONG.items()
                     if name in fields}})


def _ends() -> list[int]:
    """Words that complete any descriptor, and an end after it."""
    return [0] * (2 * DESCRIPTOR_WORDS)


GARBAGE = (random_words, random_descriptors, nearly_good, one_bit_off)


def _run_garbage(
    make: Callable[[np.random.Generator], tuple[str, Program]], seeds: range,
    module: VerilogModule, simulator: str,
) -> list[MachineResult]:
    programs = [make(np.random.default_rng(seed)) for seed in seeds]
    results = run_with_good_ones(module, simulator, programs)
    for seed, (result, differences_after) in zip(seeds, results, strict=True):
        assert result.status in ("done", *ERRORS), f"seed {seed}: {result}"
        assert differences_after == [], f"seed {seed}"
    return [result for result, _ in results]


@pytest.mark.parametrize("make", GARBAGE)
def test_garbage_does_not_hang(
    make: Callable[[np.random.Generator], tuple[str, Program]], module: VerilogModule,
    simulator: str,
) -> None:
    _run_garbage(make, range(40), module, simulator)


@pytest.mark.slow
@pytest.mark.parametrize("make", GARBAGE)
def test_much_garbage_does_not_hang(
    make: Callable[[np.random.Generator], tuple[str, Program]], module: VerilogModule,
    simulator: str,
) -> None:
    results = _run_garbage(make, range(100, 1100), module, simulator)
    if make is nearly_good:
        # Changes that meet no check are among them, and errors of a running program.
        assert {result.status for result in results} >= {
            "done", "bad_descriptor", "out_of_range"}
