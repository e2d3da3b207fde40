"""Queues and register slices are equal to naive queues."""

import pytest
from amaranth.hdl import Const, Mux, Signal
from insides import insides, memory_of, stored
from mutations import mutated_class
from proofs import Claims, Refuted

from hwgen.lib.flow import Queue
from hwgen.lib.pipeline import OutputRegister, RegisterSlice, Skid

BITS = 2
WRITTEN_ONLY = "no address is read in the cycle in which it is written"


class NaiveQueue:
    """A list that moves up when its first entry leaves.

    Parameters
    ----------
    m : the module that gets its registers
    depth : entries
    push, value, pop : what happens in this cycle
    """

    def __init__(self, m, depth, push, value, pop):
        self.count = Signal(range(depth + 1), name="naive_count")
        self.entries = [Signal(BITS, name=f"naive_{k}") for k in range(depth)]
        m.d.sync += self.count.eq(self.count + push - pop)
        for k, entry in enumerate(self.entries):
            moved = Mux(pop, self.entries[k + 1] if k + 1 < depth else 0, entry)
            m.d.sync += entry.eq(Mux(push & (self.count - pop == k), value, moved))


def queue_claims(queue_class, depth, only=None):
    """What is claimed of a queue into which nobody writes when it is full."""
    claims = Claims(only)
    m, queue = claims.m, queue_class(BITS, depth)
    fragment, signals = insides(queue)
    m.submodules.queue = fragment
    claims.anything(queue.write, queue.w_data, queue.read)
    pop = queue.read & queue.ready
    naive = NaiveQueue(m, depth, queue.write, queue.w_data, pop)
    claims.assume(~queue.write | (naive.count != depth))

    claims.always("the first entry is the naive one", ~queue.ready | (
        (naive.count != 0) & (queue.r_data == naive.entries[0])))
    # An entry can be read two cycles after the cycle of its write.
    claims.always("an entry is there in time",
                  queue.ready | (claims.past(naive.count) - claims.past(pop) == 0))
    write, read = (signals[f"{side}_enable"] for side in ("write", "read"))
    put, get = (signals[f"{side}_address"] for side in ("write", "read"))
    claims.always(WRITTEN_ONLY, ~write | ~read | (put != get))

    locate_entries(claims, naive, signals, memory_of(fragment), queue)
    claims.some_time("it is full", naive.count == depth)
    was_full = Signal()
    m.d.sync += was_full.eq(was_full | (naive.count == depth))
    claims.some_time("it is empty after it was full", was_full & (naive.count == 0))
    return claims


def locate_entries(claims, naive, signals, memory, queue):
    """Claim where the entries are, which makes the other claims inductive."""
    level, words = signals["level"], queue.depth - 1
    put, get = signals["write_address"], signals["read_address"]
    claims.always("entries are in the memory or at its output", naive.count == level + queue.ready)
    claims.always("there are not too many", naive.count <= queue.depth)
    claims.always("what is not at the output has only just come", queue.ready | (level <= 1))
    claims.always("addresses are in range", (put < words) & (get < words))
    turned = get + level
    claims.always("the level is between the addresses",
                  put == Mux(turned >= words, turned - words, turned))
    for k in range(words):
        place = get + k
        word = stored(claims.m, memory, Mux(place >= words, place - words, place))
        ahead = Mux(queue.ready, naive.entries[k + 1], naive.entries[k])
        claims.always(f"word {k} of the memory is the naive one", (k >= level) | (word == ahead))


@pytest.mark.parametrize("depth", [4, 5])
def test_a_queue_is_a_queue(depth, tmp_path):
    claims = queue_claims(Queue, depth)
    claims.prove(tmp_path)
    claims.reach(tmp_path, 12)


@pytest.mark.parametrize(("right", "wrong", "claim"), [
    ("following == stored - 1", "following == stored - 2", WRITTEN_ONLY),
    ("self.read | ~self.ready", "self.read", "an entry is there in time"),
    ("self.read | ~self.ready", "1", "the first entry is the naive one"),
    ("fetch | (self.ready & ~self.read)", "fetch | self.ready", "the first entry is the naive one"),
    ("(level != 0) &", "(level + self.write != 0) &", WRITTEN_ONLY),
])
def test_a_wrong_queue_is_refuted(right, wrong, claim, tmp_path):
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        queue_claims(mutated_class(Queue, right, wrong), 4, claim).prove(tmp_path, 12)


