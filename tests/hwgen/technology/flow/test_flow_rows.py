"""The committed rows are of the hardware that the code makes today."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from hwgen.design import AcceleratorDesign
from hwgen.technology.flow import fpga, ppa
from hwgen.technology.flow.points import points
from hwgen.technology.flow.synthesis import elaborate
from hwgen.technology.flow.tools import tool_versions
from hwgen.units.registry import RTL_UNITS

BENCHMARKS = Path(__file__).parents[4] / "benchmarks"
sys.path.append(str(BENCHMARKS))
AMARANTH = tool_versions("amaranth")


def check(row: dict[str, str], sha256: str) -> None:
    if not row["tools"].startswith(AMARANTH):
        pytest.skip(f"the rows were made with {row['tools']}, not with {AMARANTH}")
    assert row["rtl_sha256"] == sha256


@pytest.mark.parametrize("unit", RTL_UNITS)
def test_a_units_default_row_is_todays(unit: str) -> None:
    spec = points(unit)[0]
    row = ppa.ppa_table(unit).find(spec)
    assert row is not None
    check(row, ppa.elaborate_unit(unit, spec).sha256)
    row = fpga.ecp5_table(unit).find(spec)
    # Layer norm is larger than the chip.
    assert (row is None) == (unit == "layer_norm")
    if row is not None:
        check(row, fpga.elaborate_unit(unit, spec).sha256)
        assert row["method"] == str(fpga.METHOD)


@pytest.mark.slow
@pytest.mark.parametrize("unit", RTL_UNITS)
def test_every_row_of_a_unit_is_todays(unit: str) -> None:
    table = ppa.ppa_table(unit)
    assert len(table.rows()) == len(points(unit))
    for spec in points(unit):
        row = table.find(spec)
        assert row is not None, spec
        check(row, ppa.elaborate_unit(unit, spec).sha256)


def benchmark(name: str) -> Any:
    """Return a benchmark as a module by a name of its own: the proofs have a module `units`."""
    found = spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    assert found is not None and found.loader is not None
    module = sys.modules[found.name] = module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("name", "arguments"), [
    ("units", ()),
    pytest.param("sparsity", (AcceleratorDesign.load("edge"),), marks=pytest.mark.slow)])
def test_constructions_rows_are_todays(name: str, arguments: tuple[Any, ...]) -> None:
    module = benchmark(name)
    rows = module.read(module.POINTS)
    for name, _, _, make in module.components(*arguments):
        check(rows[name], elaborate(make(), "bound").sha256)
