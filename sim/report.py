"""What a population costs: arrays of one entry a design, with their parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgen.design import AcceleratorDesign, DesignBatch
from hwgen.technology.constants import Technology
from sim.proof import have_rtl
from sim.workload import Workload

Floats = NDArray[np.float64]
Details = dict[str, Floats]

QUANTITIES = {"latency": "latency_cycles", "energy": "energy_pj", "area": "area_um2"}
"""What `Report.breakdown` takes apart, and the totals' names."""


@dataclass(frozen=True)
class AreaReport:
    """Area of each design, arrays of shape (designs,).

    Parameters
    ----------
    designs : the population
    technology : where the figures come from
    parts_um2 : area of each kind of block, all its instances together
    """

    designs: DesignBatch
    technology: Technology
    parts_um2: Details

    @property
    def area_um2(self) -> Floats:
        """Area of each design."""
        return np.asarray(sum(self.parts_um2.values()))

    def breakdown(self) -> Details:
        """Area of each kind of block; they add up to `area_um2`."""
        return dict(self.parts_um2)

    @property
    def not_priced(self) -> tuple[str, ...]:
        """Blocks that the technology has no figures for."""
        return self.technology.not_priced


def area(
    designs: DesignBatch | Sequence[AcceleratorDesign | Mapping[str, Any] | str | Path],
    technology: Technology | str = "acceltran-14nm",
) -> AreaReport:
    """Area of each of many designs.

    Raises
    ------
    ValueError
        If the technology has no figures for a design; the message names it and the field.
    """
    population, priced = DesignBatch.of(designs), Technology.load(technology)
    return AreaReport(population, priced, priced.area_um2(population))


