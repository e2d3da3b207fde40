"""Published figures of blocks, looked up for whole populations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwgen.design import DesignBatch
from hwgen.fixed_point import Array
from hwgen.technology.constants import BUFFERS, Technology

LANE_BLOCKS = ("lane", "pre_sparsity", "fifo", "post_sparsity")
"""Blocks that every lane has."""

PE_BLOCKS = ("dataflow", "dma", "layer_norm")
"""Blocks that every PE has once."""

NOT_PRICED = (
    "dynatran",
    "residual_add",
    "operand_registers",
    "accumulator_memory",
    "result_memory",
    "row_engine_memories",
    "expander",
    "compactor",
    "softmax_row_memory",
    "layer_norm_row_memory",
    "dispatch_tree",
    "barrier_tree",
    "controller",
    "main_memory_controller",
)
"""Blocks of the machine that acceltran-14nm has no figures for."""


@dataclass(frozen=True)
class Figures:
    """Figures of one instance of a block, one entry a design.

    Parameters
    ----------
    area_um2 : area
    dynamic_pj : energy of a busy cycle
    leakage_mw : power whether or not it is busy
    """

    area_um2: np.ndarray
    dynamic_pj: np.ndarray
    leakage_mw: np.ndarray


@dataclass(frozen=True)
class PublishedTechnology(Technology):
    """A table of published figures and where they come from.

    Parameters
    ----------
    name : as in `Technology.load`
    source : publication and licence
    notes : what a reader of a figure must know
    table : the file's contents
    """

    name: str
    source: str
    notes: tuple[str, ...]
    table: Mapping[str, Any]

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> PublishedTechnology:
        """Make a technology of the contents of its file."""
        return cls(table["name"], table["source"], tuple(table["notes"]), table)

    @property
    def not_priced(self) -> tuple[str, ...]:
        """Blocks of the machine without a figure."""
        return NOT_PRICED

    @property
    def block_bits(self) -> int:
        """Bits of one access of a buffer or of main memory."""
        return int(self.table["block_bits"])

    def check(self, designs: DesignBatch) -> None:
        """Refuse designs that the table has no figures for.

        Raises
        ------
        ValueError
            Names the field, its value, what is priced, and the first design concerned.
        """
        self._check_choice(
            designs, "integer_bits + fraction_bits", designs.bits, [self.table["bits"]]
        )
        self._check_choice(
            designs, "macs_per_lane", designs.macs_per_lane, list(self.table["lane"])
        )
        tiles = list(self.table["tile_module"]["softmax"])
        self._check_choice(designs, "tile_x", designs.tile_x, tiles)
        self._check_choice(designs, "tile_y", designs.tile_y, tiles)
        unequal = np.flatnonzero(designs.tile_x != designs.tile_y)
        if unequal.size:
            first = unequal[0]
            raise ValueError(
                f"{self.name} prices tiles with tile_x = tile_y only, not "
                f"{designs.tile_x[first]} x {designs.tile_y[first]} (design {first})"
            )
        self.main_memory_block_pj(designs)

    def _check_choice(
        self, designs: DesignBatch, name: str, values: np.ndarray, choices: Sequence[int]
    ) -> None:
        wrong = np.flatnonzero(~np.isin(values, np.asarray(choices)))
        if wrong.size:
            raise ValueError(
                f"{self.name} has figures for {name} = {', '.join(map(str, choices))} only, "
                f"not {values[wrong[0]]} (design {wrong[0]} of {len(designs)})"
            )

    def figures(self, block: str, designs: DesignBatch) -> Figures:
        """Figures of one instance of a block in each design."""
        if block == "lane":
            rows = [
                ((designs.macs_per_lane == macs) & (designs.nonlinearity == name), figures)
                for macs, by_name in self.table["lane"].items()
                for name, figures in by_name.items()
            ]
        elif block in self.table["tile_module"]:
            rows = [
                (designs.tile_x == tile, figures)
                for tile, figures in self.table["tile_module"][block].items()
            ]
        else:
            rows = [(np.ones(len(designs), dtype=bool), self.table["block"][block])]
        columns = [
            np.select([chosen for chosen, _ in rows], [figures[key] for _, figures in rows], np.nan)
            for key in ("area_um2", "dynamic_mw", "leakage_mw")
        ]
        # mW at the clock at which the power was published, over that clock in GHz: pJ a cycle.
        return Figures(columns[0], columns[1] / (self.table["clock_mhz"] / 1000), columns[2])

    def instances(self, block: str, designs: DesignBatch) -> Array:
        """How many instances of a block each design has."""
        if block in LANE_BLOCKS:
            return designs.lanes
        if block == "stochastic_rounding":
            return designs.lanes * designs.stochastic_rounding
        return designs.pes * designs.softmax_per_pe if block == "softmax" else designs.pes

    def buffer_megabytes(self, buffer: str, designs: DesignBatch) -> Array:
        """Size of a buffer; a megabyte is 1024 KiB."""
        return getattr(designs, f"{buffer}_buffer_kib") / 1024

    def buffer_area_um2(self, buffer: str, designs: DesignBatch) -> Array:
        """Area of a buffer."""
        return (
            self.buffer_megabytes(buffer, designs) * self.table["buffer"][buffer]["area_um2_per_mb"]
        )

    def buffer_leakage_mw(self, buffer: str, designs: DesignBatch) -> Array:
        """Leakage of a buffer."""
        return (
            self.buffer_megabytes(buffer, designs)
            * self.table["buffer"][buffer]["leakage_mw_per_mb"]
        )

    def buffer_block_pj(self, buffer: str, designs: DesignBatch) -> Array:
        """Energy of one access to a buffer."""
        scale = 1000 * self.table["buffer"][buffer]["block_nj_per_sqrt_mb"]
        return scale * np.sqrt(self.buffer_megabytes(buffer, designs))

    def main_memory_block_pj(self, designs: DesignBatch) -> Array:
        """Energy of one access to main memory.

        Raises
        ------
        ValueError
            For an organisation that the table does not have.
        """
        energy = np.full(len(designs), np.nan)
        for kind, organisations in self.table["main_memory_block_nj"].items():
            for organisation, nj in organisations.items():
                banks, ranks, channels = map(int, organisation.split("/"))
                energy[
                    (designs.memory_type == kind)
                    & (designs.memory_banks == banks)
                    & (designs.memory_ranks == ranks)
                    & (designs.memory_channels == channels)
                ] = 1000 * nj
        wrong = np.flatnonzero(np.isnan(energy))
        if wrong.size:
            first = wrong[0]
            kind = str(designs.memory_type[first])
            known = ", ".join(self.table["main_memory_block_nj"].get(kind, {})) or "none"
            raise ValueError(
                f"{self.name} has no figures for {kind} of banks/ranks/channels "
                f"{designs.memory_banks[first]}/{designs.memory_ranks[first]}/"
                f"{designs.memory_channels[first]} (design {first}); it has {known}"
            )
        return energy

    def area_um2(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Area of each kind of block, all its instances together.

        Raises
        ------
        ValueError
            For a design that the table has no figures for.
        """
        self.check(designs)
        areas = {
            block: self.figures(block, designs).area_um2 * self.instances(block, designs)
            for block in PRICED_BLOCKS
        }
        return areas | {
            f"{buffer}_buffer": self.buffer_area_um2(buffer, designs) for buffer in BUFFERS
        }

    def dynamic_pj(self, designs: DesignBatch) -> dict[str, dict[str, np.ndarray]]:
        """Energy of a busy cycle of each block; of softmax and layer norm, of an element."""
        prices = {}
        for block, work in CHARGED_BY.items():
            price = self.figures(block, designs).dynamic_pj
            if block in ("softmax", "layer_norm"):
                # Published tile² wide: an element is one of tile_x · tile_y.
                price = price / (designs.tile_x * designs.tile_y)
            prices[block] = {work: price}
        return prices

    def access_pj(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Energy of one access of `block_bits` bits to each memory."""
        prices = {f"{buffer}_buffer": self.buffer_block_pj(buffer, designs) for buffer in BUFFERS}
        return prices | {"main_memory": self.main_memory_block_pj(designs)}

    def leakage_mw(self, designs: DesignBatch) -> dict[str, np.ndarray]:
        """Leakage of each kind of block, all its instances together."""
        power = {
            block: self.figures(block, designs).leakage_mw * self.instances(block, designs)
            for block in PRICED_BLOCKS
        }
        return power | {
            f"{buffer}_buffer": self.buffer_leakage_mw(buffer, designs) for buffer in BUFFERS
        }

    def source_of(self, component: str) -> str:
        """Name the table's entry behind a component of the energy."""
        name, _, what = component.rpartition("_")
        if name == "main_memory":
            return "main_memory_block_nj"
        if name.removesuffix("_buffer") in BUFFERS and name.endswith("_buffer"):
            key = "block_nj_per_sqrt_mb" if what == "access" else "leakage_mw_per_mb"
            return f"buffer.{name.removesuffix('_buffer')}.{key}"
        group = {
            "lane": "lane",
            "softmax": "tile_module.softmax",
            "layer_norm": "tile_module.layer_norm",
        }
        return f"{group.get(name, f'block.{name}')}.{what}_mw"


CHARGED_BY = {
    "lane": "lane_cycles",
    "pre_sparsity": "lane_cycles",
    "fifo": "lane_cycles",
    "post_sparsity": "compressed_elements",
    "stochastic_rounding": "rounded_elements",
    "softmax": "softmax_elements",
    "layer_norm": "layer_norm_elements",
    "dataflow": "dataflow_cycles",
    "dma": "dma_cycles",
}
"""What each block is charged by: its busy cycles, all instances together, or its elements."""

PRICED_BLOCKS = tuple(CHARGED_BY)
"""Every kind of block with published figures, buffers and main memory aside."""
