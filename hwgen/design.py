"""Accelerator designs, and populations of them as arrays."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import yaml
from pydantic import Field, model_validator

from hwgen.configuration import Frozen, Named
from hwgen.unit_parameters import UNIT_PARAMETERS
from hwgen.units.check import check_range
from hwgen.units.dynatran.spec import DynatranSpec
from hwgen.units.fifo.spec import FifoSpec
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.post_sparsity.spec import PostSparsitySpec
from hwgen.units.pre_sparsity.spec import PreSparsitySpec
from hwgen.units.residual_add.spec import ResidualAddSpec
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

LOOP_ORDERS = tuple("".join(order) for order in itertools.permutations("bijk"))
"""The 24 orders of a product's loops, outermost letter first."""

UNITS_OF_ALL = tuple(name for name in UNIT_PARAMETERS if name != "stochastic_rounding")
"""Units that every design has."""

BUFFER_GIGABYTES_PER_SECOND = 370
"""Rate of a buffer port (AccelTran's published constants)."""


@cache
def main_memory_types() -> dict[str, dict[str, Any]]:
    """Rate, latency and background power of each type of main memory, with sources."""
    text = (files("hwgen") / "technology" / "main_memory.yaml").read_text()
    return dict(yaml.safe_load(text))


def bits_per_cycle(gigabytes_per_second: float, clock_mhz: float) -> Fraction:
    """Exact rate in bits a cycle; 1 GB is 10^9 bytes."""
    return Fraction(str(gigabytes_per_second)) * 8000 / Fraction(str(clock_mhz))


def default_window(macs_per_lane: Any) -> Any:
    """Positions that pre_sparsity looks at in a cycle, for one lane or an array of lanes."""
    return 4 * macs_per_lane


def default_k_segment(macs_per_lane: Any, tile_y: Any) -> Any:
    """Elements of a dot product that a lane takes at once, for one design or arrays."""
    return np.maximum(tile_y, 4 * macs_per_lane)


def default_fifo_depth(macs_per_lane: Any, window: Any, k_segment: Any) -> Any:
    """Pairs that pre_sparsity's FIFO holds, for one lane or an array of lanes.

    Dot products of one window gain nothing from more than a beat, longer ones from a second.
    """
    return np.where(np.asarray(k_segment) <= window, macs_per_lane, 2 * np.asarray(macs_per_lane))


class MemoryDesign(Frozen):
    """Main memory: its type, its organisation, and what a data sheet says of it.

    Parameters
    ----------
    type : "dram", "rram" or "hbm"
    banks, ranks, channels : organisation, which sets the energy of an access
    latency_cycles : cycles from request to first data; by default the type's latency at the clock
    background_power_mw : power whether or not it is accessed; by default the type's, if known
    """

    type: Literal["dram", "rram", "hbm"]
    banks: int = Field(ge=1)
    ranks: int = Field(ge=1)
    channels: int = Field(ge=1)
    latency_cycles: int = Field(ge=0)
    background_power_mw: float | None = Field(default=None, ge=0)


