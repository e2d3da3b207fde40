"""Generate the Verilog of a design's units: python examples/generate_verilog.py [OUT [DESIGN]]."""

import sys
from pathlib import Path

from hwgen.design import AcceleratorDesign
from hwgen.emit import generate


def main(out: str = "build/edge", design: str = "edge") -> None:
    """Write Verilog, manifest.json and random jobs for one design (a name or a YAML file)."""
    accelerator = AcceleratorDesign.load(design)
    generate(accelerator, out)
    for path in sorted(Path(out, "verilog").glob("*.v")):
        lines = len(path.read_text().splitlines())
        sys.stdout.write(f"{path}: {lines} lines\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
