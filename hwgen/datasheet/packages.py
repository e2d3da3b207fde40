"""Packages that draw, imported when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from hwgen.simulation.simulators import MissingToolError


def import_package(name: str) -> Any:
    """Import a package of the extra `datasheet`.

    Raises
    ------
    MissingToolError
        If it is not installed; says how to install it.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise MissingToolError(
            f"{name.split('.')[0]} is missing: install it with "
            "pip install 'transcode-codesign[datasheet]'"
        ) from None
