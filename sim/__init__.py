"""What a workload costs on a design: ELECTOR."""

from sim.elector import evaluate
from sim.report import AreaReport, Report, area
from sim.workload import Workload

__all__ = ["AreaReport", "Report", "Workload", "area", "evaluate"]
