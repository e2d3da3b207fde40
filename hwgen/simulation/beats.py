"""Beats of named fields to packed integers and back, and the comparison of beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwgen.simulation.module import Field, Port

Beat = Mapping[str, Any]
"""Field name to an integer, or to the integers of an array field."""


def _pack_element(where: str, value: Any, field: Field) -> int:
    value = int(value)
    low = -(1 << (field.width - 1)) if field.signed else 0
    high = (1 << (field.width - field.signed)) - 1
    if not low <= value <= high:
        kind = "signed" if field.signed else "unsigned"
        raise ValueError(f"{where} must fit {field.width} {kind} bits, not {value}")
    return value & ((1 << field.width) - 1)


def pack(port: Port, beat: Beat) -> int:
    """Pack a beat into a payload.

    Raises
    ------
    ValueError
        If a field is missing or unknown, has the wrong number of elements, or does not fit.
    """
    known = {field.name for field in port.fields}
    if set(beat) != known:
        raise ValueError(
            f"a beat of {port.name} has the fields {', '.join(sorted(known))}, "
            f"not {', '.join(sorted(beat))}"
        )
    packed = 0
    for field in port.fields:
        value = beat[field.name]
        where = f"{port.name}.{field.name}"
        if field.count is None:
            packed |= _pack_element(where, value, field) << field.offset
            continue
        if len(value) != field.count:
            raise ValueError(f"{where} must have {field.count} elements, not {len(value)}")
        for index, element in enumerate(value):
            packed |= _pack_element(where, element, field) << (field.offset + index * field.width)
    return packed


def _unpack_element(bits: str, offset: int, field: Field) -> int | None:
    end = len(bits) - offset
    text = bits[end - field.width : end]
    if not set(text) <= {"0", "1"}:
        return None
    value = int(text, 2)
    return value - (1 << field.width) if field.signed and text[0] == "1" else value


def unpack(port: Port, bits: str) -> dict[str, Any]:
    """Unpack a payload, given as its binary digits; an element with an unknown bit is None."""
    beat: dict[str, Any] = {}
    for field in port.fields:
        if field.count is None:
            beat[field.name] = _unpack_element(bits, field.offset, field)
        else:
            beat[field.name] = [
                _unpack_element(bits, field.offset + index * field.width, field)
                for index in range(field.count)
            ]
    return beat


def _plain(value: Any) -> Any:
    return [int(element) for element in value] if hasattr(value, "__len__") else int(value)


def _described(value: Any) -> str:
    return "unknown bits" if value is None else str(value)


def _difference(name: str, expected: Any, got: Any) -> str | None:
    """Describe how a field differs; None where it does not."""
    expected = _plain(expected)
    if not isinstance(expected, list):
        same = expected == got
        return None if same else f"{name} is {_described(got)}, expected {expected}"
    if len(expected) != len(got):
        return f"{name} has {len(got)} elements, expected {len(expected)}"
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        if want != have:
            return f"{name}[{index}] is {_described(have)}, expected {want}"
    return None


def mismatches(port: Port, expected: Sequence[Beat], got: Sequence[Beat]) -> list[str]:
    """Compare the beats of a port; a field that an expected beat leaves out is not compared.

    Returns
    -------
    One sentence for each beat that differs (its first difference), and one if their number does.

    Raises
    ------
    ValueError
        If an expected beat has a field that the port has not.
    """
    found = []
    known = {field.name for field in port.fields}
    for number, (want, have) in enumerate(zip(expected, got, strict=False)):
        if not set(want) <= known:
            raise ValueError(f"port {port.name} has no field {sorted(set(want) - known)[0]}")
        for name, value in want.items():
            difference = _difference(name, value, have[name])
            if difference:
                found.append(f"port {port.name}, beat {number}: {difference}")
                break
    if len(expected) != len(got):
        found.append(f"port {port.name} gave {len(got)} beats, expected {len(expected)}")
    return found
