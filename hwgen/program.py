"""What the hardware is asked to do, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np


def _plain(value: Any) -> Any:
    """Arrays and NumPy scalars as lists and Python integers."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return value


@dataclass(frozen=True)
class Job:
    """One job of one unit: what it gets and how long the model says that it takes.

    Parameters
    ----------
    unit : name of the unit's folder
    name : what the job is, for people
    operands : integers and arrays of integers by name; a list of unequal rows stays a list
    exponents : power-of-two exponents by tensor name
    shapes : the extents that the operands belong to
    cycles : predicted cycles, or None until a cost function has filled them in
    """

    unit: str
    name: str
    operands: Mapping[str, Any]
    exponents: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, list[int]] = field(default_factory=dict)
    cycles: int | None = None

    def with_cycles(self, cycles: int) -> Job:
        """Give the same job another prediction."""
        return replace(self, cycles=int(cycles))

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON types."""
        return {
            "unit": self.unit,
            "name": self.name,
            "operands": {name: _plain(value) for name, value in self.operands.items()},
            "exponents": {name: int(value) for name, value in self.exponents.items()},
            "shapes": {name: [int(n) for n in shape] for name, shape in self.shapes.items()},
            "cycles": self.cycles,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Job:
        """Read a job back; rectangular lists of integers become int64 arrays."""
        operands = {name: _array(value) for name, value in data["operands"].items()}
        return cls(
            data["unit"],
            data["name"],
            operands,
            dict(data["exponents"]),
            {name: list(shape) for name, shape in data["shapes"].items()},
            data["cycles"],
        )


def _array(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    try:
        return np.asarray(value, dtype=np.int64)
    except ValueError:
        return value


Word = tuple[int, int, int]
"""Memory, bank and address of a word in a buffer, as its raw port takes them."""


@dataclass(frozen=True)
class StoredRows:
    """Rows that a program must leave in the activation buffer.

    Parameters
    ----------
    line : the first row's first line
    start : position from which on their values lie in every bank
    rows : integers, shape (rows, elements)
    """

    line: int
    start: int
    rows: np.ndarray


@dataclass(frozen=True)
class MainMemory:
    """What main memory holds, and how fast it answers.

    Parameters
    ----------
    words : from address 0 on
    latency_cycles : cycles from a request to its word, at least 1
    bits_per_cycle : its rate

    Raises
    ------
    ValueError
        If the latency or the rate is not positive.
    """

    words: tuple[int, ...]
    latency_cycles: int
    bits_per_cycle: Fraction

    def __post_init__(self) -> None:
        """Refuse a memory that answers before it is asked, or never."""
        if self.latency_cycles < 1:
            raise ValueError(f"latency_cycles must be at least 1, not {self.latency_cycles}")
        if self.bits_per_cycle <= 0:
            raise ValueError(f"bits_per_cycle must be positive, not {self.bits_per_cycle}")

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON types; words in hexadecimal digits."""
        return {
            "words": [f"{word:x}" for word in self.words],
            "latency_cycles": self.latency_cycles,
            "bits_per_cycle": list(self.bits_per_cycle.as_integer_ratio()),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MainMemory:
        """Read a main memory back."""
        words = tuple(int(word, 16) for word in data["words"])
        return cls(words, data["latency_cycles"], Fraction(*data["bits_per_cycle"]))


@dataclass(frozen=True)
class ProgramJob:
    """A program of an accelerator: what it finds, what it leaves in its buffer, and how long.

    Parameters
    ----------
    name : what the job is, for people
    words : the assembled program
    loads : by buffer, "activations" or "weights": the data of each word before it starts
    memory : main memory, with the images of weights
    results : what it must leave
    step_cycles : predicted cycles of each configuration and step
    """

    name: str
    words: tuple[int, ...]
    loads: Mapping[str, Mapping[Word, int]]
    memory: MainMemory
    results: tuple[StoredRows, ...]
    step_cycles: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the job as JSON types; words in hexadecimal digits."""
        return {
            "name": self.name,
            "words": [f"{word:x}" for word in self.words],
            "loads": {
                buffer: [[*word, f"{data:x}"] for word, data in words.items()]
                for buffer, words in self.loads.items()
            },
            "memory": self.memory.to_json(),
            "results": [
                {"line": one.line, "start": one.start, "rows": one.rows.tolist()}
                for one in self.results
            ],
            "step_cycles": list(self.step_cycles),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ProgramJob:
        """Read a job back."""
        return cls(
            data["name"],
            tuple(int(word, 16) for word in data["words"]),
            {
                buffer: {(memory, bank, at): int(code, 16) for memory, bank, at, code in words}
                for buffer, words in data["loads"].items()
            },
            MainMemory.from_json(data["memory"]),
            tuple(
                StoredRows(one["line"], one["start"], np.asarray(one["rows"], dtype=np.int64))
                for one in data["results"]
            ),
            tuple(data["step_cycles"]),
        )


WORD_BITS = 128
"""Bits of a word of a program."""

DESCRIPTOR_WORDS = 5
"""Words of a descriptor, which a sequencer takes one a cycle."""

FORMAT_VERSION = 2
"""Of the descriptors' fields; a program's header names it."""

OPCODE_BITS = 4

_SCAN = (("row_stride", 20), ("b_stride", 20), ("wrap_stride", 20), ("wrap", 8))
"""How a port walks: lines from a row to the next, from a b to the next, and from the last b of
`wrap` to the first of the next ones (heads)."""

_READ = (("enable", 1), ("bank", 1), ("line", 20), ("b", 12), ("rows", 14), ("lines", 10),
         ("absent", 8), ("phase", 8))
"""What a port reads in a step: from which line on, b's, rows of each, lines of each row; how many
pieces of a row's last line are behind the row's end; how many b's of a wrap come before the first
one."""

_IMAGE = (("address", 28), ("biases", 12), ("lines", 20), ("values", 6), ("slots", 6),
          ("line", 20), ("word", 20), ("bias", 16))
"""An image in main memory and where it goes: address of its first word; words of biases; lines;
words of values in a group, and slots that a group takes; first line; first word of every bank;
first word of biases."""


def _prefixed(name: str, fields: Iterable[tuple[str, int]]) -> tuple[tuple[str, int], ...]:
    return tuple((f"{name}_{field}", bits) for field, bits in fields)


FIELDS: dict[str, tuple[tuple[str, int], ...]] = {
    "end": (),
    "header": (("version", 8), ("machine", 64)),
    "configure": (
        ("kind", 2),
        ("shift", 6),
        ("activate", 2),
        ("stochastic", 1),
        ("transposed", 1),
        ("right_has_b", 1),
        ("threshold", 24),
        ("i_exponent", -8),
        ("o_exponent", -8),
        ("addend_exponent", -8),
        ("sum_exponent", -8),
        ("gamma_exponent", -8),
        ("beta_exponent", -8),
        ("length", 14),
        ("sequence", 14),
        ("valid_i", 14),
        ("valid_j", 14),
        *_prefixed("lane", (("b", 10), ("i", 10), ("j", 10))),
        *_prefixed("unroll", (("b", 11), ("i", 11), ("j", 11))),
        *_prefixed("left", _SCAN),
        *_prefixed("right", _SCAN),
        *_prefixed("result", _SCAN),
        ("start", 24),
        ("limit", 24),
        ("groups", 10),
        *_prefixed("weights", (("line", 20), ("lines", 10), ("absent", 8))),
        *_prefixed("prefetch", _IMAGE),
    ),
    "step": (
        ("compute", 1),
        ("load", 1),
        *_prefixed("tiles", (("b", 11), ("i", 11), ("j", 11))),
        *_prefixed("last", (("b", 7), ("i", 6), ("j", 6))),
        ("windows", 10),
        ("initial", 2),
        ("closing", 1),
        ("compute_left", 1),
        ("compute_right", 1),
        ("sums_bank", 1),
        ("result_bank", 1),
        *_prefixed("origin", (("i", 14), ("j", 14))),
        ("seed", 24),
        *_prefixed("first_tile", (("b", 12), ("i", 12), ("j", 12))),
        *_prefixed("left", _READ),
        *_prefixed("right", _READ),
        ("right_weights", 1),
        ("bias_enable", 1),
        ("bias", 16),
        *_prefixed("drain", (("enable", 1), ("bank", 1), ("word", 20))),
        *_prefixed("fill", (("enable", 1), ("bank", 1), ("word", 20))),
        *_prefixed("write", (("enable", 1), ("bank", 1), ("line", 20), ("piece", 8), ("b", 12),
                             ("rows", 14), ("pieces", 14), ("phase", 8), ("flush", 1))),
        ("prefetch_slots", 20),
        *_prefixed("copy", (("enable", 1), *_IMAGE)),
    ),
}
"""Fields of each kind of descriptor in order from bit OPCODE_BITS on; bits negative if signed."""

MOST_BIASES = 1 << dict(FIELDS["step"])["bias"]
"""Biases of the weight buffer that a step can name: the first ones, if there are more."""

MOST_BIAS_WORDS = (1 << dict(_IMAGE)["biases"]) - 1
"""Words of biases that an image can have."""

OPCODES = {name: number for number, name in enumerate(FIELDS)}

KINDS = ("product", "softmax", "norm")
"""Values of `kind` in a configuration: who works in the steps that follow."""

INITIAL = ("zero", "bias", "sums")
"""Values of `initial` in a step: what its dot products start from."""


@dataclass(frozen=True)
class Descriptor:
    """What the sequencer takes for one step.

    Parameters
    ----------
    opcode : "header", "configure", "step" or "end"
    fields : by name; those left out are 0

    Raises
    ------
    ValueError
        For an unknown opcode or field, or a value that its field does not hold.
    """

    opcode: str
    fields: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and ranges."""
        if self.opcode not in FIELDS:
            raise ValueError(f"opcode must be one of {', '.join(FIELDS)}, not {self.opcode!r}")
        widths = dict(FIELDS[self.opcode])
        for name, value in self.fields.items():
            if name not in widths:
                raise ValueError(f"{self.opcode} has no field {name!r}; its fields: "
                                 f"{', '.join(widths) or 'none'}")
            low, high = _range(widths[name])
            if not low <= value <= high:
                raise ValueError(f"{name} of {self.opcode} must be {low} to {high}, not {value}")

    def word(self) -> int:
        """Return all its bits, the opcode lowest."""
        word, place = OPCODES[self.opcode], OPCODE_BITS
        for name, bits in FIELDS[self.opcode]:
            word |= (self.fields.get(name, 0) & ((1 << abs(bits)) - 1)) << place
            place += abs(bits)
        return word


def _range(bits: int) -> tuple[int, int]:
    return (-(1 << -bits - 1), (1 << -bits - 1) - 1) if bits < 0 else (0, (1 << bits) - 1)


def assemble(descriptors: Iterable[Descriptor]) -> list[int]:
    """Return a program's words, `DESCRIPTOR_WORDS` of `WORD_BITS` bits a descriptor, lowest first.

    Parameters
    ----------
    descriptors : a header first, an end last
    """
    mask = (1 << WORD_BITS) - 1
    return [
        descriptor.word() >> WORD_BITS * number & mask
        for descriptor in descriptors
        for number in range(DESCRIPTOR_WORDS)
    ]


def disassemble(words: Iterable[int]) -> list[Descriptor]:
    """Return the descriptors of a program's words; fields that are 0 are left out.

    Raises
    ------
    ValueError
        If the words are no whole descriptors, or an opcode is unknown.
    """
    words = list(words)
    if len(words) % DESCRIPTOR_WORDS:
        raise ValueError(f"a program is a multiple of {DESCRIPTOR_WORDS} words, not {len(words)}")
    names = list(FIELDS)
    found = []
    for start in range(0, len(words), DESCRIPTOR_WORDS):
        whole = sum(
            word << WORD_BITS * number
            for number, word in enumerate(words[start : start + DESCRIPTOR_WORDS])
        )
        opcode = whole & ((1 << OPCODE_BITS) - 1)
        if opcode >= len(names):
            raise ValueError(f"descriptor {start // DESCRIPTOR_WORDS} has the unknown opcode "
                             f"{opcode}; known: 0 to {len(names) - 1}")
        whole >>= OPCODE_BITS
        fields = {}
        for name, bits in FIELDS[names[opcode]]:
            value = whole & ((1 << abs(bits)) - 1)
            whole >>= abs(bits)
            if bits < 0 and value >> -bits - 1:
                value -= 1 << -bits
            if value:
                fields[name] = value
        found.append(Descriptor(names[opcode], fields))
    return found
