"""A Verilog module with the layout of its ports, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Field:
    """One field of a port's payload.

    Parameters
    ----------
    name : field
    offset : least significant bit
    width : bits of one element
    count : elements of an array, or None for a single value
    signed : whether elements are two's complement
    """

    name: str
    offset: int
    width: int
    count: int | None
    signed: bool

    def to_json(self) -> dict[str, Any]:
        """Return the field as JSON types."""
        return {
            "name": self.name,
            "offset": self.offset,
            "width": self.width,
            "count": self.count,
            "signed": self.signed,
        }


@dataclass(frozen=True)
class Port:
    """A stream, a plain input that is constant during a job, or a plain output.

    Parameters
    ----------
    name : port; a stream's signals are `<name>__payload`, `<name>__valid` and `<name>__ready`
    direction : "in" or "out", that of the payload
    kind : "stream" or "signal"
    width : bits of the payload
    fields : the payload's fields from the least significant bit up; of a signal, itself
    """

    name: str
    direction: str
    kind: str
    width: int
    fields: tuple[Field, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the port as JSON types, with the names of its Verilog signals."""
        signals = (
            {part: f"{self.name}__{part}" for part in ("payload", "valid", "ready")}
            if self.kind == "stream"
            else {"payload": self.name}
        )
        return {
            "name": self.name,
            "direction": self.direction,
            "kind": self.kind,
            "width": self.width,
            "signals": signals,
            "fields": [field.to_json() for field in self.fields],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Port:
        """Read a port back."""
        return cls(
            data["name"],
            data["direction"],
            data["kind"],
            data["width"],
            tuple(Field(**field) for field in data["fields"]),
        )


@dataclass(frozen=True)
class VerilogModule:
    """Verilog text whose top module is `name`, with clock `clk` and synchronous reset `rst`."""

    name: str
    verilog: str
    ports: tuple[Port, ...]

    def streams(self, direction: str) -> tuple[Port, ...]:
        """Return the streams of one direction, "in" or "out"."""
        return tuple(
            port for port in self.ports if port.kind == "stream" and port.direction == direction
        )

    @property
    def signals(self) -> tuple[Port, ...]:
        """The plain inputs."""
        return tuple(
            port for port in self.ports if port.kind == "signal" and port.direction == "in"
        )
