"""Which specs of a unit are characterised: the default first, then a modest set around it.

A spec is what a design makes of it, so that parameters that depend on one another do so here too.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from hwgen.design import AcceleratorDesign
from hwgen.units.registry import check_unit_name, spec_class_of

DEFAULT_DESIGN = "edge"
"""The design whose units are the default ones."""

DERIVED = ("k_segment", "window", "fifo_depth")
"""Fields of a design that follow from others where they are not given."""


def _format(bits: int) -> dict[str, Any]:
    return {"integer_bits": 4, "fraction_bits": bits - 4}


def _tile(extent: int) -> dict[str, Any]:
    return {"tile_x": extent, "tile_y": extent}


VARIATIONS: tuple[dict[str, Any], ...] = (
    {},
    *(_format(bits) for bits in (8, 16, 12, 24)),
    {"macs_per_lane": 8},
    {"macs_per_lane": 4},
    *({**_format(bits), "macs_per_lane": macs} for bits, macs in
      ((8, 8), (16, 8), (24, 4), (12, 4), (8, 32), (16, 4))),
    {"nonlinearity": "relu"},
    {**_format(8), "nonlinearity": "relu"},
    {**_format(16), "nonlinearity": "relu", "macs_per_lane": 8},
    _tile(8),
    _tile(32),
    {**_format(8), **_tile(8)},
    {**_format(12), **_tile(32)},
    {"max_sequence_length": 128},
    {"max_sequence_length": 2048},
    {**_format(8), **_tile(8), "max_sequence_length": 128},
    {**_format(16), **_tile(8), "max_sequence_length": 1024},
    {"window": 16},
    {"window": 32},
    {**_format(8), "window": 16},
    {**_format(12), "macs_per_lane": 8, "window": 16},
    {"stochastic_rounding": True},
    {**_format(8), "stochastic_rounding": True},
    {**_format(16), "nonlinearity": "relu", "macs_per_lane": 8, "stochastic_rounding": True},
    {**_format(24), "macs_per_lane": 4, "stochastic_rounding": True},
    {"macs_per_lane": 1},
    {**_format(8), "macs_per_lane": 1},
    {**_format(16), "nonlinearity": "relu", "macs_per_lane": 1},
    {"macs_per_lane": 2},
    {**_format(12), "macs_per_lane": 2},
    {**_format(24), "nonlinearity": "relu", "macs_per_lane": 2},
)
"""Fields in which designs differ from the default one, in the order of their use."""


def points(unit: str) -> list[Any]:
    """Return the specs of a unit that are characterised, without repetition, the default first.

    A unit that no design has a spec for, or whose parameters designs vary too little, lists them in
    its folder, as `SPECS` of `workload`.

    Raises
    ------
    ValueError
        If the unit is unknown, or neither a design nor its folder says what its default is.
    """
    check_unit_name(unit)
    name = f"hwgen.units.{unit}.workload"
    listed = getattr(import_module(name), "SPECS", None) if find_spec(name) else None
    if listed is not None:
        return list(listed)
    base = AcceleratorDesign.load(DEFAULT_DESIGN).model_dump()
    base = {field: value for field, value in base.items() if field not in DERIVED}
    found = [_spec_of({**base, **changes}, unit) for changes in VARIATIONS]
    if None in found:
        raise ValueError(
            f"{unit} has no default: give hwgen/units/{unit}/workload.py a list SPECS"
        )
    return list(dict.fromkeys(found))


def _spec_of(fields: dict[str, Any], unit: str) -> Any:
    """Spec of a unit in a design; of one that only training needs, in that design with it."""
    for changes in ({}, {"stochastic_rounding": True}):
        design = AcceleratorDesign.load({**fields, **changes})
        spec = getattr(design, "unit_specs", {}).get(unit) or getattr(design, unit, None)
        if isinstance(spec, spec_class_of(unit)):
            return spec
    return None
