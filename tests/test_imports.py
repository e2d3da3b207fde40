"""What importing a package loads."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("sim", ["torch", "amaranth", "cocotb", "pymoo", "transformers"]),
        ("hwgen.design", ["torch", "amaranth", "cocotb"]),
        ("hwgen.simulation", ["torch", "amaranth"]),
        ("hwgen.units.lane.cost", ["torch", "amaranth"]),
        ("model.space", ["torch", "transformers", "amaranth"]),
        ("model.trace", ["torch", "transformers", "amaranth"]),
        ("transcode.commands", ["torch", "amaranth", "pymoo"]),
        ("transcode.models", ["torch", "amaranth", "pymoo"]),
    ],
)
def test_an_import_loads_no_more_than_it_says(module: str, absent: list[str]) -> None:
    code = f"import sys, {module}; print(*(name for name in {absent!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