@dataclass(frozen=True)
class Report:
    """Time, energy and area of each design for one workload; arrays of shape (designs,).

    Parameters
    ----------
    designs, workload, technology : what was evaluated
    latency_cycles : cycles of one batch
    energy_pj : energy of one batch
    kept : tables behind the totals, or None
    compute : makes those tables
    """

    designs: DesignBatch
    workload: Workload
    technology: Technology
    latency_cycles: Floats
    energy_pj: Floats
    kept: dict[str, Details] | None
    compute: Callable[[], dict[str, Details] | None]

    @cached_property
    def _details(self) -> dict[str, Details]:
        details = self.kept if self.kept is not None else self.compute()
        assert details is not None
        return details

    @property
    def batch_size(self) -> NDArray[np.int64]:
        """Sequences of a batch."""
        return np.asarray(self.workload.batch(self.designs))

    @property
    def latency_cycles_per_sequence(self) -> Floats:
        """Cycles of a batch over its sequences."""
        return self.latency_cycles / self.batch_size

    @property
    def energy_pj_per_sequence(self) -> Floats:
        """Energy of a batch over its sequences."""
        return self.energy_pj / self.batch_size

    @property
    def latency_seconds(self) -> Floats:
        """Time of one batch at the design's clock."""
        return np.asarray(self.latency_cycles / (self.designs.clock_mhz * 1e6))

    @property
    def power_mw(self) -> Floats:
        """Mean power over a batch."""
        return self.energy_pj * 1e-9 / self.latency_seconds

    @cached_property
    def area_um2(self) -> Floats:
        """Area of each design."""
        return area(self.designs, self.technology).area_um2

    def breakdown(self, quantity: str, by: str = "component") -> Details:
        """Take a total apart.

        Parameters
        ----------
        quantity : "latency" (cycles; a component is what a step waited for), "energy" (pJ) or
            "area" (µm²)
        by : "component" or "operation"; area by component only

        Returns
        -------
        Arrays by name that add up to latency_cycles, energy_pj or area_um2.

        Raises
        ------
        ValueError
            For another quantity or another `by`.
        """
        if quantity not in QUANTITIES:
            raise ValueError(f"quantity must be one of {', '.join(QUANTITIES)}, not {quantity!r}")
        if by not in ("component", "operation"):
            raise ValueError(f'by must be "component" or "operation", not {by!r}')
        if quantity == "area":
            if by != "component":
                raise ValueError('area belongs to no operation; ask for it by "component"')
            return area(self.designs, self.technology).breakdown()
        return dict(self._details[f"{QUANTITIES[quantity]}.{by}"])

    @property
    def stalls(self) -> Details:
        """Cycles by what each step waited for: its longest engine, and the step constant."""
        return self.breakdown("latency")

    @property
    def traffic_bits(self) -> Details:
        """Bits of one batch by level and direction."""
        return dict(self._details["bits"])

    @property
    def utilization(self) -> Details:
        """Share of the time in which each kind of unit works, all its instances together.

        "multipliers" counts effectual products; buffers and main memory their busy ports.
        """
        work, designs, cycles = self._details["work"], self.designs, self.latency_cycles
        shares = {
            "multipliers": work["pairs"] / (designs.lanes * designs.macs_per_lane),
            "lanes": work["lane_cycles"] / designs.lanes,
            "softmax": work["softmax_beats"] / (designs.pes * designs.softmax_per_pe),
            "layer_norm": work["layer_norm_beats"] / designs.pes,
            **{f"{name}_buffer": work[f"busy.{name}_buffer"] for name in ("activation", "weight")},
            "main_memory": work["busy.main_memory"],
        }
        return {name: share / cycles for name, share in shares.items()}

    @cached_property
    def proven(self) -> dict[str, NDArray[np.bool_]]:
        """Whether each design's steps of an operation are proven equal to RTL.

        They are on an accelerator of one PE, where the buffers hold the activations, the result,
        the partial sums and what comes of weights from main memory (`sim.proof`). What else main
        memory moves, and the trees between several PEs, are modelled alone.
        """
        made, done = have_rtl(self.designs), self._details["in_rtl"]
        return {task.label: made & (done[task.label] > 0) for task in self.workload.tasks}

    @property
    def not_priced(self) -> tuple[str, ...]:
        """Blocks of some design that the technology has no figures for."""
        unknown = np.isnan(self.designs.memory_background_power_mw)
        kinds = sorted({str(kind) for kind in self.designs.memory_type[unknown]})
        backgrounds = (f"main_memory_background ({kind})" for kind in kinds)
        return (*self.technology.not_priced, *backgrounds)

    @property
    def sources(self) -> dict[str, str]:
        """The constant behind each component of the energy."""
        background = (
            "memory.background_power_mw of the design (hwgen/technology/main_memory.yaml)"
        )
        return {
            name: background
            if name == "main_memory_background"
            else f"{self.technology.name}: {self.technology.source_of(name)}"
            for name in self.breakdown("energy")
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types, inputs included; units are in the names."""

        def lists(table: Details) -> dict[str, list[float]]:
            return {name: values.tolist() for name, values in table.items()}

        totals = (
            "latency_cycles",
            "latency_cycles_per_sequence",
            "latency_seconds",
            "energy_pj",
            "energy_pj_per_sequence",
            "area_um2",
            "power_mw",
        )
        return {
            "version": _version(),
            "technology": self.technology.name,
            "technology_source": self.technology.source,
            "technology_notes": list(self.technology.notes),
            "designs": [
                self.designs.design(index).model_dump(mode="json")
                for index in range(len(self.designs))
            ],
            "workload": self.workload.to_dict(),
            "batch_size": self.batch_size.tolist(),
            **{name: getattr(self, name).tolist() for name in totals},
            "latency_cycles_by_component": lists(self.breakdown("latency")),
            "latency_cycles_by_operation": lists(self.breakdown("latency", "operation")),
            "energy_pj_by_component": lists(self.breakdown("energy")),
            "energy_pj_by_operation": lists(self.breakdown("energy", "operation")),
            "area_um2_by_component": lists(self.breakdown("area")),
            "traffic_bits": lists(self.traffic_bits),
            "utilization": lists(self.utilization),
            "proven": {name: known.tolist() for name, known in self.proven.items()},
            "not_priced": list(self.not_priced),
            "energy_sources": self.sources,
        }


def _version() -> str:
    try:
        return version("transcode-codesign")
    except PackageNotFoundError:
        return "not installed"
