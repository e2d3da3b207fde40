"""No step of an accelerator begins while a line, a tile, a piece or a lane of another is under way.

The accelerator is the real one up to the ports of its buffers, lanes and engines: sequencer,
scans, loader, trees of registers, and what waits for them. Buffers give anything; a lane or an
engine works for any time from its start on; main memory answers every request once, at any time.
"""

import re

import pytest
from accelerator import COMPUTE, COPY, DRAIN, FILL, READ, SPEC, WRITE, give, least, steps
from amaranth.hdl import Cat, Module, Signal
from insides import insides
from mutations import mutated_class
from proofs import Claims, Refuted
from scoreboard import number_of

from hwgen.units.accelerator import rtl as accelerator
from hwgen.units.accelerator.rtl import Accelerator
from hwgen.units.buffer import cost as buffer_cost
from hwgen.units.buffer.rtl import Buffer
from hwgen.units.lane.rtl import Lane
from hwgen.units.norm_engine.rtl import NormEngine
from hwgen.units.processing_element import rtl as processing_element
from hwgen.units.softmax_engine.rtl import SoftmaxEngine

NEVER = "no step begins after lines came"
"""Not so: what is claimed does not hold because nothing ever happens."""


def idle(original, made):
    """Return a unit with the ports of another, which works until the surroundings let it end."""
    class Idle(original):
        def elaborate(self, platform):
            m = Module()
            self.working, self.ends = Signal(name="working"), Signal(name="ends")
            m.d.comb += self.busy.eq(self.step.start | self.working)
            m.d.sync += self.working.eq(self.busy & ~self.ends)
            made.append(self)
            return m
    return Idle


class Stored(Buffer):
    """A buffer that gives anything."""

    def elaborate(self, platform):
        return Module()


def machine_claims(monkeypatch, spec=SPEC, only=None, program=None, original=Accelerator):
    """What is claimed of an accelerator, whatever its program, or for one."""
    claims, units = Claims(only), []
    monkeypatch.setattr(accelerator, "Buffer", Stored)
    for unit in (Lane, SoftmaxEngine, NormEngine):
        monkeypatch.setattr(processing_element, unit.__name__, idle(unit, units))
    dut = original(spec)
    fragment, signals = insides(dut)
    claims.m.submodules.machine = fragment
    buffers = dut._activations, dut._weights
    claims.anything(*(unit.ends for unit in units), *(
        output for buffer in buffers for output in (buffer.overflow, buffer.out_of_range)))
    if program is None:
        claims.anything(dut.program.payload, dut.program.valid)
    else:
        give(claims, dut.program, program)
    begins = dut.issue | dut.ended

    activations, weights = buffers
    entering = [activations.read.enable & signals["left.active"],
                activations.read.enable & ~signals["left.active"], weights.read.enable,
                # Sums that come back behind the lines.
                signals["fill.active"] & ~activations.read.enable]
    under_way = _registers(signals, r"(left|right)_valid_\d+|element\.(left|right)_\d+_0_valid")
    leaving = _registers(signals, rf"element\.(left|right)_{spec.levels}_0_valid")
    _nothing_under_way(claims, "line", begins, entering, under_way, leaving,
                       [signals[f"{scan}.active"] for scan in ("left", "right", "fill")])

    request, store = signals["pieces.active"], activations.store.enable
    pieces = _registers(signals, r"piece_arrives_\d+")
    _nothing_under_way(claims, "piece", begins, [request], pieces, [store], [request])
    drain = signals["drain.active"]
    _nothing_under_way(claims, "sum", begins, [drain], _registers(signals, r"drain_arrives_\d+"),
                       [activations.words.write], [drain])
    # What is stored, or flushed, is written some cycles later.
    writing = [store | activations.words.write | activations.flush]
    for _ in range(buffer_cost.store_latency(spec.activations)):
        writing.append(claims.past(writing[-1]))
    claims.always("no word is written when a step begins", ~begins | ~Cat(writing).any())

    _claim_loader(claims, dut, signals, begins)

    tiles = _registers(signals, r"element\.(place|clear)_\d+_0_valid")
    claims.always("no lane waits for its tile when a step begins",
                  ~begins | ~Cat(signals["places.active"], *tiles).any())
    starts = _registers(signals, r"element\.start_\d+_0_valid")
    claims.always("nothing works when a step begins",
                  ~begins | ~Cat(*starts, *(unit.busy for unit in units)).any())

    was_read = Signal()
    claims.m.d.sync += was_read.eq(was_read | leaving[0])
    if only == NEVER:
        claims.always(NEVER, ~was_read | ~dut.issue)
    return claims


