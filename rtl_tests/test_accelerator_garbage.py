"""Programs of any words, and good ones a little changed: none hangs the machine or spoils the next.

The watchdog is `run_programs`' cycle limit: a machine that hangs is found "running".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hwgen.program import (
    DESCRIPTOR_WORDS,
    FIELDS,
    OPCODE_BITS,
    WORD_BITS,
    Descriptor,
    assemble,
    disassemble,
)
from hwgen.simulation.machine import MachineResult
from rtl_tests.accelerator_programs import CASES, Program, program_of, run_with_good_ones

pytestmark = pytest.mark.rtl

LONG = {"prefetch_slots": 10}
"""A field that only makes a step long, and the bits of it that garbage has."""

ERRORS = ("other_design", "bad_descriptor", "overflow", "out_of_range")


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
    make: Callable[[np.random.Generator], tuple[str, Program]], seeds: range, simulator: str,
) -> list[MachineResult]:
    programs = [make(np.random.default_rng(seed)) for seed in seeds]
    results = run_with_good_ones(simulator, programs)
    for seed, (result, differences_after) in zip(seeds, results, strict=True):
        assert result.status in ("done", *ERRORS), f"seed {seed}: {result}"
        assert differences_after == [], f"seed {seed}"
    return [result for result, _ in results]


@pytest.mark.parametrize("make", GARBAGE)
def test_garbage_does_not_hang(
    make: Callable[[np.random.Generator], tuple[str, Program]], simulator: str,
) -> None:
    _run_garbage(make, range(40), simulator)


@pytest.mark.slow
@pytest.mark.parametrize("make", GARBAGE)
def test_much_garbage_does_not_hang(
    make: Callable[[np.random.Generator], tuple[str, Program]], simulator: str,
) -> None:
    results = _run_garbage(make, range(100, 1100), simulator)
    if make is nearly_good:
        # Changes that meet no check are among them, and errors of a running program.
        assert {result.status for result in results} >= {
            "done", "bad_descriptor", "out_of_range"}
