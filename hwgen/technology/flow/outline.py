"""Parts of a component as black boxes, so that a large one is synthesised part by part.

Synthesis takes longer than in proportion to what it maps, and a processing element has many lanes
that are all alike: each kind of part is synthesised once, and so is what connects them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from hwgen.lib.parts import instance, ports_of
from hwgen.technology.flow.netlist import BlackBox
from hwgen.technology.flow.synthesis import Elaborated, elaborate

Kinds = Mapping[Any, Callable[[Any], str]]
"""For a class of components, what gives the name of a part's module."""


def outline(component: Any, name: str, kinds: Kinds) -> Elaborated:
    """Elaborate a component, with those below it that are of some kinds as black boxes.

    Parameters
    ----------
    component : an Amaranth component
    name : name of the top module
    kinds : for a class of components, what gives the name of a part's module; parts of one name
        must be alike
    """
    boxes: dict[str, BlackBox] = {}
    with _outlined(component, kinds, boxes):
        elaborated = elaborate(component, name)
    return replace(elaborated, boxes=tuple(boxes.values()))


def parts_of(component: Any, kinds: Kinds) -> dict[str, Any]:
    """Return the first part of each name that a component has, as `outline` names them."""
    found: dict[str, Any] = {}

    def named(name_of: Callable[[Any], str]) -> Callable[[Any], str]:
        def name(part: Any) -> str:
            found.setdefault(name_of(part), part)
            return name_of(part)

        return name

    outline(component, "top", {kind: named(name_of) for kind, name_of in kinds.items()})
    return found


@contextmanager
def _outlined(top: Any, kinds: Kinds, boxes: dict[str, BlackBox]) -> Iterator[None]:
    """Make components of `kinds`, other than `top`, elaborate as instances of black boxes."""
    with ExitStack() as stack:
        for kind, name_of in kinds.items():
            stack.enter_context(patch.object(
                kind, "elaborate", _box_or_inside(kind.elaborate, top, name_of, boxes)))
        yield


def _box_or_inside(
    inside: Callable[[Any, Any], Any],
    top: Any,
    name_of: Callable[[Any], str],
    boxes: dict[str, BlackBox],
) -> Callable[[Any, Any], Any]:
    """What stands in for a class's `elaborate`."""
    def elaborate(component: Any, platform: Any) -> Any:
        if component is top:
            return inside(component, platform)
        ports = {"clk": ("input", 1), "rst": ("input", 1)} | {
            port: ({"i": "input", "o": "output"}[direction], len(value))
            for port, direction, value in ports_of(component)
        }
        name = name_of(component)
        box = boxes.setdefault(name, BlackBox(name, ports))
        if box.ports != ports:
            raise ValueError(f"parts that are called {name} have different ports")
        return instance(name, component)

    return elaborate
