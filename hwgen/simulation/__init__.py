"""Simulation of generated Verilog: simulators, builds, streams, and the verdict on a folder."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwgen.simulation.build import BuildError
    from hwgen.simulation.linting import lint
    from hwgen.simulation.run import Case, JobResult, SimulationError, run_cases, run_jobs
    from hwgen.simulation.simulators import MissingToolError, find_simulator
    from hwgen.simulation.unit_check import check_unit
    from hwgen.simulation.verification import UnitReport, VerifyReport, verify

# Imported on demand: every simulator's process imports this package for `bench` alone, and half a
# second of imports would be most of a short run.
_MODULES = {
    "BuildError": "build",
    "Case": "run",
    "JobResult": "run",
    "MissingToolError": "simulators",
    "SimulationError": "run",
    "UnitReport": "verification",
    "VerifyReport": "verification",
    "check_unit": "unit_check",
    "find_simulator": "simulators",
    "lint": "linting",
    "run_cases": "run",
    "run_jobs": "run",
    "verify": "verification",
}

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


def __getattr__(name: str) -> Any:
    """Import what is asked for by name."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
