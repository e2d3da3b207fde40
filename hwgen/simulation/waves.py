"""Streams of a component, cycle by cycle, as Amaranth's own simulator shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.hdl import Value
from amaranth.sim import Simulator

from hwgen.emit import ports_of
from hwgen.simulation.beats import mismatches, pack, unpack
from hwgen.simulation.module import Port
from hwgen.simulation.run import Case, SimulationError

IDLE_CYCLES = 2
"""Cycles before the first beat, in which constant inputs are steady: what units ask for at most."""

TAIL_CYCLES = 1
"""Cycles that are recorded after the last transfer."""

QUIET_CYCLES = 2_000
"""Cycles without a transfer after which a case counts as hung, and four more for each beat."""


@dataclass(frozen=True)
class StreamWave:
    """One stream, an entry a cycle, as it is just before the rising edge that ends the cycle.

    Parameters
    ----------
    port : the stream
    valid, ready : its handshake; a beat is transferred where both are true
    beat : number of the beat that is offered; None while valid is low
    fields : what the beat carries by field; None while valid is low
    """

    port: Port
    valid: tuple[bool, ...]
    ready: tuple[bool, ...]
    beat: tuple[int | None, ...]
    fields: tuple[dict[str, Any] | None, ...]

    @property
    def transfers(self) -> tuple[int, ...]:
        """Cycles in which a beat is transferred."""
        both = zip(self.valid, self.ready, strict=True)
        return tuple(cycle for cycle, (valid, ready) in enumerate(both) if valid and ready)


@dataclass(frozen=True)
class Recording:
    """All streams of a component during a case.

    Parameters
    ----------
    name : the case's name
    streams : in the order of the component's signature
    """

    name: str
    streams: tuple[StreamWave, ...]

    @property
    def recorded_cycles(self) -> int:
        """Cycles that were recorded."""
        return len(self.streams[0].valid)

    @property
    def cycles(self) -> int:
        """Last output transfer − first input transfer + 1, as costs count."""
        first = min(wave.transfers[0] for wave in self._of("in"))
        return max(wave.transfers[-1] for wave in self._of("out")) - first + 1

    def interval_cycles(self) -> dict[str, float]:
        """Mean cycles from a beat to the next, for each input stream of two beats or more."""
        return {
            wave.port.name: (wave.transfers[-1] - wave.transfers[0]) / (len(wave.transfers) - 1)
            for wave in self._of("in")
            if len(wave.transfers) > 1
        }

    def _of(self, direction: str) -> tuple[StreamWave, ...]:
        return tuple(wave for wave in self.streams if wave.port.direction == direction)


class _End:
    """One end of a stream in the testbench, and what it has seen."""

    def __init__(self, port: Port, stream: Any, beats: Sequence[Any], hold_cycles: int) -> None:
        self.port, self.stream = port, stream
        self.inward = port.direction == "in"
        self.beats = beats
        self.hold_cycles = 0 if self.inward else hold_cycles
        self.seen: list[tuple[bool, bool, int]] = []
        self.done = 0

    @property
    def complete(self) -> bool:
        return self.done == len(self.beats)

    def drive(self, ctx: Any, cycle: int) -> None:
        if not self.inward:
            ctx.set(self.stream.ready, 1)
            return
        offered = cycle >= IDLE_CYCLES and not self.complete
        ctx.set(self.stream.valid, offered)
        if offered:
            ctx.set(Value.cast(self.stream.payload), pack(self.port, self.beats[self.done]))

    def hold(self, ctx: Any) -> None:
        """Refuse the first beat for a while: what valid is then does not depend on ready."""
        if self.hold_cycles and ctx.get(self.stream.valid):
            ctx.set(self.stream.ready, 0)
            self.hold_cycles -= 1

    def sample(self, ctx: Any) -> bool:
        valid, ready = bool(ctx.get(self.stream.valid)), bool(ctx.get(self.stream.ready))
        self.seen.append((valid, ready, ctx.get(Value.cast(self.stream.payload))))
        return valid and ready

    def wave(self) -> StreamWave:
        beat: list[int | None] = []
        fields: list[dict[str, Any] | None] = []
        done = 0
        for valid, ready, payload in self.seen:
            beat.append(done if valid else None)
            bits = f"{payload:0{self.port.width}b}"
            fields.append(unpack(self.port, bits) if valid else None)
            done += valid and ready
        return StreamWave(
            self.port,
            tuple(valid for valid, _, _ in self.seen),
            tuple(ready for _, ready, _ in self.seen),
            tuple(beat),
            tuple(fields),
        )


def record(component: Any, case: Case, *, hold_cycles: int = 0) -> Recording:
    """Simulate a case from reset and keep every stream in every cycle.

    Sources offer their beats without a gap; sinks are ready, but hold each output's first beat
    back for `hold_cycles` cycles.

    Parameters
    ----------
    component : an Amaranth component with streams and plain inputs
    case : what goes in and must come out
    hold_cycles : cycles for which the first beat of each output waits, at least 0

    Raises
    ------
    ValueError
        If a beat does not fit its port.
    SimulationError
        If an output differs from what the case expects, or nothing moves any more.
    """
    ports = ports_of(component)
    ends = [
        _End(
            port,
            getattr(component, port.name),
            (case.stimulus if port.direction == "in" else case.expected)[port.name],
            hold_cycles,
        )
        for port in ports
        if port.kind == "stream"
    ]
    quiet_limit = QUIET_CYCLES + 4 * sum(len(end.beats) for end in ends)

    async def bench(ctx: Any) -> None:
        for port in ports:
            if port.kind == "signal" and port.direction == "in":
                value = pack(port, {port.name: case.signals[port.name]})
                ctx.set(Value.cast(getattr(component, port.name)), value)
        cycle = quiet = 0
        tail = TAIL_CYCLES
        while tail and quiet <= quiet_limit:
            tail -= all(end.complete for end in ends)
            for end in ends:
                end.drive(ctx, cycle)
            for end in ends:
                end.hold(ctx)
            moved = [end for end in ends if end.sample(ctx)]
            for end in moved:
                end.done += 1
            cycle += 1
            quiet = 0 if moved else quiet + 1
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    recording = Recording(case.name, tuple(end.wave() for end in ends))
    _check(recording, case)
    return recording


def _check(recording: Recording, case: Case) -> None:
    problems = []
    for wave in recording.streams:
        if wave.port.direction == "out":
            got = [wave.fields[cycle] for cycle in wave.transfers]
            problems += mismatches(wave.port, case.expected[wave.port.name], got)  # type: ignore[arg-type]
        elif len(wave.transfers) < len(case.stimulus[wave.port.name]):
            problems.append(f"port {wave.port.name} took {len(wave.transfers)} beats")
    if problems:
        raise SimulationError(f"{case.name}: {problems[0]}")
