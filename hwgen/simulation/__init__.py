"""Simulation of generated Verilog: simulators, builds, streams, and the verdict on a folder."""

from hwgen.simulation.build import BuildError
from hwgen.simulation.lint import lint
from hwgen.simulation.run import Case, JobResult, SimulationError, run_cases, run_jobs
from hwgen.simulation.simulators import MissingToolError, find_simulator
from hwgen.simulation.unit_check import check_unit
from hwgen.simulation.verification import UnitReport, VerifyReport, verify

__all__ = [
    "BuildError",
    "Case",
    "JobResult",
    "MissingToolError",
    "SimulationError",
    "UnitReport",
    "VerifyReport",
    "check_unit",
    "find_simulator",
    "lint",
    "run_cases",
    "run_jobs",
    "verify",
]
