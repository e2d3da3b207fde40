"""Run the testbenches of generated Verilog: examples/run_testbenches.py [FOLDER [SIMULATOR]]."""

import sys

from hwgen.simulation import verify


def main(folder: str = "build/edge", simulator: str | None = None) -> bool:
    """Simulate the Verilog in a folder and say, unit by unit, whether it is what it should be."""
    report = verify(folder, simulator=simulator)
    for unit in report.units:
        sys.stdout.write(
            f"{unit.unit}: {unit.jobs} jobs, bit-exact: {'yes' if unit.bit_exact else 'NO'}, "
            f"cycles predicted {unit.cycles_predicted}, counted {unit.cycles_counted}\n"
        )
    return bool(report.ok)


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) else 1)
