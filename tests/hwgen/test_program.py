"""Jobs survive JSON, and programs survive being assembled."""

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwgen.program import (
    DESCRIPTOR_WORDS,
    FIELDS,
    INITIAL,
    KINDS,
    OPCODE_BITS,
    OPCODES,
    WORD_BITS,
    Descriptor,
    Job,
    assemble,
    disassemble,
)


def test_a_job_survives_json() -> None:
    job = Job(
        "mac_lane",
        "edge",
        {"left": np.asarray([[1, -2]]), "rows": [[1], [2, 3]], "shift": np.int64(4)},
        {"o": -16},
        {"left": [1, 2]},
        12,
    )
    back = Job.from_json(json.loads(json.dumps(job.to_json())))
    assert np.array_equal(back.operands["left"], job.operands["left"])
    assert back.operands["rows"] == [[1], [2, 3]]
    assert (back.operands["shift"], back.exponents, back.shapes, back.cycles) == (
        4,
        {"o": -16},
        {"left": [1, 2]},
        12,
    )
    assert job.with_cycles(13).cycles == 13


def limits(bits: int) -> tuple[int, int]:
    """Return the least and the largest value of a field, as its table gives its bits."""
    return (-(2 ** (-bits - 1)), 2 ** (-bits - 1) - 1) if bits < 0 else (0, 2**bits - 1)


@st.composite
def any_descriptor(draw: st.DrawFn, opcode: str | None = None) -> Descriptor:
    """A descriptor with any values in any of its fields, the extreme ones often."""
    chosen = opcode or draw(st.sampled_from(list(FIELDS)))
    fields = {}
    for name, bits in FIELDS[chosen]:
        low, high = limits(bits)
        values = st.sampled_from([low, high, 0]) | st.integers(low, high)
        if draw(st.booleans()):
            fields[name] = draw(values)
    return Descriptor(chosen, fields)


@pytest.mark.parametrize("opcode", FIELDS)
@given(data=st.data())
def test_a_descriptor_survives_assembly(opcode: str, data: st.DataObject) -> None:
    made = data.draw(any_descriptor(opcode))
    (found,) = disassemble(assemble([made]))
    assert found.opcode == opcode
    assert found.fields == {name: value for name, value in made.fields.items() if value}
    assert found.word() == made.word()


@given(st.lists(any_descriptor(), max_size=6))
def test_a_program_survives_assembly(program: list[Descriptor]) -> None:
    words = assemble(program)
    assert len(words) == DESCRIPTOR_WORDS * len(program)
    assert all(0 <= word < 2**WORD_BITS for word in words)
    assert [part.word() for part in disassemble(words)] == [part.word() for part in program]


@pytest.mark.parametrize("opcode", FIELDS)
def test_fields_lie_one_behind_another(opcode: str) -> None:
    place = OPCODE_BITS
    assert Descriptor(opcode).word() == OPCODES[opcode]
    for name, bits in FIELDS[opcode]:
        value = -1 if bits < 0 else limits(bits)[1]
        word = Descriptor(opcode, {name: value}).word()
        assert word == OPCODES[opcode] | (2 ** abs(bits) - 1) << place, name
        place += abs(bits)


@pytest.mark.parametrize("opcode", FIELDS)
def test_fields_fit_a_descriptor_and_have_names_of_their_own(opcode: str) -> None:
    bits = OPCODE_BITS + sum(abs(bits) for _, bits in FIELDS[opcode])
    assert bits <= DESCRIPTOR_WORDS * WORD_BITS
    assert all(bits for _, bits in FIELDS[opcode])
    names = Counter(name for name, _ in FIELDS[opcode])
    assert [name for name, count in names.items() if count > 1] == []
    assert "opcode" not in names


def test_numbers_fit_their_fields() -> None:
    assert len(FIELDS) <= 2**OPCODE_BITS
    assert len(KINDS) - 1 <= limits(dict(FIELDS["configure"])["kind"])[1]
    assert len(INITIAL) - 1 <= limits(dict(FIELDS["step"])["initial"])[1]


def test_words_by_hand() -> None:
    header = Descriptor("header", {"version": 3})
    assert assemble([header, Descriptor("end")]) == [0x31, *9 * [0]]
    signed = Descriptor("configure", {"i_exponent": -1})
    assert disassemble(assemble([signed])) == [signed]


@pytest.mark.parametrize(
    ("opcode", "fields", "message"),
    [
        ("jump", {}, "opcode must be one of end, header, configure, step, not 'jump'"),
        ("end", {"b": 1}, "end has no field 'b'; its fields: none$"),
        ("step", {"kind": 1}, "step has no field 'kind'; its fields: compute, load, "),
        ("header", {"version": 256}, "version of header must be 0 to 255, not 256"),
        ("header", {"version": -1}, "version of header must be 0 to 255, not -1"),
        ("configure", {"o_exponent": 128}, "o_exponent of configure must be -128 to 127, not 128"),
        ("configure", {"o_exponent": -129},
         "o_exponent of configure must be -128 to 127, not -129"),
    ],
)
def test_what_no_descriptor_holds_is_refused(
    opcode: str, fields: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        Descriptor(opcode, fields)


def test_words_that_are_no_descriptors_are_refused() -> None:
    with pytest.raises(ValueError, match="^a program is a multiple of 5 words, not 6$"):
        disassemble([0] * 6)
    unknown = [0] * DESCRIPTOR_WORDS + [len(FIELDS)] + [0] * (DESCRIPTOR_WORDS - 1)
    with pytest.raises(ValueError, match=r"^descriptor 1 has the unknown opcode 4; known: 0 to 3$"):
        disassemble(unknown)
