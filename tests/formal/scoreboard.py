"""Order, loss and duplication on the way through a unit, by following one token of any."""

from amaranth.hdl import Array, Cat, Const, Signal, Value


def number_of(tokens):
    """How many of a list of (present, value) are present."""
    return sum((present for present, _ in tokens), Const(0, 1))


def follow(claims, name, entering, inside, leaving):
    """Claim that the tokens that leave are those that have entered, each once and in order.

    The surroundings choose one of all tokens. How many are ahead of it is counted; when none is,
    what leaves is compared with it. As any token may be the chosen one, all are as they should be:
    a lost one would have its successor in its place, a duplicated one its predecessor.

    Parameters
    ----------
    claims : claims about the unit
    name : prefix of the claims
    entering, inside, leaving : lists of (present, value): tokens of this cycle, oldest first. What
        enters is inside from the next cycle on, what leaves is inside until this one

    Returns
    -------
    Whether the chosen token has left.
    """
    m = claims.m
    width = max(len(Value.cast(value)) for _, value in (*entering, *inside, *leaving))
    held, ahead = (Signal(range(len(inside) + 1), name=f"{name}_{part}")
                   for part in ("held", "ahead"))
    chosen = Signal(width, name=f"{name}_chosen")
    entered, left, choose, waits = (Signal(name=f"{name}_{part}")
                                    for part in ("entered", "left", "choose", "waits"))
    pick = Signal(range(max(2, len(entering))), name=f"{name}_pick")
    claims.anything(pick, choose)

    stay = Signal.like(held)
    m.d.comb += stay.eq(held - number_of(leaving))
    m.d.sync += held.eq(stay + number_of(entering))
    with m.If(~entered):
        m.d.sync += [
            entered.eq(choose & Array(present for present, _ in entering)[pick]),
            ahead.eq(stay + Array(number_of(entering[:k]) for k in range(len(entering)))[pick]),
            chosen.eq(Array(value for _, value in entering)[pick]),
        ]
    m.d.comb += waits.eq(entered & ~left)
    with m.If(waits):
        m.d.sync += [ahead.eq(ahead - number_of(leaving)), left.eq(ahead < number_of(leaving))]
    claims.always(f"{name}: what leaves has entered, in this order",
                  _has(leaving, ahead, chosen) | ~waits)
    claims.always(f"{name}: what is held is inside", held == number_of(inside))
    claims.always(f"{name}: what waits is inside", ~waits | (ahead < held))
    claims.always(f"{name}: it waits in its place", _has(inside, ahead, chosen) | ~waits)
    claims.watch(**{f"{name}_{part}": value for part, value in (
        ("number_held", held), ("number_ahead", ahead), ("token", chosen), ("is_waiting", waits))})
    return left


def _has(tokens, place, value):
    """Whether the token at a place, if there is one, has a value."""
    return ~Cat(present & (number_of(tokens[:k]) == place) & (Value.cast(own) != value)
                for k, (present, own) in enumerate(tokens)).any()