class AcceleratorDesign(Named):
    """One accelerator of ELECTOR's space; field names are those of the published files.

    Parameters
    ----------
    tile_b, tile_x, tile_y : extents of an output tile
    nonlinearity : what the lanes apply, "relu" or "gelu"
    pes, lanes_per_pe, macs_per_lane, softmax_per_pe : units
    batch_size : sequences that run at once
    activation_buffer_kib, weight_buffer_kib, mask_buffer_kib : totals in KiB
    memory : main memory
    loop_order : the loops b, i, j, k, outermost first
    integer_bits, fraction_bits : bits before and after the point of the published format
    clock_mhz : clock
    stochastic_rounding : whether lanes round stochastically (training)
    k_segment : elements of a dot product that a lane takes at once;
        default max(tile_y, 4·macs_per_lane)
    window : positions that pre_sparsity looks at in a cycle; default 4·macs_per_lane
    fifo_depth : pairs that its FIFO holds;
        default macs_per_lane where k_segment is at most window, else 2·macs_per_lane
    max_sequence_length : longest row of the softmax modules
    k_max : longest dot product
    axi_bits : width of the main-memory port

    Raises
    ------
    pydantic.ValidationError
        (a ValueError) for an unknown key or a value that no machine can have.
    """

    kind: ClassVar[str] = "accelerator"
    examples: ClassVar[tuple[str, str]] = ("hwgen", "designs")

    tile_b: int = Field(ge=1, le=64)
    tile_x: int = Field(ge=1, le=32)
    tile_y: int = Field(ge=1, le=32)
    nonlinearity: Literal["relu", "gelu"]
    pes: int = Field(ge=1, le=4096)
    lanes_per_pe: int = Field(ge=1, le=1024)
    macs_per_lane: int = Field(ge=1, le=64)
    softmax_per_pe: int = Field(ge=1, le=1024)
    batch_size: int = Field(ge=1, le=4096)
    activation_buffer_kib: int = Field(ge=1)
    weight_buffer_kib: int = Field(ge=1)
    mask_buffer_kib: int = Field(ge=1)
    memory: MemoryDesign
    loop_order: str
    integer_bits: int = Field(default=4, ge=1, le=24)
    fraction_bits: int = Field(default=16, ge=0, le=23)
    clock_mhz: float = Field(default=700.0, gt=0, strict=False)
    stochastic_rounding: bool = False
    k_segment: int = Field(ge=1)
    window: int = Field(ge=1)
    fifo_depth: int = Field(ge=1)
    max_sequence_length: int = Field(default=512, ge=1, le=4096)
    k_max: int = Field(default=4096, ge=1, le=1 << 20)
    axi_bits: Literal[128, 256, 512] = 128

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:
        """Fill what follows from other fields, so that a design's dump is complete."""
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        macs, tile_y = data.get("macs_per_lane"), data.get("tile_y")
        if type(macs) is int and type(tile_y) is int:
            data.setdefault("window", default_window(macs))
            data.setdefault("k_segment", int(default_k_segment(macs, tile_y)))
        known = macs, data.get("window"), data.get("k_segment")
        if all(type(value) is int for value in known):
            data.setdefault("fifo_depth", int(default_fifo_depth(*known)))
        memory = data.get("memory")
        if isinstance(memory, Mapping) and memory.get("type") in main_memory_types():
            facts = main_memory_types()[memory["type"]]
            clock = data.get("clock_mhz", 700.0)
            data["memory"] = {
                "latency_cycles": math.ceil(
                    Fraction(str(facts["latency_ns"])) * Fraction(str(clock)) / 1000
                ),
                "background_power_mw": facts["background_power_mw"],
                **memory,
            }
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.loop_order not in LOOP_ORDERS:
            raise ValueError(
                f"loop_order must be a permutation of b, i, j and k, not {self.loop_order!r}"
            )
        if self.tile_y & (self.tile_y - 1):
            raise ValueError(f"tile_y must be a power of two, not {self.tile_y}")
        if self.k_segment % self.macs_per_lane:
            raise ValueError(
                f"k_segment must be a multiple of macs_per_lane = {self.macs_per_lane}, "
                f"not {self.k_segment}"
            )
        # Each spec refuses what its unit cannot have.
        _ = self.unit_specs
        return self

    @property
    def bits(self) -> int:
        """Width of a value."""
        return self.integer_bits + self.fraction_bits

    @property
    def accumulator_bits(self) -> int:
        """Width of a partial sum, 2·bits + ⌈log2 k_max⌉."""
        return 2 * self.bits + (self.k_max - 1).bit_length()

    @property
    def piece(self) -> int:
        """Positions of a piece of a line, the least of tile_x, tile_y and window."""
        return min(self.tile_x, self.tile_y, self.window)

    @property
    def lanes(self) -> int:
        """Lanes of the whole accelerator."""
        return self.pes * self.lanes_per_pe

    @property
    def buffer_bits_per_cycle(self) -> Fraction:
        """Rate of one port of a buffer."""
        return bits_per_cycle(BUFFER_GIGABYTES_PER_SECOND, self.clock_mhz)

    @property
    def memory_bits_per_cycle(self) -> Fraction:
        """Rate of the main memory."""
        return bits_per_cycle(
            main_memory_types()[self.memory.type]["rate_gigabytes_per_second"], self.clock_mhz
        )

    @property
    def mac_lane(self) -> MacLaneSpec:
        """Spec of a lane's multipliers, adders and non-linearity."""
        return MacLaneSpec(**UNIT_PARAMETERS["mac_lane"](self))

    @property
    def dynatran(self) -> DynatranSpec:
        """Spec of a row engine's pruning; a lane's own takes one value a cycle."""
        return DynatranSpec(**UNIT_PARAMETERS["dynatran"](self))

    @property
    def pre_sparsity(self) -> PreSparsitySpec:
        """Spec of a lane's gather."""
        return PreSparsitySpec(**UNIT_PARAMETERS["pre_sparsity"](self))

    @property
    def post_sparsity(self) -> PostSparsitySpec:
        """Spec of a lane's compression."""
        return PostSparsitySpec(**UNIT_PARAMETERS["post_sparsity"](self))

    @property
    def softmax(self) -> SoftmaxSpec:
        """Spec of a softmax module."""
        return SoftmaxSpec(**UNIT_PARAMETERS["softmax"](self))

    @property
    def layer_norm(self) -> LayerNormSpec:
        """Spec of a PE's layer norm."""
        return LayerNormSpec(**UNIT_PARAMETERS["layer_norm"](self))

    @property
    def residual_add(self) -> ResidualAddSpec:
        """Spec of a PE's residual adder."""
        return ResidualAddSpec(**UNIT_PARAMETERS["residual_add"](self))

    @property
    def fifo(self) -> FifoSpec:
        """Spec of a lane's queue of operand pairs."""
        return FifoSpec(**UNIT_PARAMETERS["fifo"](self))

    @property
    def unit_specs(self) -> dict[str, Any]:
        """Spec of every unit that the design is built of, by the unit's name."""
        specs = {name: getattr(self, name) for name in UNITS_OF_ALL}
        if self.stochastic_rounding:
            parameters = UNIT_PARAMETERS["stochastic_rounding"](self)
            specs["stochastic_rounding"] = StochasticRoundingSpec(**parameters)
        return specs

    @property
    def sha256(self) -> str:
        """SHA-256 of the design's canonical JSON, in hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def with_bits(self, bits: int) -> Self:
        """Give the design values of another width; bits before the point stay where they fit.

        Raises
        ------
        ValueError
            If `bits` is not from 4 to 24.
        """
        check_range("bits", bits, 4, 24)
        integer_bits = min(self.integer_bits, bits)
        changed = {"integer_bits": integer_bits, "fraction_bits": bits - integer_bits}
        return type(self).model_validate({**self.model_dump(), **changed})

    def save(self, path: str | Path) -> None:
        """Write the design, complete, as YAML."""
        Path(path).write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


@dataclass(frozen=True)
class DesignBatch:
    """A population of designs, one array of shape (designs,) a field.

    Field names are those of AcceleratorDesign; main memory's are `memory_type`, `memory_banks`,
    `memory_ranks`, `memory_channels`, `memory_latency_cycles` and
    `memory_background_power_mw` (NaN: unknown). A rate is an exact fraction, two integer arrays.
    """

    fields: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        """Return the number of designs."""
        return len(self.fields["pes"])

    def __getattr__(self, name: str) -> Any:
        """Return a field's array, or a unit's spec with arrays for fields."""
        if name in UNITS_OF_ALL:
            return SimpleNamespace(**UNIT_PARAMETERS[name](self))
        if name == "fields" or name not in self.fields:  # not yet there while unpickling
            raise AttributeError(name)
        return self.fields[name]

    @classmethod
    def of(
        cls, designs: DesignBatch | Sequence[AcceleratorDesign | Mapping[str, Any] | str | Path]
    ) -> DesignBatch:
        """Make a batch of a list of designs.

        Raises
        ------
        ValueError
            If the list is empty or an entry is no design.
        """
        if isinstance(designs, DesignBatch):
            return designs
        if isinstance(designs, AcceleratorDesign | str | Path | Mapping):
            raise ValueError(
                "designs must be a list of designs or a DesignBatch; put one design into a list"
            )
        loaded = [AcceleratorDesign.load(design) for design in designs]
        if not loaded:
            raise ValueError("designs must hold at least one design")
        columns: dict[str, list[Any]] = {}
        for design in loaded:
            for name in AcceleratorDesign.model_fields:
                if name != "memory":
                    columns.setdefault(name, []).append(getattr(design, name))
            for name in MemoryDesign.model_fields:
                value = getattr(design.memory, name)
                columns.setdefault(f"memory_{name}", []).append(
                    math.nan if value is None else value
                )
        return cls.from_columns({name: np.asarray(values) for name, values in columns.items()})

    @classmethod
    def from_columns(cls, columns: Mapping[str, np.ndarray]) -> DesignBatch:
        """Make a batch of complete columns, deriving widths and rates."""
        made = dict(columns)
        made["bits"] = made["integer_bits"] + made["fraction_bits"]
        k_max = made["k_max"]
        made["accumulator_bits"] = 2 * made["bits"] + np.ceil(np.log2(k_max)).astype(np.int64)
        made["lanes"] = made["pes"] * made["lanes_per_pe"]
        tile = np.minimum(made["tile_x"], made["tile_y"])
        made["piece"] = np.minimum(tile, made["window"])
        # Few distinct (type, clock) pairs; each is worked out once, as an exact fraction.
        kinds, clocks = made["memory_type"], made["clock_mhz"]
        for name in ("buffer", "memory"):
            made[f"{name}_rate_numerator"] = np.empty(len(k_max), dtype=np.int64)
            made[f"{name}_rate_denominator"] = np.empty(len(k_max), dtype=np.int64)
        for kind in np.unique(kinds):
            for clock in np.unique(clocks):
                chosen = (kinds == kind) & (clocks == clock)
                memory = main_memory_types()[str(kind)]["rate_gigabytes_per_second"]
                for name, gigabytes in (
                    ("buffer", BUFFER_GIGABYTES_PER_SECOND),
                    ("memory", memory),
                ):
                    rate = bits_per_cycle(gigabytes, float(clock))
                    made[f"{name}_rate_numerator"][chosen] = rate.numerator
                    made[f"{name}_rate_denominator"][chosen] = rate.denominator
        return cls(made)

    def take(self, index: np.ndarray | slice) -> DesignBatch:
        """Part of the batch, by indices, a mask or a slice."""
        return DesignBatch({name: values[index] for name, values in self.fields.items()})

    def design(self, index: int) -> AcceleratorDesign:
        """One design of the batch."""
        memory = {}
        for name in MemoryDesign.model_fields:
            value = self.fields[f"memory_{name}"][index].item()
            memory[name] = None if isinstance(value, float) and math.isnan(value) else value
        values = {
            name: self.fields[name][index].item()
            for name in AcceleratorDesign.model_fields
            if name != "memory"
        }
        return AcceleratorDesign.model_validate({**values, "memory": memory})
