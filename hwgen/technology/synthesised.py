"""Figures of the units as synthesised in Nangate45, and projected to smaller nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwgen.design import DesignBatch
from hwgen.technology.constants import BUFFERS, Technology
from hwgen.technology.published import PublishedTechnology
from hwgen.technology.scaling import Scaling
from hwgen.technology.sram import DEEPEST, Memory, memory
from hwgen.unit_parameters import UNIT_PARAMETERS, lane_dynatran
from hwgen.units.dynatran import cost as dynatran
from hwgen.units.layer_norm import cost as layer_norm
from hwgen.units.mac_lane import cost as mac_lane
from hwgen.units.post_sparsity import cost as post_sparsity
from hwgen.units.pre_sparsity import cost as pre_sparsity
from hwgen.units.residual_add import cost as residual_add
from hwgen.units.softmax import cost as softmax

Floats = NDArray[np.float64]

NODES = {"nangate45": "45nm", "nangate45-to-14nm": "14nm", "nangate45-to-7nm": "7nm"}
"""Technologies from the synthesised points, by name: the node that the figures are for."""

CLOCK_MHZ = 700.0
"""Clock for which the units were synthesised, and at which idle power was recorded."""

UNITS = {
    "lane": ("mac_lane", mac_lane),
    "pre_sparsity": ("pre_sparsity", pre_sparsity),
    "dynatran": ("dynatran", dynatran),
    "row_dynatran": ("dynatran", dynatran),
    "post_sparsity": ("post_sparsity", post_sparsity),
    "softmax": ("softmax", softmax),
    "layer_norm": ("layer_norm", layer_norm),
    "residual_add": ("residual_add", residual_add),
}
"""Blocks that are built: their unit and its cost module; a lane's dynatran and those of the row
engines are two blocks."""

PARAMETERS = {block: UNIT_PARAMETERS[unit] for block, (unit, _) in UNITS.items()} | {
    "dynatran": lane_dynatran
}
"""Parameters of each block's unit from designs."""

CHARGED_BY = {
    "lane": "pairs",
    "dynatran": "results",
    "row_dynatran": "row_elements",
    "post_sparsity": "compressed_elements",
    "softmax": "softmax_elements",
    "layer_norm": "layer_norm_elements",
    "residual_add": "layer_norm_elements",
}
"""What blocks are charged by; pre_sparsity by the positions that it looks at and by the pairs that
it hands on."""

ROW_MEMORIES = ("softmax", "layer_norm")
"""Blocks with memories that are macros."""

NOT_PRICED = (
    "operand_registers",
    "accumulator_memory",
    "result_memory",
    "row_engine_memories",
    "expander",
    "compactor",
    "dataflow",
    "dma",
    "dispatch_tree",
    "barrier_tree",
    "controller",
    "main_memory_controller",
    "wires",
)
"""Blocks of the machine that are not built yet, and wires, which synthesis does not know."""

SOURCE = (
    "Yosys, OpenSTA and gate-level simulation of the generated RTL in Nangate45 "
    "(hwgen/units/*/ppa.csv, made by `transcode characterize`); memories: hwgen/technology/sram.py"
)

NOTES = (
    "a unit's area and energy are those of a fit to its synthesised points; docs/units/ state its "
    "error",
    "results are taken as dense where dynatran, post_sparsity, softmax, layer norm and the "
    "residual adder are charged: an upper bound",
    "an access to main memory costs what acceltran-14nm states, at every node",
)


