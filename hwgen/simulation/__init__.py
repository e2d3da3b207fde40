"""Simulation of generated Verilog: simulators, builds, streams, and the verdict on a folder."""

from hwgen.simulation.run import Case, JobResult, SimulationError, run_cases, run_jobs
from hwgen.simulation.simulators import MissingToolError, find_simulator
from hwgen.simulation.unit_check import check_unit

__all__ = [
    "Case",
    "JobResult",
    "MissingToolError",
    "SimulationError",
    "check_unit",
    "find_simulator",
    "run_cases",
    "run_jobs",
]
