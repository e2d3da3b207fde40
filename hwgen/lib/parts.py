"""Parts of a component that are alike, as instances of one module."""

from collections.abc import Iterator
from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.lib.wiring import In


def ports_of(component: Any) -> Iterator[tuple[str, str, Value]]:
    """Name, direction and value of each port of a component, as a module of its own has them."""
    for path, member, port in component.signature.flatten(component):
        value = Value.cast(port)
        if len(value):
            yield "__".join(map(str, path)), "i" if member.flow == In else "o", value


def instance(name: str, component: Any) -> Module:
    """Return a module with an instance of the module `name` in the place of a component."""
    m = Module()
    connections = {f"{direction}_{port}": value for port, direction, value in ports_of(component)}
    m.submodules.box = Instance(
        name, i_clk=ClockSignal(), i_rst=ResetSignal(), **connections)
    return m


class Parts:
    """A platform that makes modules of their own of what is marked with `part`.

    Attributes
    ----------
    components : one component of each name, in the order in which they were met
    """

    def __init__(self) -> None:
        self.components = {}

    def part(self, name, component):
        """Return an instance of the module `name`, whose ports are the component's.

        All components of one name must be alike; the first one becomes the module.
        """
        self.components.setdefault(name, component)
        # Amaranth warns of components that are not elaborated: this one is, by its likeness.
        component._MustUse__used = True
        return instance(name, component)


def part(platform, name, component):
    """Return what stands for a component below another: itself, or an instance of `name`."""
    return platform.part(name, component) if isinstance(platform, Parts) else component