@dataclass(frozen=True)
class SynthesisedTechnology(Technology):
    """The units of a design as they were synthesised.

    Parameters
    ----------
    name : as in `Technology.load`
    source : where the figures come from
    notes : what a reader of a figure must know
    scaling : factors from 45 nm to the node; None at 45 nm itself
    off_chip : what main memory is taken from
    """

    name: str
    source: str
    notes: tuple[str, ...]
    scaling: Scaling | None
    off_chip: PublishedTechnology

    @classmethod
    def named(cls, name: str) -> SynthesisedTechnology:
        """Return one of `NODES`.

        Raises
        ------
        ValueError
            If a unit lacks synthesised points; says which, and how to make them.
        """
        lacking = dict.fromkeys(unit for unit, cost in UNITS.values() if not cost.PPA.complete())
        if lacking:
            raise ValueError(
                f"{name} needs more synthesised points of {', '.join(lacking)}; "
                f"make them with: transcode characterize {' '.join(lacking)}"
            )
        off_chip = Technology.load("acceltran-14nm")
        assert isinstance(off_chip, PublishedTechnology)
        if name == "nangate45":
            return cls(name, SOURCE, NOTES, None, off_chip)
        scaling = Scaling.between("45nm", NODES[name])
        source = f"projected from 45 nm, not synthesised there: {SOURCE}; {scaling.source}"
        notes = ("projected by published scaling factors, the same ones for memories", *NOTES)
        return cls(name, source, (*notes, *scaling.notes), scaling, off_chip)

    @property
    def not_priced(self) -> tuple[str, ...]:
        """Blocks of the machine without a figure."""
        return NOT_PRICED

    @property
    def block_bits(self) -> int:
        """Bits of one access of a buffer or of main memory."""
        return self.off_chip.block_bits

    def check(self, designs: DesignBatch) -> None:
        """Refuse designs outside the range of the synthesised points, or with too fast a clock.

        Raises
        ------
        ValueError
            Names the unit, its parameter and value, what was synthesised, and the design.
        """
        for block, (unit, cost) in UNITS.items():
            for spec, places in self._specs(block, designs):
                try:
                    cost.PPA.check(spec)
                except ValueError as error:
                    raise ValueError(f"{self.name}: {error} (design {places[0]})") from error
                self._check_clock(designs.clock_mhz[places], unit, cost, spec, places)
        self.off_chip.main_memory_block_pj(designs)

    def _check_clock(
        self, clock_mhz: Floats, unit: str, cost: Any, spec: Any, places: np.ndarray
    ) -> None:
        delay = self.scaling.delay if self.scaling else 1.0
        fastest = 1000 / (cost.PPA.slowest_path_ns(spec) * delay)
        wrong = np.flatnonzero(clock_mhz > fastest)
        if wrong.size:
            raise ValueError(
                f"{self.name}: clock_mhz must be at most {fastest:.0f}, which is what {unit} of "
                f"{spec.bits} bits reaches, not {clock_mhz[wrong[0]]:g} "
                f"(design {places[wrong[0]]})"
            )

    def area_um2(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Area of each kind of block, all its instances together.

        Raises
        ------
        ValueError
            For a design that is outside the points.
        """
        self.check(designs)
        scale = self.scaling.area if self.scaling else 1.0
        areas = self._of_units(designs, lambda cost, spec: cost.PPA.area_um2(spec))
        areas |= self._of_row_memories(designs, lambda made: made.area_um2)
        areas |= self._of_buffers(designs, lambda made: made.area_um2)
        return {name: scale * area for name, area in areas.items()}

    def leakage_mw(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Power of each kind of block that does not depend on work: leakage, and gated clocks."""
        scale = self.scaling.area if self.scaling else 1.0
        leaking = self._of_units(designs, lambda cost, spec: cost.PPA.leakage_mw(spec))
        leaking |= self._of_row_memories(designs, lambda made: made.leakage_mw)
        leaking |= self._of_buffers(designs, lambda made: made.leakage_mw)
        power = {name: scale * mw for name, mw in leaking.items()}
        idle = self._of_units(designs, lambda cost, spec: cost.PPA.idle_mw(spec))
        for name, mw in idle.items():
            # An idle cycle costs the same energy at any clock.
            power[name] = power[name] + self._energy * mw * designs.clock_mhz / CLOCK_MHZ
        return power

    def dynamic_pj(self, designs: DesignBatch) -> dict[str, dict[str, np.ndarray]]:
        """Energy of a unit of work of each block, beyond what its idle cycles would cost."""
        prices = {
            block: {work: self._energy * self._busy_pj(block, designs)}
            for block, work in CHARGED_BY.items()
        }
        # E(d) = position + d² · pair for equal densities d of both operands.
        dense, half = (self._busy_pj("pre_sparsity", designs, d) for d in (1.0, 0.5))
        pair = (dense - half) / 0.75
        prices["pre_sparsity"] = {
            "positions": self._energy * (dense - pair), "pairs": self._energy * pair}
        for block in ROW_MEMORIES:
            element = self._per_spec(block, designs, lambda cost, spec: cost.memory_pj(spec))
            prices[f"{block}_row_memory"] = {CHARGED_BY[block]: self._energy * element}
        return prices

    def access_pj(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Energy of one access of `block_bits` bits to each buffer and to main memory."""
        prices = {}
        for buffer in BUFFERS:
            made = _each(_capacity(buffer, designs), lambda kib: self._bank(kib)[1].read_pj)
            prices[f"{buffer}_buffer"] = self._energy * made
        return prices | {"main_memory": self.off_chip.main_memory_block_pj(designs)}

    def source_of(self, component: str) -> str:
        """Name the table behind a component of the energy."""
        name, _, _ = component.rpartition("_")
        if name == "main_memory":
            return f"{self.off_chip.name}: {self.off_chip.source_of(component)}"
        if name.endswith(("_buffer", "_memory")):
            return "hwgen/technology/sram.yaml"
        return f"hwgen/units/{UNITS[name][0]}/ppa.csv"

    @property
    def _energy(self) -> float:
        return self.scaling.energy if self.scaling else 1.0

    def _instances(self, block: str, designs: DesignBatch) -> np.ndarray:
        if block in ("lane", "pre_sparsity", "dynatran", "post_sparsity"):
            return np.asarray(designs.lanes)
        each = {"softmax": designs.softmax_per_pe, "row_dynatran": designs.softmax_per_pe + 1}.get(
            block, 1
        )
        return np.asarray(designs.pes * each)

    def _busy_pj(self, block: str, designs: DesignBatch, density: float = 1.0) -> Floats:
        """Energy of an operation less that of the idle cycles in its place."""

        def busy_pj(cost: Any, spec: Any) -> float:
            idle = 1000 * cost.PPA.idle_mw(spec) / CLOCK_MHZ / cost.PPA.operations(spec)
            return float(cost.PPA.energy_pj(spec, density) - idle)

        return self._per_spec(block, designs, busy_pj)

    def _of_units(
        self, designs: DesignBatch, figure: Callable[[Any, Any], float]
    ) -> dict[str, Floats]:
        return {
            block: self._instances(block, designs) * self._per_spec(block, designs, figure)
            for block in UNITS
        }

    def _of_row_memories(
        self, designs: DesignBatch, figure: Callable[[Memory], float]
    ) -> dict[str, Floats]:
        def whole(cost: Any, spec: Any) -> float:
            return sum(figure(memory(*size)) for size in cost.macros(spec).values())

        return {
            f"{block}_row_memory": self._instances(block, designs)
            * self._per_spec(block, designs, whole)
            for block in ROW_MEMORIES
        }

    def _of_buffers(
        self, designs: DesignBatch, figure: Callable[[Memory], float]
    ) -> dict[str, Floats]:
        def whole(kib: float) -> float:
            banks, made = self._bank(kib)
            return banks * figure(made)

        return {f"{buffer}_buffer": _each(_capacity(buffer, designs), whole) for buffer in BUFFERS}

    def _bank(self, kib: float) -> tuple[int, Memory]:
        """Number of banks of a buffer, at least two, and what one costs."""
        entries = -(-int(kib * 8192) // self.block_bits)
        banks = max(2, -(-entries // DEEPEST))
        return banks, memory(-(-entries // banks), self.block_bits)

    def _specs(
        self, block: str, designs: DesignBatch
    ) -> Iterator[tuple[SimpleNamespace, np.ndarray]]:
        """Distinct specs of a block among the designs that have it, and which designs those are."""
        chosen = np.flatnonzero(self._instances(block, designs))
        made = PARAMETERS[block](designs.take(chosen))
        columns = {name: np.broadcast_to(values, len(chosen)) for name, values in made.items()}
        codes = [np.unique(values, return_inverse=True)[1] for values in columns.values()]
        _, first, inverse = np.unique(
            np.stack(codes), axis=1, return_index=True, return_inverse=True
        )
        order = np.argsort(inverse.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(inverse.ravel(), minlength=len(first)))
        for group in np.split(order, ends[:-1]):
            if group.size:
                values = {name: column[group[0]].item() for name, column in columns.items()}
                yield SimpleNamespace(**values), chosen[group]

    def _per_spec(
        self, block: str, designs: DesignBatch, figure: Callable[[Any, Any], float]
    ) -> Floats:
        """Figure of an instance of a block in each design, worked out once for each spec."""
        found = np.zeros(len(designs))
        for spec, places in self._specs(block, designs):
            found[places] = figure(UNITS[block][1], spec)
        return found


def _capacity(buffer: str, designs: DesignBatch) -> np.ndarray:
    return np.asarray(getattr(designs, f"{buffer}_buffer_kib"))


def _each(values: np.ndarray, figure: Callable[[float], float]) -> Floats:
    """Figure of each value, worked out once for each distinct one."""
    distinct, inverse = np.unique(values, return_inverse=True)
    return np.asarray(np.array([figure(float(value)) for value in distinct])[inverse])
