"""Spaces of accelerators: the options of each field."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hwgen.configuration import Named
from hwgen.design import (
    LOOP_ORDERS,
    AcceleratorDesign,
    DesignBatch,
    MemoryDesign,
    default_fifo_depth,
    default_k_segment,
    default_window,
)


class DesignSpace(Named):
    """The options of each field: a space of accelerators, from a YAML file.

    `tile` sets tile_x and tile_y together; `loop_order` may be "all". Fields that a space does not
    name keep AcceleratorDesign's defaults.
    """

    kind: ClassVar[str] = "accelerator space"
    examples: ClassVar[tuple[str, str]] = ("hwgen", "designs/spaces")

    tile_b: tuple[int, ...] = Field(min_length=1)
    tile: tuple[int, ...] = Field(min_length=1)
    nonlinearity: tuple[Literal["relu", "gelu"], ...] = Field(min_length=1)
    pes: tuple[int, ...] = Field(min_length=1)
    lanes_per_pe: tuple[int, ...] = Field(min_length=1)
    macs_per_lane: tuple[int, ...] = Field(min_length=1)
    softmax_per_pe: tuple[int, ...] = Field(min_length=1)
    batch_size: tuple[int, ...] = Field(min_length=1)
    activation_buffer_kib: tuple[int, ...] = Field(min_length=1)
    weight_buffer_kib: tuple[int, ...] = Field(min_length=1)
    mask_buffer_kib: tuple[int, ...] = Field(min_length=1)
    memory: tuple[dict[str, Any], ...] = Field(min_length=1)
    loop_order: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _all_loop_orders(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("loop_order") == "all":
            return {**data, "loop_order": LOOP_ORDERS}
        return data

    @property
    def options(self) -> dict[str, tuple[Any, ...]]:
        """The options of each field, in the order of the fields."""
        return {name: getattr(self, name) for name in type(self).model_fields}

    def __len__(self) -> int:
        """Return the number of designs."""
        return math.prod(len(values) for values in self.options.values())

    def design(self, indices: Sequence[int]) -> AcceleratorDesign:
        """Make the design of one index a field."""
        values = {
            name: options[index]
            for (name, options), index in zip(self.options.items(), indices, strict=True)
        }
        tile = values.pop("tile")
        return AcceleratorDesign.load({**values, "tile_x": tile, "tile_y": tile})

    def batch(self, indices: np.ndarray) -> DesignBatch:
        """Make the designs of index rows, shape (designs, fields), without a loop over designs."""
        columns: dict[str, np.ndarray] = {}
        # Each option is validated once, on a design that has it, and its columns are gathered.
        base = [0] * len(self.options)
        resolved: dict[tuple[int, ...], DesignBatch] = {}
        names = list(self.options)
        for name, column in zip(names, np.asarray(indices).T, strict=True):
            if name == "memory":
                for field_name in MemoryDesign.model_fields:
                    made = []
                    for index in range(len(self.memory)):
                        key = tuple(index if n == "memory" else 0 for n in names)
                        resolved.setdefault(key, DesignBatch.of([self.design(key)]))
                        made.append(resolved[key].fields[f"memory_{field_name}"][0])
                    columns[f"memory_{field_name}"] = np.asarray(made)[column]
            elif name == "tile":
                columns["tile_x"] = columns["tile_y"] = np.asarray(self.tile)[column]
            else:
                columns[name] = np.asarray(self.options[name])[column]
        first = DesignBatch.of([self.design(base)])
        count = len(columns["pes"])
        for name in AcceleratorDesign.model_fields:
            if name not in columns and name != "memory":
                columns[name] = np.repeat(first.fields[name], count)
        columns["window"] = default_window(columns["macs_per_lane"])
        columns["k_segment"] = default_k_segment(columns["macs_per_lane"], columns["tile_y"])
        columns["fifo_depth"] = default_fifo_depth(
            columns["macs_per_lane"], columns["window"], columns["k_segment"]
        )
        return DesignBatch.from_columns(columns)

    def sample(self, count: int, rng: np.random.Generator) -> DesignBatch:
        """Draw `count` designs, uniform over the space, with replacement."""
        sizes = [len(values) for values in self.options.values()]
        return self.batch(np.stack([rng.integers(size, size=count) for size in sizes], axis=1))

    def enumerate(self, chunk: int = 65536) -> Iterator[DesignBatch]:
        """Go through all designs, `chunk` at a time, the last field fastest."""
        sizes = [len(values) for values in self.options.values()]
        for start in range(0, len(self), chunk):
            flat = np.arange(start, min(start + chunk, len(self)))
            yield self.batch(np.stack(np.unravel_index(flat, sizes), axis=1))
