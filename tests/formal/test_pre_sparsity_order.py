"""pre_sparsity neither loses nor duplicates nor reorders a pair, and keeps dot products apart.

Its insides are not named: property-directed reachability finds the invariants. As the values only
pass through, colours in their place are enough (Wolper, "Expressing interesting properties of
programs in propositional temporal logic", POPL 1986).
"""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Array, Const, Module, Mux, Signal, Value
from amaranth.lib import wiring
from proofs import REACHABILITY, Claims, Refuted

from hwgen.units.pre_sparsity.rtl import PreSparsity

BEFORE, CHOSEN, AFTER = 1, -1, -2
"""Colours of pairs, none of them zero."""

SPEC = SimpleNamespace(macs=1, bits=2, window=2, fifo_depth=1)
"""Narrower values than a design's: they hold a colour."""

WHOLE = "both values are of one pair"
ORDER = "the chosen pair leaves once, after those before it, before those after it"
APART = "a beat's pairs are of the dot product that has not ended"
TOGETHER = "both sides transfer together"
FULL = "a beat that ends no dot product is full"


WAITING = 6
"""Windows whose masks were taken and whose values were not: more than the unit takes ahead."""


def surrounded(unit, only=None):
    """Return claims about the unit, and what the masks that come bring.

    Values are chosen with their masks and wait for their turn: no window's values come before its
    masks were taken.

    Returns
    -------
    claims, whether both masks are taken, the pairs of the masks that wait to be taken (present,
    left and right value)
    """
    claims = Claims(only)
    m = claims.m
    m.submodules.unit = unit
    masks, sides = (unit.i_left_mask, unit.i_right_mask), (unit.i_left, unit.i_right)
    for stream in (*masks, *sides):
        claims.anything(stream.valid)
    claims.anything(masks[0].payload, masks[1].payload, unit.o.ready)
    claims.assume(masks[0].p.last == masks[1].p.last)
    width = SPEC.bits * SPEC.window
    coming = [Signal(width, name=f"coming_{side}") for side in ("left", "right")]
    claims.anything(*coming)
    pairs = []
    for k in range(SPEC.window):
        # The value at a position comes after as many as the mask has before it.
        values = [
            Array(value.word_select(j, SPEC.bits).as_signed() for j in range(k + 1))[
                sum((mask.p.zero_mask[j] for j in range(k)), Const(0, 1))]
            for mask, value in zip(masks, coming, strict=True)]
        pairs.append((masks[0].p.zero_mask[k] & masks[1].p.zero_mask[k], *values))
    take, give = Signal(name="take"), Signal(name="values_taken")
    m.d.comb += [
        take.eq(masks[0].valid & masks[0].ready),
        give.eq(sides[0].valid & sides[0].ready),
    ]
    claims.always(TOGETHER, (take == (masks[1].valid & masks[1].ready))
                  & (give == (sides[1].valid & sides[1].ready)))
    waiting = Signal(range(WAITING + 1), name="waiting")
    m.d.sync += waiting.eq(waiting + take - give)
    for mask in masks:
        claims.assume(~mask.valid | (waiting != WAITING))
    for number, side in enumerate(sides):
        claims.assume(~side.valid | (waiting != 0))
        line = [Signal(width, name=f"waiting_{number}_{place}") for place in range(WAITING)]
        m.d.comb += Value.cast(side.payload).eq(line[0])
        for place, register in enumerate(line):
            following = line[place + 1] if place + 1 < WAITING else 0
            m.d.sync += register.eq(Mux(
                take & (waiting - give == place), coming[number],
                Mux(give, following, register)))
    # A mask that waits stays as it is, and so do its values and those that are offered.
    for mask in masks:
        stalled = claims.past(mask.valid & ~mask.ready)
        claims.assume(~stalled | (mask.valid & (
            Value.cast(mask.payload) == claims.past(mask.payload))))
    for value in coming:
        claims.assume(~claims.past(masks[0].valid & ~take) | (value == claims.past(value)))
    for side in sides:
        claims.assume(~claims.past(side.valid & ~side.ready) | side.valid)
    return claims, take, pairs


