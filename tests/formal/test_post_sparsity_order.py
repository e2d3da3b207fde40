"""post_sparsity neither loses nor duplicates nor reorders anything, and keeps tiles apart."""

from types import SimpleNamespace

import pytest
from amaranth.hdl import Cat, Const, Mux, Signal
from amaranth.lib import data
from insides import insides
from mutations import mutated_class
from proofs import Claims, Refuted
from scoreboard import follow

from hwgen.units.post_sparsity.rtl import PostSparsity

SPEC = SimpleNamespace(bits=2, word=2, mask_word=3)
"""Narrower values than a design's: three that differ from zero are enough to tell them apart."""


def token(value, end=0):
    """A value, or the end of a tile."""
    return Cat(Const(end, 1), value)


END = token(Const(0, SPEC.bits), 1)


def chain(signals, name, layout, **collected):
    """Beats on the way to an output, oldest first, with whether each is there.

    The output register holds one; the one that is being collected is there even while it is empty.
    """
    register = {part: signals[f"{name}_register.{part}"] for part in ("valid", "payload")}
    return ((register["valid"], data.View(layout, register["payload"])),
            (Const(1, 1), SimpleNamespace(**collected)))


def taken(signals):
    """What leaves the skid, whether it is taken, whether it ends a tile.

    That the skid hands on what comes is proven in test_queues.py.
    """
    return signals["take"], signals["incoming"], signals["ends"]


def post_claims(unit_class=PostSparsity, only=None):
    """Follow the values that are not zero, the bits of the masks, and the ends of tiles."""
    claims = Claims(only)
    unit = unit_class(SPEC)
    fragment, signals = insides(unit)
    claims.m.submodules.unit = fragment
    claims.anything(unit.i.valid, unit.i.payload, unit.o_value.ready, unit.o_mask.ready)
    values = claim_values(claims, unit, signals)
    masks = claim_masks(claims, unit, signals)
    claims.some_time("a chosen value passes", values & ~masks)
    claims.some_time("a chosen bit passes", masks & ~values)
    claims.some_time("the values stall and the mask goes on", claims.past(
        unit.o_value.valid & ~unit.o_value.ready) & unit.o_mask.valid & unit.o_mask.ready)
    return claims


def claim_values(claims, unit, signals):
    """Claim what is so of values; return whether the one that is followed has left."""
    o = unit.o_value
    (take, value, last), give = taken(signals), o.valid & o.ready

    def tokens(present, beat):
        return [*((present & (beat.count > k), token(beat.value[k])) for k in range(SPEC.word)),
                (present & beat.last, END)]

    beats = chain(signals, "value", o.payload.shape(),
                  value=[signals[f"word_{k}"] for k in range(SPEC.word)],
                  count=signals["word_count"], last=signals["word_ended"])
    passed = follow(
        claims, "values", entering=[(take & (value != 0), token(value)), (take & last, END)],
        inside=[entry for present, beat in beats for entry in tokens(present, beat)],
        leaving=tokens(give, o.p))

    closed = Signal(init=1, name="closed")
    with claims.m.If(give):
        claims.m.d.sync += closed.eq(o.p.last)
    before = closed
    for number, (present, beat) in enumerate(beats):
        claims.always(f"the count of beat {number} is in range",
                      ~present | (beat.count <= SPEC.word))
        claims.always(f"beat {number} is empty only after the end of a tile",
                      ~present | (beat.count != 0) | before)
        before = Mux(present, beat.last, before)
    for number, (present, beat) in enumerate(beats[:1]):
        claims.always(f"beat {number} is full or the end of a tile",
                      ~present | beat.last | (beat.count == SPEC.word))
        claims.always(f"beat {number} is zero behind its values", ~(present & Cat(
            (beat.count <= k) & (beat.value[k] != 0) for k in range(SPEC.word)).any()))
    return passed


def claim_masks(claims, unit, signals):
    """Claim what is so of masks; return whether the bit that is followed has left."""
    o = unit.o_mask
    (take, value, last), give = taken(signals), o.valid & o.ready
    count, ended = signals["mask_count"], signals["mask_ended"]

    def tokens(present, beat):
        return [*((present, token(beat.zero_mask[k])) for k in range(SPEC.mask_word)),
                (present & beat.last, END)]

    *slots, _ = chain(signals, "mask", o.payload.shape())
    collected = [((count > k) | ended, token(Mux(count > k, signals[f"mask_{k}"], 0)))
                 for k in range(SPEC.mask_word)]
    # The last beat of a tile is filled up.
    position = Signal(range(SPEC.mask_word), name="position")
    full = position == SPEC.mask_word - 1
    with claims.m.If(take):
        claims.m.d.sync += position.eq(Mux(last | full, 0, position + 1))
    fill = [(take & last & (position + k < SPEC.mask_word), token(Const(0, 1)))
            for k in range(1, SPEC.mask_word)]
    claims.always("the position is that of the bit that comes", position == Mux(
        ended | (count == SPEC.mask_word), 0, count))
    claims.always("the count of bits is in range", count <= SPEC.mask_word)
    return follow(
        claims, "masks",
        entering=[(take, token(value != 0)), *fill, (take & last, END)],
        inside=[entry for present, beat in slots for entry in tokens(present, beat)]
        + [*collected, (ended, END)],
        leaving=tokens(give, o.p))


def test_nothing_is_lost_or_duplicated(tmp_path):
    claims = post_claims()
    claims.prove(tmp_path)
    claims.reach(tmp_path, 10)


ORDER = "what leaves has entered, in this order"


@pytest.mark.parametrize(("method", "right", "wrong", "claim"), [
    ("values", "(full & found)", "full", "beat 0 is empty only after the end of a tile"),
    ("values", "Mux(leave, 0, count)", "count", f"values: {ORDER}"),
    ("values", "~(full | ended)", "~full", f"values: {ORDER}"),
    ("values", "found & (base == k)", "found & (count == k)", f"values: {ORDER}"),
    ("values", "Mux(count > k, register, 0)", "register", "beat 0 is zero behind its values"),
    ("values", "ended | (full & found)", "ended | found", "beat 0 is full or the end of a tile"),
    ("mask", "bit & (count > k)", "bit", f"masks: {ORDER}"),
    ("mask", "ended | (count == spec.mask_word)", "ended", f"masks: {ORDER}"),
    ("mask", "o.ready | ~o.valid", "1", f"masks: {ORDER}"),
])
def test_what_is_wrong_is_refuted(method, right, wrong, claim, tmp_path):
    unit = mutated_class(PostSparsity, right, wrong, {
        "values": "_collect_values", "mask": "_collect_mask"}[method])
    with pytest.raises(Refuted, match=f"{claim}\nfrom reset"):
        post_claims(unit, claim).prove(tmp_path, 10)