def _claim_loader(claims, dut, signals, begins):
    """Claim that nothing of an image is under way when a step begins."""
    claims.anything(dut.memory_data.as_value())
    waiting = Signal(16, name="words_waited_for")
    claims.assume(~dut.memory_data.valid | (waiting != 0))
    claims.m.d.sync += waiting.eq(waiting + dut.memory.enable - dut.memory_data.valid)
    left, ending = signals["loader.masks_left"], signals["loader.ending"]
    claims.always("no word is waited for when a step begins", ~begins | (waiting == 0))
    claims.always("no slot is left when a step begins",
                  ~begins | ~(signals["loader.copying"] | signals["loader.slots_left"].any()))
    claims.always("nothing is written into the weight buffer when a step begins", ~begins | ~Cat(
        left.any(), signals["loader.counted"], signals["loader.arrived"]).any())
    claims.always("every word that is waited for is counted",
                  waiting == signals["loader.under_way"])
    claims.always("the loader waits for its last mask", ~left.any() | (left < ending))
    claims.always("the loader waits for its last write", ending.any() | ~Cat(
        signals["loader.counted"], signals["loader.arrived"]).any())


def _registers(signals, pattern):
    """All registers of a name; at least one."""
    found = [signal for name, signal in signals.items() if re.fullmatch(pattern, name)]
    assert found, pattern
    return found


def _nothing_under_way(claims, name, begins, entering, inside, leaving, active):
    """Claim that all that has entered has left when a step begins, and that no more will enter."""
    on_the_way = Signal(6, name=f"{name}s_on_the_way")
    count = [number_of([(value, value) for value in values])
             for values in (entering, inside, leaving)]
    claims.m.d.sync += on_the_way.eq(on_the_way + count[0] - count[2])
    claims.always(f"no {name} is under way when a step begins", ~begins | (on_the_way == 0))
    claims.always(f"no {name} is asked for when a step begins", ~begins | ~Cat(active).any())
    claims.always(f"every {name} under way is in a register", on_the_way == count[1])


@pytest.mark.parametrize("lanes", [4, 5])
def test_no_step_begins_before_its_operands_are_there(lanes, monkeypatch, tmp_path):
    # One and two levels of registers. As many cycles as a line, a start or a piece is under way.
    spec = least(lanes)
    depth = 2 * spec.levels + buffer_cost.read_latency(spec.activations) + 5
    machine_claims(monkeypatch, spec).prove(tmp_path, depth)


def test_steps_begin(monkeypatch, tmp_path):
    with pytest.raises(Refuted, match=NEVER):
        machine_claims(monkeypatch, SPEC, NEVER, steps(READ)).try_out(tmp_path, 60)


ACTIVE = ("elaborate", '2 * spec.levels, "active_before"', '0, "active_before"')
LINES = ("_read", 'latency, "lines_before"', '0, "lines_before"')
READING = ("elaborate", " | reading", "")


@pytest.mark.parametrize(("mutations", "fields", "claim"), [
    # Either of them alone outlasts what is under way: both are there for the cycles of a step.
    ((ACTIVE, LINES), READ, "no line is under way when a step begins"),
    ((READING,), READ, "no line is asked for when a step begins"),
    ((("elaborate", " | element.busy", ""),), COMPUTE, "nothing works when a step begins"),
    ((("elaborate", " | writing.storing", ""),), WRITE, "no word is written when a step begins"),
    ((("_write", "asking=asking, storing=storing", "asking=0, storing=storing & 0"),), WRITE,
     "no piece is under way when a step begins"),
    ((("_write", "asking = scan.active | drain.active", "asking = scan.active"),), DRAIN,
     "no sum is under way when a step begins"),
    ((("_read", " | fill.active", ""),), FILL, "no line is asked for when a step begins"),
    ((("elaborate", "| loading)", ")"),), COPY, "no word is waited for when a step begins"),
])
def test_a_machine_that_does_not_wait_is_refuted(
        mutations, fields, claim, monkeypatch, tmp_path):
    wrong = Accelerator
    for method, right, instead in mutations:
        wrong = mutated_class(wrong, right, instead, method)
    claims = machine_claims(monkeypatch, SPEC, claim, steps(fields), wrong)
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        claims.try_out(tmp_path, 60)