def pair_claims(unit, only=None):
    """Claim that pairs leave as they came, each once and in order.

    The surroundings choose one of all pairs and colour those before it, itself and those after it.
    """
    claims, take, pairs = surrounded(unit, only)
    m, o = claims.m, unit.o
    give = o.valid & o.ready
    state = came = Signal(name="chosen_came")
    for present, left, right in pairs:
        claims.assume(~present | (left == right))
        claims.assume(~present | Mux(state, left == AFTER, (left == BEFORE) | (left == CHOSEN)))
        state = state | (present & (left == CHOSEN))
    with m.If(take):
        m.d.sync += came.eq(state)
    state = went = Signal(name="chosen_went")
    for k in range(SPEC.macs):
        left, right = o.p.left[k], o.p.right[k]
        claims.always(WHOLE, ~give | (left == right))
        claims.always(ORDER, ~give | (left == 0) | Mux(
            state, left == AFTER, (left == BEFORE) | (left == CHOSEN)))
        state = state | (left == CHOSEN)
    with m.If(give):
        m.d.sync += went.eq(state)
    claims.always(FULL, ~give | o.p.last | (o.p.left[SPEC.macs - 1] != 0))
    claims.some_time("the chosen pair passes", went)
    return claims


def end_claims(unit, only=None):
    """Claim that a beat's pairs are of one dot product, with as many ends before it as came.

    Pairs have the parity of their dot product as a colour.
    """
    claims, take, pairs = surrounded(unit, only)
    m, o = claims.m, unit.o
    came, went = Signal(name="parity_came"), Signal(name="parity_went")
    for present, left, right in pairs:
        claims.assume(~present | ((left == right) & (left == Mux(came, CHOSEN, BEFORE))))
    with m.If(take):
        m.d.sync += came.eq(came ^ unit.i_left_mask.p.last)
    give = o.valid & o.ready
    with m.If(give):
        m.d.sync += went.eq(went ^ o.p.last)
    for k in range(SPEC.macs):
        claims.always(APART, ~give | (o.p.left[k] == 0)
                      | (o.p.left[k] == Mux(went, CHOSEN, BEFORE)))
    claims.some_time("a second dot product passes", went & give & (o.p.left[0] != 0))
    return claims


class Faulty(wiring.Component):
    """A unit of which a signal is changed on its way.

    Parameters
    ----------
    unit : component
    change : called with the module, the unit and this component, whose ports are connected
    """

    def __init__(self, unit, change):
        self._unit, self._change = unit, change
        super().__init__(unit.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self._unit
        for name in ("i_left_mask", "i_right_mask", "i_left", "i_right"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(unit, name))
        wiring.connect(m, unit.o, wiring.flipped(self.o))
        self._change(m, unit, self)
        return m


def swaps(m, unit, outer):
    """Hand beats on in the wrong order: each but the first with the values of the one before."""
    before, some = Signal(unit.o.payload.shape()), Signal()
    with m.If(unit.o.valid & unit.o.ready):
        m.d.sync += [before.eq(unit.o.payload), some.eq(1)]
    with m.If(some):
        m.d.comb += [outer.o.p.left.eq(before.left), outer.o.p.right.eq(before.right)]


def halves(m, unit, outer):
    """Replace the right value of a pair."""
    right = unit.o.p.right[0]
    m.d.comb += outer.o.p.right[0].eq(Mux(right == AFTER, BEFORE, right))


def merges(m, unit, outer):
    """Forget the end of every dot product that has pairs."""
    m.d.comb += outer.o.p.last.eq(unit.o.p.last & (unit.o.p.left[0] == 0))


def empties(m, unit, outer):
    """Empty the beats that end nothing."""
    with m.If(~unit.o.p.last):
        m.d.comb += [outer.o.p.left.eq(0), outer.o.p.right.eq(0)]


def parts(m, unit, outer):
    """Take the right side's window without the left side's."""
    m.d.comb += outer.i_right.ready.eq(1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("claims_of", [pair_claims, end_claims])
def test_nothing_is_lost_or_duplicated(claims_of, tmp_path):
    claims_of(PreSparsity(SPEC)).prove(tmp_path, engine=REACHABILITY, timeout_seconds=1700)


@pytest.mark.parametrize("claims_of", [pair_claims, end_claims])
def test_the_cases_occur(claims_of, tmp_path):
    claims_of(PreSparsity(SPEC)).reach(tmp_path, 30)


@pytest.mark.parametrize(("claims_of", "change", "claim"), [
    (pair_claims, swaps, ORDER),
    (pair_claims, halves, WHOLE),
    (pair_claims, empties, FULL),
    (pair_claims, parts, TOGETHER),
    (end_claims, merges, APART),
])
def test_what_is_wrong_is_refuted(claims_of, change, claim, tmp_path):
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        claims_of(Faulty(PreSparsity(SPEC), change), claim).prove(tmp_path, 20)
