"""Runs one cocotb test in a session of its own: `python -m hwgen.simulation.worker SETTINGS PIPE`.

PIPE is the number of a pipe's end for reading: the session ends once the other end is closed, as it
is when the process that waits for the test dies.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from cocotb_tools.check_results import get_results
from cocotb_tools.runner import get_runner


def main() -> None:
    """Run the test that the settings file describes; fail unless it passed."""
    threading.Thread(target=_end_with, args=[int(sys.argv[2])], daemon=True).start()
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


def _end_with(pipe: int) -> None:
    """End this session, simulator included, once nobody holds the other end of a pipe."""
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
