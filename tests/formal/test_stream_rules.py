"""The rules of streams, on every port of every unit, whatever the surroundings do."""

import pytest
from amaranth.hdl import Const, Value
from mutations import mutated_class
from proofs import INDUCTION, REACHABILITY, Claims, Refuted, Unreached
from units import LEAST, UNITS, component, ports

from hwgen.lib.flow import Queue
from hwgen.lib.pipeline import OutputRegister

DEPTH = 60
"""More cycles than any unit of the least size takes from its first beat to its first result."""


def stream_claims(unit, only=None):
    """Claim that no output withdraws or changes a beat that waits.

    Nothing is assumed of the inputs, not even that they keep the rules themselves, nor that plain
    inputs are steady.
    """
    claims = Claims(only)
    claims.m.submodules.unit = unit
    streams_in, streams_out, signals = ports(unit)
    for port in streams_in.values():
        claims.anything(port.payload, port.valid)
    claims.anything(*signals.values(), *(port.ready for port in streams_out.values()))
    for name, port in streams_out.items():
        waited = claims.past(port.valid & ~port.ready)
        payload = Value.cast(port.payload)
        claims.always(f"{name} keeps valid", ~waited | port.valid)
        claims.always(f"{name} keeps its payload", ~waited | (payload == claims.past(payload)))
    return claims


def stalls(unit):
    """Claim that a beat comes to wait at each output, and leaves, where beats keep coming in."""
    claims = Claims()
    claims.m.submodules.unit = unit
    streams_in, streams_out, _ = ports(unit)
    for port in streams_in.values():
        payload = Value.cast(port.payload)
        claims.m.d.comb += [port.valid.eq(1), payload.eq(~0)]
    for name, port in streams_out.items():
        waited = claims.past(port.valid & ~port.ready)
        claims.m.d.comb += port.ready.eq(waited)
        claims.some_time(f"{name} stalls and goes on", waited & port.valid & port.ready)
    return claims


ENGINES = {"pre_sparsity": REACHABILITY}
"""Where an output's beat depends on relations among registers that not every state keeps, the
inductive invariant is searched for."""


@pytest.mark.parametrize("name", UNITS)
def test_outputs_keep_the_rules(name, tmp_path):
    stream_claims(component(name)).prove(tmp_path, engine=ENGINES.get(name, INDUCTION))


@pytest.mark.parametrize("name", UNITS)
def test_outputs_stall(name, tmp_path):
    stalls(component(name)).reach(tmp_path, DEPTH)


@pytest.mark.parametrize(("right", "wrong", "claim"), [
    ("with m.If(self.i.ready):", "with m.If(1):", "o keeps its payload"),
    ("self.o.valid.eq(valid)", "self.o.valid.eq(valid & Value.cast(self.i.payload)[0])",
     "o keeps valid"),
])
@pytest.mark.parametrize("name", ["dynatran", "relu"])
def test_units_with_a_wrong_register_are_refuted(name, right, wrong, claim, tmp_path, monkeypatch):
    wrong_register = mutated_class(OutputRegister, right, wrong)
    monkeypatch.setattr("hwgen.lib.pipeline.OutputRegister", wrong_register)
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        stream_claims(component(name), claim).prove(tmp_path, 10)


def test_a_fifo_with_a_wrong_queue_is_refuted(tmp_path, monkeypatch):
    wrong_queue = mutated_class(Queue, "fetch | (self.ready & ~self.read)", "fetch")
    monkeypatch.setattr("hwgen.units.fifo.rtl.Queue", wrong_queue)
    with pytest.raises(Refuted, match="o keeps valid"):
        stream_claims(component("fifo")).prove(tmp_path)


def test_an_output_that_never_stalls_is_found(tmp_path):
    claims = Claims()
    claims.some_time("it stalls", claims.past(Const(0, 1)))
    with pytest.raises(Unreached, match="it stalls"):
        claims.reach(tmp_path, 4)


def test_a_unit_without_parameters_here_fails(monkeypatch):
    monkeypatch.delitem(LEAST, "softmax")
    with pytest.raises(KeyError, match="softmax has RTL but no parameters"):
        component("softmax")
