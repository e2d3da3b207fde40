"""Finds a unit's spec, jobs and component by the unit's name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

RTL_UNITS = (
    "mac_lane",
    "dynatran",
    "pre_sparsity",
    "post_sparsity",
    "softmax",
    "layer_norm",
    "residual_add",
    "stochastic_rounding",
    "fifo",
)
"""The units that have RTL, in the order in which reports list them."""


def _class_name(unit: str) -> str:
    return "".join(word.capitalize() for word in unit.split("_"))


def check_unit_name(unit: str) -> None:
    """Refuse a name that is no unit with RTL.

    Raises
    ------
    ValueError
        Names the unit and the known ones.
    """
    if unit not in RTL_UNITS:
        raise ValueError(f"unit must be one of {', '.join(RTL_UNITS)}, not {unit!r}")


def spec_of(unit: str, parameters: Mapping[str, Any]) -> Any:
    """Build a unit's spec from its parameters.

    Raises
    ------
    ValueError
        If the unit is unknown, or a parameter is missing, unknown or outside its range.
    """
    try:
        return spec_class_of(unit)(**parameters)
    except TypeError as error:
        raise ValueError(f"{unit}: {error}") from None


def spec_class_of(unit: str) -> Any:
    """Return a unit's class of specs, a frozen dataclass."""
    check_unit_name(unit)
    return getattr(import_module(f"hwgen.units.{unit}.spec"), f"{_class_name(unit)}Spec")


def jobs_of(unit: str) -> ModuleType:
    """Return a unit's jobs module: random_job, signals, stimulus, expected, predicted_cycles."""
    check_unit_name(unit)
    return import_module(f"hwgen.units.{unit}.jobs")


def component_of(unit: str) -> Any:
    """Return a unit's Amaranth component class (this imports Amaranth)."""
    check_unit_name(unit)
    return getattr(import_module(f"hwgen.units.{unit}.rtl"), _class_name(unit))
