"""docs/processing-element.md says what the RTL and the program's format are."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from hwgen.program import DESCRIPTOR_WORDS, FIELDS, OPCODE_BITS, OPCODES, WORD_BITS
from hwgen.units.accelerator.status import Status

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "processing-element"
PAGE = FOLDER.with_suffix(".md").read_text()


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look for the module that they are in.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_follows_the_product_through_the_rtl() -> None:
    tables, drawing = example("machine_waveform").pages()
    for name, lines in tables.items():
        assert "\n".join(lines) in PAGE, name
    assert drawing == (FOLDER / "waveform.svg").read_text()


def test_the_page_shows_the_blocks() -> None:
    assert example("machine_diagram").blocks() == (FOLDER / "blocks.svg").read_text()
    for picture in FOLDER.iterdir():
        assert f"](processing-element/{picture.name})" in PAGE


@pytest.mark.parametrize("opcode", [name for name, fields in FIELDS.items() if fields])
def test_the_page_has_every_field_of_a_descriptor(opcode: str) -> None:
    section = PAGE.split(f"\n### {opcode}\n")[1].split("\n#")[0]
    found = re.findall(r"^\| `(\w+)` \| (\d+)(, signed)? \| ([\d:]+) \| \S", section, re.MULTILINE)
    expected, place = [], OPCODE_BITS
    for name, bits in FIELDS[opcode]:
        end = place + abs(bits)
        where = str(place) if abs(bits) == 1 else f"{end - 1}:{place}"
        expected.append((name, str(abs(bits)), ", signed" if bits < 0 else "", where))
        place = end
    assert found == expected
    assert place <= DESCRIPTOR_WORDS * WORD_BITS


def test_the_page_has_every_opcode_and_status() -> None:
    assert ", ".join(f"{number} {name}" for name, number in OPCODES.items()) in PAGE
    found = re.findall(r"^\| `([A-Z_]+)` \| (\d) \|", PAGE, re.MULTILINE)
    assert found == [(status.name, str(status.value)) for status in Status]
