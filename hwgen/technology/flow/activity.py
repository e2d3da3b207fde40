"""Toggles and duty of every net, from the VCD of a simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Activity:
    """How nets behaved in a window of time.

    Parameters
    ----------
    cycles : clock cycles of the window
    toggles : transitions of each net between 0 and 1
    duty : share of the window in which each net was 1; an unknown value counts as a half
    """

    cycles: int
    toggles: dict[str, int]
    duty: dict[str, float]


@dataclass
class _Bit:
    """One bit of a signal while the file is read."""

    name: str
    value: str = "x"
    since: int = 0
    toggles: int = 0
    ones: float = 0.0

    def account(self, time: int) -> None:
        share = {"1": 1.0, "0": 0.0}.get(self.value, 0.5)
        self.ones += share * (time - self.since)
        self.since = time


def read_activities(
    file: Path, windows: Sequence[tuple[int, int]], period: int
) -> list[Activity]:
    """Count the transitions of every bit in a VCD, window by window, in one pass.

    A change at a window's begin belongs to it, one at its end does not. The bits of a signal that
    has several are named `name[bit]`.

    Parameters
    ----------
    file : VCD of one scope
    windows : begin and end of each window in the file's time, in order and apart
    period : clock period in the file's time

    Raises
    ------
    ValueError
        If the file ends before the last window does.
    """
    found: list[Activity] = []
    with file.open() as lines:
        bits = _declarations(lines)
        edges = [time for window in windows for time in window]
        crossed = 0
        time = 0
        for line in lines:
            mark = line[0]
            if mark == "#":
                time = int(line[1:])
                while crossed < len(edges) and time >= edges[crossed]:
                    begin, end = windows[crossed // 2]
                    if crossed % 2:
                        found.append(_activity(bits, begin, end, period))
                    else:
                        _begin(bits, begin)
                    crossed += 1
                if crossed == len(edges):
                    return found
            elif mark in "01xz":
                _change(bits[line[1:].strip()][0], mark, time)
            elif mark == "b":
                digits, code = line[1:].split()
                signal = bits[code]
                fill = "0" if digits[0] == "1" else digits[0]
                for bit, digit in zip(signal, reversed(digits.rjust(len(signal), fill)),
                                      strict=True):
                    if digit != bit.value:
                        _change(bit, digit, time)
    raise ValueError(f"{file} ends at {time}, before the window that ends at {windows[-1][1]}")


def _declarations(lines: Iterator[str]) -> dict[str, list[_Bit]]:
    """Bits of each identifier code, the least significant first."""
    bits: dict[str, list[_Bit]] = {}
    for line in lines:
        words = line.split()
        if words[:1] == ["$enddefinitions"]:
            break
        if words[:1] == ["$var"]:
            width, code, name = int(words[2]), words[3], words[4]
            bits[code] = [_Bit(f"{name}[{index}]" if width > 1 else name)
                          for index in range(width)]
    return bits


def _change(bit: _Bit, value: str, time: int) -> None:
    bit.account(time)
    bit.toggles += bit.value + value in ("01", "10")
    bit.value = value


def _begin(bits: dict[str, list[_Bit]], time: int) -> None:
    for signal in bits.values():
        for bit in signal:
            bit.since, bit.toggles, bit.ones = time, 0, 0.0


def _activity(bits: dict[str, list[_Bit]], begin: int, end: int, period: int) -> Activity:
    every = [bit for signal in bits.values() for bit in signal]
    for bit in every:
        bit.account(end)
    return Activity(
        (end - begin) // period,
        {bit.name: bit.toggles for bit in every},
        {bit.name: bit.ones / (end - begin) for bit in every},
    )
