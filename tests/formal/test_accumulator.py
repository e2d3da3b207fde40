"""No sum overflows in a MAC lane while dot products keep to the length that its spec allows."""

import pytest
from amaranth.hdl import Mux, Signal, signed
from mutations import mutated_class
from proofs import Claims, Refuted

from hwgen.lib.pipeline import Skid
from hwgen.units.mac_lane import cost
from hwgen.units.mac_lane.rtl import MacLane
from hwgen.units.mac_lane.spec import MacLaneSpec

BITS = 4
SPARE = 4
"""Bits by which the exact sum is wider than the accumulator."""
EXACT = "the accumulator is the exact sum"


def lane_of(macs, beats):
    """Return the spec for dot products of so many beats."""
    return MacLaneSpec(macs, BITS, 2 * BITS + (macs * beats - 1).bit_length(), "relu")


def lane_claims(spec, beats, only=None, ends=False):
    """Claim that results are the exact sums of dot products of at most so many beats.

    The sink never stalls and the source rests at most a cycle at a time: then all that is in the
    lane has come in the last cycles, and what it holds follows from its inputs by induction over
    the beats, whatever its stages are.

    Parameters
    ----------
    ends : let one factor of each product be the least or the largest number: a sum is linear in
        each factor, so that its own least and largest are there, and the proof of two multipliers
        becomes one that a solver finishes
    """
    claims = Claims(only)
    m, lane = claims.m, MacLane(spec)
    m.submodules.lane = lane
    beat = lane.i.p
    claims.anything(lane.i.valid, lane.i.payload)
    m.d.comb += lane.o.ready.eq(1)
    claims.assume(lane.i.valid | claims.past(lane.i.valid, init=1))

    if ends:
        for factor in beat.right:
            claims.assume((factor == -(1 << (BITS - 1))) | (factor == (1 << (BITS - 1)) - 1))
    # A bias has one bit less than the accumulator; what no element uses is zero.
    bias = 1 << (spec.accumulator_bits - 2)
    claims.assume((beat.initial >= -bias) & (beat.initial < bias))
    count = Signal(range(beats), name="beats_so_far")
    take = lane.i.valid & lane.i.ready
    claims.assume((count != beats - 1) | beat.last)
    exact = Signal(signed(spec.accumulator_bits + SPARE), name="exact")
    total = Signal.like(exact, name="total")
    m.d.comb += exact.eq(Mux(count == 0, beat.initial, total)
                         + sum(beat.left[k] * beat.right[k] for k in range(spec.macs)))
    with m.If(take):
        m.d.sync += [count.eq(Mux(beat.last, 0, count + 1)), total.eq(exact)]

    leaves, expected = take & beat.last, exact
    for _ in range(cost.latency(spec)):
        leaves, expected = claims.past(leaves), claims.past(expected)
    claims.always("the lane takes a beat in every cycle", lane.i.ready)
    claims.always("a result leaves in time", lane.o.valid == leaves)
    claims.always(EXACT,
                  ~lane.o.valid | (lane.o.p.accumulator == expected))
    claims.some_time("the accumulator is as large as it can be", lane.o.valid & (
        lane.o.p.accumulator == (1 << (spec.accumulator_bits - 1)) - 1))
    return claims


def depth(spec, beats):
    """Cycles after which nothing is in the lane that was there before them."""
    return cost.latency(spec) + 2 * beats + 1


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("macs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_no_sum_overflows(macs, tmp_path):
    spec = lane_of(macs, beats=2)
    assert macs * 2 == 2 ** (spec.accumulator_bits - 2 * spec.bits)
    claims = lane_claims(spec, beats=2, ends=macs > 1)
    claims.prove(tmp_path, depth(spec, beats=2), timeout_seconds=1700)
    claims.reach(tmp_path, depth(spec, beats=2))


def test_a_proof_that_is_cut_off_refutes_nothing(tmp_path):
    spec = lane_of(macs=2, beats=2)
    with pytest.raises(TimeoutError, match="nothing is proven or refuted after 1 s"):
        lane_claims(spec, beats=2).prove(tmp_path, depth(spec, beats=2), timeout_seconds=1)


def test_one_element_more_overflows(tmp_path):
    spec = lane_of(macs=1, beats=2)
    with pytest.raises(Refuted, match=f"{EXACT}\nfrom reset"):
        lane_claims(spec, 3, EXACT).prove(tmp_path, depth(spec, 3))


def test_another_latency_is_refuted(tmp_path, monkeypatch):
    right = cost.latency
    monkeypatch.setattr(cost, "latency", lambda spec: right(spec) + 1)
    spec = lane_of(macs=1, beats=2)
    with pytest.raises(Refuted, match="a result leaves in time\nfrom reset"):
        lane_claims(spec, 2, "a result leaves in time").prove(tmp_path, depth(spec, 2))


def test_a_lane_that_stalls_by_itself_is_refuted(tmp_path, monkeypatch):
    wrong = mutated_class(Skid, "Signal(init=1)", "Signal()")
    monkeypatch.setattr("hwgen.lib.pipeline.Skid", wrong)
    claim = "the lane takes a beat in every cycle"
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        lane_claims(lane_of(1, 2), 2, claim).prove(tmp_path)
