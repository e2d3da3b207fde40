"""Runs one cocotb test in a process of its own: `python -m hwgen.simulation.worker SETTINGS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner


def main() -> None:
    """Run the test that the settings file describes; fail unless it passed."""
    settings = json.loads(Path(sys.argv[1]).read_text())
    results = get_runner(settings["simulator"]).test(
        hdl_toplevel=settings["top"],
        hdl_toplevel_lang="verilog",
        test_module=settings["bench"],
        build_dir=settings["build"],
        test_dir=settings["folder"],
        results_xml=str(Path(settings["folder"]) / "results.xml"),
        extra_env=settings["environment"],
        seed=1,
    )
    total, failed = get_results(results)
    if total != 1 or failed:
        sys.exit(f"{failed} of {total} cocotb tests failed")


if __name__ == "__main__":
    main()