def buffer_claims(buffer_class, depth, empty_valid=0, only=None):
    """What is claimed of a buffer of `depth` beats.

    Parameters
    ----------
    empty_valid : 1 where what comes passes an empty buffer at once
    """
    claims = Claims(only)
    m, dut = claims.m, buffer_class(BITS)
    fragment, signals = insides(dut)
    m.submodules.buffer = fragment
    claims.anything(dut.i.valid, dut.i.payload, dut.o.ready)
    push, pop = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    naive = NaiveQueue(m, depth, push, dut.i.payload, pop)
    empty = naive.count == 0
    passing = empty & dut.i.valid if empty_valid else Const(0, 1)
    claims.always("there is not one too many", naive.count <= depth)
    claims.always("a beat is there if one came", dut.o.valid == (~empty | passing))
    claims.always("the beat is the naive one", ~dut.o.valid | (
        dut.o.payload == Mux(passing, dut.i.payload, naive.entries[0])))
    return claims, dut, naive, signals


def reach_full_and_empty(claims, naive, depth):
    """Claim that it fills and empties."""
    claims.some_time("it is full", naive.count == depth)
    was_full = Signal()
    claims.m.d.sync += was_full.eq(was_full | (naive.count == depth))
    claims.some_time("it is empty after it was full", was_full & (naive.count == 0))


def skid_claims(skid_class, only=None):
    """What is claimed of a skid."""
    claims, dut, naive, signals = buffer_claims(skid_class, 1, 1, only)
    claims.always("there is room for one", dut.i.ready == (naive.count != 1))
    claims.always("the waiting beat is the naive one",
                  dut.i.ready | (signals["waiting"] == naive.entries[0]))
    reach_full_and_empty(claims, naive, 1)
    return claims


def register_claims(register_class, only=None):
    """What is claimed of an output register."""
    claims, dut, naive, _ = buffer_claims(register_class, 1, 0, only)
    claims.always("there is room unless the sink stops",
                  dut.i.ready == ((naive.count != 1) | dut.o.ready))
    reach_full_and_empty(claims, naive, 1)
    return claims


def slice_claims(slice_class, only=None):
    """What is claimed of a register slice."""
    claims, dut, naive, signals = buffer_claims(slice_class, 2, 0, only)
    claims.always("there is room for two", dut.i.ready == (naive.count != 2))
    claims.always("the waiting beat is the naive one",
                  dut.i.ready | (signals["skid.waiting"] == naive.entries[1]))
    reach_full_and_empty(claims, naive, 2)
    return claims


@pytest.mark.parametrize("claims", [
    lambda: skid_claims(Skid), lambda: register_claims(OutputRegister),
    lambda: slice_claims(RegisterSlice)], ids=["skid", "output register", "slice"])
def test_a_buffer_is_a_queue_of_its_entries(claims, tmp_path):
    claimed = claims()
    claimed.prove(tmp_path)
    claimed.reach(tmp_path, 8)


@pytest.mark.parametrize(("right", "wrong", "claim"), [
    ("self.i.valid | ~ready", "self.i.valid", "a beat is there if one came"),
    ("Mux(ready, incoming, waiting)", "incoming", "the beat is the naive one"),
    ("& ready & ~self.o.ready", "& ~self.o.ready", "the waiting beat is the naive one"),
    ("self.o.ready | ~self.o.valid", "self.o.ready", "there is room for one"),
])
def test_a_wrong_skid_is_refuted(right, wrong, claim, tmp_path):
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        skid_claims(mutated_class(Skid, right, wrong), claim).prove(tmp_path, 8)


@pytest.mark.parametrize(("right", "wrong", "claim"), [
    ("self.o.ready | ~valid", "self.o.ready", "there is room unless the sink stops"),
    ("valid.eq(self.i.valid)", "valid.eq(1)", "a beat is there if one came"),
    ("with m.If(self.i.valid):", "with m.If(self.o.ready):", "the beat is the naive one"),
])
def test_a_wrong_output_register_is_refuted(right, wrong, claim, tmp_path):
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        register_claims(mutated_class(OutputRegister, right, wrong), claim).prove(tmp_path, 8)
