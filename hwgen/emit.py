"""Writes a design's units as Verilog, with a manifest and jobs that prove them."""

from __future__ import annotations

from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Shape
from amaranth.lib import data, stream
from amaranth.lib.wiring import In

from hwgen.simulation.module import Field, Port, VerilogModule


def unit_module(component: Any, name: str) -> VerilogModule:
    """Elaborate a component into Verilog whose ports are described by its signature.

    Parameters
    ----------
    component : an Amaranth component; its ports are input and output streams and plain inputs
    name : name of the Verilog module

    Raises
    ------
    ValueError
        If a port is neither.
    """
    ports = tuple(_ports(component))
    text = verilog.convert(component, name=name, strip_internal_attrs=True, emit_src=False)
    return VerilogModule(name, text, ports)


def _ports(component: Any) -> Any:
    for name, member in component.signature.members.items():
        inward = member.flow == In
        if member.is_signature and isinstance(member.signature, stream.Signature):
            shape = member.signature.members["payload"].shape
            yield Port(
                name,
                "in" if inward else "out",
                "stream",
                Shape.cast(shape).width,
                _fields(name, shape),
            )
        elif member.is_port and inward:
            yield Port(
                name, "in", "signal", Shape.cast(member.shape).width, _fields(name, member.shape)
            )
        else:
            raise ValueError(f"port {name} must be a stream or a plain input")


def _fields(name: str, shape: Any) -> tuple[Field, ...]:
    if not isinstance(shape, data.StructLayout):
        cast = Shape.cast(shape)
        return (Field(name, 0, cast.width, None, cast.signed),)
    fields = []
    for key, part in shape:
        array = isinstance(part.shape, data.ArrayLayout)
        element = Shape.cast(part.shape.elem_shape if array else part.shape)
        fields.append(
            Field(
                key,
                part.offset,
                element.width,
                part.shape.length if array else None,
                element.signed,
            )
        )
    return tuple(fields)
