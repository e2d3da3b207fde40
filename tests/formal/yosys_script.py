"""Yosys as SymbiYosys calls it, `-ql LOG SCRIPT`, by the native library of the package pyosys."""

import sys

from pyosys import libyosys

if __name__ == "__main__":
    option, log, script = sys.argv[1:]
    if option != "-ql":
        sys.exit(f"the arguments must be -ql LOG SCRIPT, not {' '.join(sys.argv[1:])}")
    libyosys.run_pass(f"tee -q -o {log} script {script}", libyosys.Design())
