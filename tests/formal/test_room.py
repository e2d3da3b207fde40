"""Who reserves an entry before a write finds room in the queue, however late the write comes."""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from insides import insides
from mutations import mutated
from proofs import Claims, Refuted

from hwgen.lib.flow import room


class Reservation(wiring.Component):
    """The counter of a queue's reserved entries, and whether there is one more."""

    def __init__(self, depth, room):
        self._depth, self._room = depth, room
        super().__init__({"reserve": In(1), "read": In(1), "ready": In(1), "free": Out(1)})

    def elaborate(self, platform):
        m = Module()
        queue = SimpleNamespace(depth=self._depth, read=self.read, ready=self.ready)
        m.d.comb += self.free.eq(self._room(m, queue, self.reserve, "queue"))
        return m


def claims_of(room, depth, only=None):
    """What is claimed of a queue that is written any time after each reservation.

    Of the queue itself it is known that an entry is ready only if one is in it, and that it has
    room for `depth`: what test_queues.py claims.
    """
    claims = Claims(only)
    m, unit = claims.m, Reservation(depth, room)
    fragment, signals = insides(unit)
    m.submodules.reservation = fragment
    write = Signal()
    claims.anything(unit.reserve, unit.read, unit.ready, write)
    held, under_way = Signal(4, name="held"), Signal(4, name="under_way")
    m.d.sync += [
        held.eq(held + write - (unit.read & unit.ready)),
        under_way.eq(under_way + unit.reserve - write),
    ]
    claims.assume(~unit.reserve | unit.free)
    claims.assume(~write | (under_way != 0))
    claims.assume(~unit.ready | (held != 0))
    claims.always("a write never meets a full queue", ~write | (held != depth))
    claims.always("no more is reserved than the queue is deep", held + under_way <= depth)
    claims.always("what is not reserved is free", unit.free == (held + under_way != depth))
    claims.always("the counter is right", signals["queue_reserved"] == held + under_way)
    claims.some_time("all is reserved and nothing has come", under_way == depth)
    claims.some_time("it is full, and free again",
                     (claims.past(held) == depth) & (held != depth) & unit.reserve)
    return claims


@pytest.mark.parametrize("depth", [4, 7])
def test_room_is_kept(depth, tmp_path):
    claims = claims_of(room, depth)
    claims.prove(tmp_path)
    claims.reach(tmp_path, 3 * depth)


@pytest.mark.parametrize(("right", "wrong", "claim"), [
    ("!= queue.depth", "!= queue.depth + 1", "no more is reserved than the queue is deep"),
    ("!= queue.depth", "!= queue.depth + 1", "a write never meets a full queue"),
    ("!= queue.depth", "!= queue.depth - 1", "what is not reserved is free"),
    ("queue.read & queue.ready", "queue.read", "what is not reserved is free"),
    ("reserved + reserve", "reserved", "a write never meets a full queue"),
])
def test_wrong_room_is_refuted(right, wrong, claim, tmp_path):
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        claims_of(mutated(room, right, wrong), 4, claim).prove(tmp_path, 12)
