"""The cocotb test that drives any module with streams: reads a request, writes results.

The request and the results are JSON files (`run.py` writes the one and reads the other). Everything
happens in one coroutine with two half cycles: inputs change with the falling edge, and all signals
are sampled, settled, just before the rising one.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import cocotb
from cocotb.triggers import Timer

REQUEST = "TRANSCODE_BENCH_REQUEST"
"""Environment variable with the path of the request."""

RESET_CYCLES = 2
DRAIN_CYCLES = 32
"""Cycles that are watched for surplus beats after the last expected one."""

STALL_PROBABILITIES = (0.1, 0.5, 0.8)
"""Port n stalls with the (seed + n)th of these: consecutive seeds press on different ports."""

HALF_CYCLE = Timer(1, unit="step")


class Stalls:
    """Seeded stalls of one port; None never stalls."""

    def __init__(self, seed: int | None, index: int) -> None:
        self._random = None if seed is None else random.Random(f"{seed} {index}")
        self._probability = STALL_PROBABILITIES[((seed or 0) + index) % len(STALL_PROBABILITIES)]

    def now(self) -> bool:
        """Whether the port stalls in this cycle."""
        return self._random is not None and self._random.random() < self._probability


class Source:
    """Offers the beats of one input stream; a beat once offered stays until it is taken."""

    def __init__(self, dut: Any, port: dict[str, Any], beats: list[int], seed: int | None) -> None:
        signals = port["signals"]
        self._payload = getattr(dut, signals["payload"])
        self._valid = getattr(dut, signals["valid"])
        self._ready = getattr(dut, signals["ready"])
        self._junk = (1 << port["width"]) - 1
        self._beats = beats
        self._stalls = Stalls(seed, port["index"])
        self._offering = self._idle = False
        self.name = port["name"]
        self.sent = 0

    def drive(self) -> None:
        """Set valid and payload for the coming rising edge; junk while nothing is offered."""
        if self._offering:
            return
        if not self.complete and not self._stalls.now():
            self._payload.set(self._beats[self.sent])
            self._valid.set(1)
            self._offering, self._idle = True, False
        elif not self._idle:
            self._valid.set(0)
            self._payload.set(self._beats[self.sent - 1] ^ self._junk if self.sent else 0)
            self._idle = True

    def sample(self) -> bool:
        """Whether a beat is taken at the coming rising edge."""
        return bool(self._offering and self._ready.value == 1)

    def took(self) -> None:
        """Move on to the next beat."""
        self.sent += 1
        self._offering = False

    @property
    def complete(self) -> bool:
        """Whether all beats are taken."""
        return self.sent == len(self._beats)

    def errors(self) -> list[str]:
        """Say what is left."""
        if self.complete:
            return []
        return [f"port {self.name} took {self.sent} of {len(self._beats)} beats"]


class Sink:
    """Takes the beats of one output stream and watches that it keeps the rules of streams."""

    def __init__(self, dut: Any, port: dict[str, Any], expected: int, seed: int | None) -> None:
        signals = port["signals"]
        self._payload = getattr(dut, signals["payload"])
        self._valid = getattr(dut, signals["valid"])
        self._ready = getattr(dut, signals["ready"])
        self._stalls = Stalls(seed, port["index"])
        self._watched = seed is not None
        self._driven: bool | None = None
        self._held: str | None = None
        self._expected = expected
        self.name = port["name"]
        self.beats: list[str] = []
        self.broken: str | None = None

    def drive(self) -> None:
        """Set ready for the coming rising edge."""
        ready = not self._stalls.now()
        if ready != self._driven:
            self._ready.set(int(ready))
            self._driven = ready

    def sample(self) -> bool:
        """Whether a beat is taken at the coming rising edge; it is kept."""
        if not self._valid.value == 1:
            if self._held is not None:
                self.broken = f"port {self.name} withdrew valid before its beat was taken"
                self._held = None
            return False
        if self._driven and self._held is None:
            self.beats.append(str(self._payload.value))
            return True
        if self._watched:
            payload = str(self._payload.value)
            if self._held is not None and payload != self._held:
                self.broken = f"port {self.name} changed its payload before it was taken"
            self._held = None if self._driven else payload
            if self._driven:
                self.beats.append(payload)
                return True
        return False

    @property
    def complete(self) -> bool:
        """Whether all expected beats are there."""
        return len(self.beats) >= self._expected

    def errors(self) -> list[str]:
        """Say which rule of streams was broken; missing beats are found by the comparison."""
        return [self.broken] if self.broken else []


async def reset(dut: Any, ports: list[dict[str, Any]], signals: dict[str, int]) -> None:
    """Set constants and idle streams, and hold the reset for some cycles."""
    for name, value in signals.items():
        getattr(dut, name).set(value)
    for port in ports:
        if port["kind"] == "stream":
            idle = "valid" if port["direction"] == "in" else "ready"
            getattr(dut, port["signals"][idle]).set(0)
    dut.rst.set(1)
    for _ in range(RESET_CYCLES):
        dut.clk.set(0)
        await HALF_CYCLE
        dut.clk.set(1)
        await HALF_CYCLE
    dut.clk.set(0)
    dut.rst.set(0)


async def run(
    dut: Any,
    ports: list[dict[str, Any]],
    job: dict[str, Any],
    stall_seed: int | None,
    idle_limit: int,
    cycle_limit: int,
) -> dict[str, Any]:
    """Run one job from reset; return its beats, its cycles and what went wrong."""
    await reset(dut, ports, job["signals"])
    inputs = {name: [int(beat, 16) for beat in beats] for name, beats in job["inputs"].items()}
    sources = [
        Source(dut, port, inputs[port["name"]], stall_seed)
        for port in ports
        if port["kind"] == "stream" and port["direction"] == "in"
    ]
    sinks = [
        Sink(dut, port, job["outputs"][port["name"]], stall_seed)
        for port in ports
        if port["kind"] == "stream" and port["direction"] == "out"
    ]
    clock, high, low = dut.clk, 1, 0
    first = last = None
    cycle = quiet = 0
    drain = DRAIN_CYCLES
    ends: list[Source | Sink] = [*sources, *sinks]
    for end in ends:
        end.drive()
    while True:
        await HALF_CYCLE
        taken = [source for source in sources if source.sample()]
        given = [sink for sink in sinks if sink.sample()]
        clock.set(high)
        await HALF_CYCLE
        clock.set(low)
        if taken and first is None:
            first = cycle
        if given:
            last = cycle
        for source in taken:
            source.took()
        for end in ends:
            end.drive()
        cycle += 1
        quiet = 0 if taken or given else quiet + 1
        if all(end.complete for end in ends):
            drain -= 1
        if drain == 0 or quiet > idle_limit or cycle > cycle_limit:
            break
    errors = [error for end in ends for error in end.errors()]
    if quiet > idle_limit:
        errors.append(f"no transfer for {idle_limit} cycles")
    elif cycle > cycle_limit:
        errors.append(f"not finished after {cycle_limit} cycles")
    cycles = None if first is None or last is None else last - first + 1
    return {
        "outputs": {sink.name: sink.beats for sink in sinks},
        "cycles": cycles,
        "simulated_cycles": cycle,
        "errors": errors,
    }


@cocotb.test()
async def all_runs(dut: Any) -> None:
    """Run every job of the request with every stall seed."""
    request = json.loads(Path(os.environ[REQUEST]).read_text())
    results = [
        await run(
            dut,
            request["ports"],
            request["jobs"][entry["job"]],
            entry["stall_seed"],
            entry["idle_limit"],
            entry["cycle_limit"],
        )
        for entry in request["runs"]
    ]
    Path(request["results"]).write_text(json.dumps(results))
