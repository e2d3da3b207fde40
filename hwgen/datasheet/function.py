"""The part of a data sheet that says what a unit computes, from docstrings and the spec."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from types import ModuleType
from typing import Any

from hwgen.datasheet.docstring import Docstring, as_markdown


def function_section(unit: str, spec: Any, component_class: Any) -> str:
    """Describe a unit by the docstrings of its RTL, its golden functions and its spec.

    Parameters
    ----------
    unit : its name
    spec : the default unit's spec
    component_class : its Amaranth component

    Raises
    ------
    ValueError
        If a parameter of the spec is not described in its docstring.
    """
    golden = import_module(f"hwgen.units.{unit}.golden")
    body = as_markdown(Docstring.of(component_class).body)
    parts = ["## Function", *([body] if body else []), _parameters(spec)]
    parts.append("### What it computes, bit for bit")
    parts.append(f"Functions on integers in `hwgen/units/{unit}/golden.py`; the RTL equals them.")
    parts += [_described(function) for function in public_functions(golden)]
    return "\n\n".join(parts)


def public_functions(module: ModuleType) -> list[Any]:
    """Functions that a module defines for others, in the order of the file."""
    return [
        value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]


def _parameters(spec: Any) -> str:
    said = Docstring.of(type(spec)).by_name("Parameters")
    lines = [
        "### Parameters",
        "",
        "| parameter | default | meaning and range |",
        "| --- | ---: | --- |",
    ]
    for field in fields(spec):
        if field.name not in said:
            raise ValueError(f"{type(spec).__name__}'s docstring must describe {field.name}")
        value = getattr(spec, field.name)
        lines.append(f"| `{field.name}` | {value} | {as_markdown(said[field.name])} |")
    return "\n".join(lines)


def _described(function: Any) -> str:
    said = Docstring.of(function)
    names = ", ".join(inspect.signature(function).parameters)
    parts = [f"`{function.__name__}({names})`: {as_markdown(said.summary)}"]
    if said.body:
        parts.append(as_markdown(said.body))
    parameters = said.entries("Parameters")
    if parameters:
        parts.append(
            "\n".join(
                f"- {', '.join(f'`{name}`' for name in names)}: {as_markdown(text)}"
                for names, text in parameters
            )
        )
    if "Returns" in said.sections:
        returned = " ".join(said.sections["Returns"].split())
        parts.append(f"Returns {as_markdown(returned[0].lower() + returned[1:])}")
    return "\n\n".join(parts)
