"""ELECTOR as the evaluator of a search."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from hwgen.design import DesignBatch
from hwgen.design_space import DesignSpace
from model.space import TransformerDesign
from model.trace import SparsityTrace
from search.problem import Costs
from sim import Report, Workload, area, evaluate

TRACE = "trace.json"
"""Where a trained model's folder keeps its measured densities."""


@dataclass(frozen=True)
class ElectorEvaluator:
    """Costs a trained model with the densities that were measured on it.

    Parameters
    ----------
    technology : what area and energy are taken from
    sequence_length : length that every sequence is costed at; padded positions take the densities
        of real ones
    mode : "inference"
    """

    technology: str
    sequence_length: int
    mode: str = "inference"

    @property
    def name(self) -> str:
        """Name and settings."""
        return f"elector {self.technology} {self.mode} {self.sequence_length}"

    def check(self, space: DesignSpace) -> None:
        """Refuse a space with options that the technology does not price.

        Raises
        ------
        ValueError
            The message names the field and the value.
        """
        longest = max(len(options) for options in space.options.values())
        sizes = np.array([len(options) for options in space.options.values()])
        area(space.batch(np.arange(longest)[:, None] % sizes), self.technology)

    def report(self, designs: DesignBatch, model: TransformerDesign, folder: Path) -> Report:
        """ELECTOR's whole report of a trained model on designs."""
        workload = _workload(model, self.sequence_length, folder / TRACE, self.mode)
        return evaluate(designs, workload, self.technology)

    def costs(self, designs: DesignBatch, model: TransformerDesign, folder: Path) -> Costs:
        """Cost a model on designs, with the trace that lies in its folder."""
        report = self.report(designs, model, folder)
        leakage = sum(v for k, v in report.breakdown("energy").items() if k.endswith("_leakage"))
        buffers = sum(getattr(designs, f"{b}_buffer_kib") for b in ("activation", "weight", "mask"))
        return Costs(
            latency_cycles_per_sequence=report.latency_cycles_per_sequence,
            energy_pj_per_sequence=report.energy_pj_per_sequence,
            area_um2=report.area_um2,
            power_mw=report.power_mw,
            latency_cycles=report.latency_cycles,
            latency_seconds=report.latency_seconds,
            leakage_pj_per_sequence=leakage / report.batch_size,
            buffer_kib=np.asarray(buffers, dtype=np.float64),
        )


@lru_cache(maxsize=64)
def _workload(model: TransformerDesign, length: int, trace: Path, mode: str) -> Workload:
    return Workload(model, length, SparsityTrace.load(trace), mode=mode)
