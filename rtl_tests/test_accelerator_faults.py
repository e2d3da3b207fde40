"""Whatever a program asks for, the machine ends it, says what was wrong, and works after a reset.

The watchdog is `run_programs`' cycle limit: a machine that hangs is found "running".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from hwgen.program import DESCRIPTOR_WORDS, FIELDS, KINDS, Descriptor, assemble
from hwgen.simulation.machine import MachineResult
from hwgen.units.accelerator.spec import AcceleratorSpec
from rtl_tests.accelerator_programs import (
    CASES,
    DESIGN,
    SPEC,
    Program,
    changed,
    configuration_of,
    program_of,
    run_with_good_ones,
)

pytestmark = pytest.mark.rtl

LINES, LANES, BUFFER = SPEC.activations.lines, SPEC.lanes, SPEC.activations


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


@pytest.fixture(scope="module")
def outcomes(simulator: str) -> dict[str, tuple[MachineResult, list[str]]]:
    """Results of all faults, from one simulation."""
    programs = [(fault.base, fault.program) for fault in FAULTS.values()]
    return dict(zip(FAULTS, run_with_good_ones(simulator, programs), strict=True))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_with_its_status(
    name: str, outcomes: dict[str, tuple[MachineResult, list[str]]],
) -> None:
    result, differences_after = outcomes[name]
    assert result.status == FAULTS[name].status
    assert differences_after == []


def test_a_truncated_program_waits_for_its_rest(simulator: str) -> None:
    words = assemble(program_of("product"))
    lengths = [1, 3, 4, 5, 8, 11, 14, len(words) // 2, len(words) - 4, len(words) - 1]
    results = run_with_good_ones(
        simulator, [("product", words[:length]) for length in lengths], cycle_limit=4000)
    for length, (result, differences_after) in zip(lengths, results, strict=True):
        # Until its header is whole and known, nothing runs.
        assert result.status == ("running" if length >= DESCRIPTOR_WORDS else "idle")
        assert result.cycles == 4000
        assert differences_after == []
