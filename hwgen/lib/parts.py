"""Parts of a component that are alike, as instances of one module."""

from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Value
from amaranth.lib.wiring import In


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
        connections = {"i_clk": ClockSignal(), "i_rst": ResetSignal()}
        for path, member, port in component.signature.flatten(component):
            value = Value.cast(port)
            if len(value):
                direction = "i" if member.flow == In else "o"
                connections[f"{direction}_{'__'.join(map(str, path))}"] = value
        m = Module()
        m.submodules.instance = Instance(name, **connections)
        return m


def part(platform, name, component):
    """Return what stands for a component below another: itself, or an instance of `name`."""
    return platform.part(name, component) if isinstance(platform, Parts) else component
