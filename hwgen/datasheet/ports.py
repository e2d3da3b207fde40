"""The part of a data sheet that lists a unit's ports, from its component's signature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hwgen.datasheet.docstring import Docstring, as_markdown
from hwgen.simulation.module import Field, Port

ONLY_WITH = "only with "
"""How the docstring begins what it says of a port that the default unit need not have."""


def ports_section(unit: str, ports: Sequence[Port], component_class: Any) -> str:
    """List ports and the fields of their payloads.

    Parameters
    ----------
    unit : its name
    ports : the component's, for the default unit
    component_class : the component, whose docstring says in its section "Ports" what each is

    Raises
    ------
    ValueError
        If the docstring leaves out a port, or describes one that there is not as if there were.
    """
    said = Docstring.of(component_class).by_name("Ports")
    names = [port.name for port in ports]
    further = [name for name, text in said.items()
               if name not in names and text.startswith(ONLY_WITH)]
    for name in (*names, *(name for name in said if name not in further)):
        if name not in said or name not in names:
            raise ValueError(
                f"the section Ports of {component_class.__name__}'s docstring must describe "
                f"{', '.join(names)}, and nothing else: see {name}"
            )
    lines = [
        "## Ports",
        "",
        "| port | direction | kind | width (bits) | meaning |",
        "| --- | --- | --- | ---: | --- |",
        "| `clk` | in | clock | 1 | rising edge |",
        "| `rst` | in | reset | 1 | synchronous, active high |",
        *(
            f"| `{port.name}` | {port.direction} | {_kind(port)} | {port.width} "
            f"| {as_markdown(said[port.name])} |"
            for port in ports
        ),
        "",
        *(line for name in further for line in (
            f"Other specs also have `{name}`, {as_markdown(said[name])}.", "")),
        "A stream is three signals of the Verilog module `" + unit + "`: `<port>__payload`, "
        "`<port>__valid` and `<port>__ready`; its direction is that of payload and valid. "
        "Constants are steady during a job.",
        "",
        "Fields of the payloads, from the least significant bit up:",
        "",
        "| port | field | bits | elements | width of an element (bits) | format |",
        "| --- | --- | --- | ---: | ---: | --- |",
        *(_field(port, field) for port in ports if port.kind == "stream" for field in port.fields),
    ]
    return "\n".join(lines)


def _kind(port: Port) -> str:
    if port.kind == "stream":
        return "stream"
    kind = "constant" if port.direction == "in" else "status"
    return f"{kind}, {_format(port.fields[0])}"


def _format(field: Field) -> str:
    return "two's complement" if field.signed else "unsigned"


def _field(port: Port, field: Field) -> str:
    count = 1 if field.count is None else field.count
    top = field.offset + count * field.width - 1
    bits = f"{top}" if top == field.offset else f"{top}:{field.offset}"
    return (
        f"| `{port.name}` | `{field.name}` | {bits} | {count} | {field.width} | {_format(field)} |"
    )
