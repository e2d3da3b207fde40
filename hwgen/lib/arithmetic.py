"""Rounding, saturation and addition cut into pipeline stages, and selection."""

from amaranth.hdl import Array, Cat, Const, Mux, Signal, Value, signed


def named(m, value, name):
    """Return a signal of this value: an expression would be written out for every use of a bit."""
    value = Value.cast(value)
    signal = Signal(value.shape(), name=name)
    m.d.comb += signal.eq(value)
    return signal


def chosen(values, selects):
    """Return the value whose select is 1, 0 if none is: AND and OR gates.

    Parameters
    ----------
    values : unsigned values
    selects : a bit for each value, at most one of them 1
    """
    total = Const(0, 1)
    for value, select in zip(values, selects, strict=True):
        total |= value & select.replicate(len(value))
    return total


def element(values, index):
    """Return the value of this index, 0 beyond the last; see `chosen`."""
    if len(values) == 1:
        return values[0]
    return chosen(values, [index == number for number in range(len(values))])


def shift_round(pipe, value, shift, bits, *, drop=0, **carried):
    """Divide by 2**(drop + shift), ties to even, saturate to `bits`: one stage and a rest.

    The stage shifts by whole bytes and keeps what the result may need; what falls out below is
    kept as one sticky bit, what stands above as whether the result saturates. The shift by 0 to 7
    bits, rounding and saturation are an expression of that stage, for the caller to register.

    Parameters
    ----------
    pipe : the pipeline that gets a stage
    value : signed value of the current stage
    shift : unsigned value of at least three bits, the same for all beats in flight
    bits : width of the result
    drop : constant part of the shift
    carried : values that pass along

    Returns
    -------
    (rounded, carried) : signed expression of `bits` bits, and the carried values' registers by name
    """
    # The guard bit, below the result's last bit, decides together with the sticky bit.
    wide = Cat(Const(0, 1), value)
    below, wide = wide[:drop].any(), wide[drop:]
    moved = _shifted(wide.as_signed(), shift[3:], 8, below)
    window = min(len(wide), 1 + bits + 7)
    negative = value[-1]
    # Bits above the window are copies of the sign, or the result saturates.
    above = moved["wide"][window - 1:]
    s = pipe.stage(wide=moved["wide"][:window].as_signed(), sticky=moved["sticky"],
                   over=~negative & above.any(), under=negative & ~above.all(), **carried)
    moved = _shifted(s.wide, shift[:3], 1, s.sticky)
    wide = moved["wide"]
    result = wide[1:].as_signed()
    up = wide[0] & (moved["sticky"] | result[0])
    maximum, minimum = (1 << (bits - 1)) - 1, -(1 << (bits - 1))
    rounded = Mux(s.over, Const(maximum, signed(bits)),
                  Mux(s.under, Const(minimum, signed(bits)), _saturated(result, up, bits)))
    return rounded, {name: getattr(s, name) for name in carried}


def _shifted(wide, count, step, sticky):
    """`wide` shifted right by `count` steps of `step` bits, and whether a 1 has fallen out."""
    if len(count) == 0:
        return {"wide": wide, "sticky": sticky}
    width = len(wide)
    amounts = [step * n for n in range(1 << len(count))]
    shifted = Array(wide.shift_right(min(amount, width - 1)) for amount in amounts)
    fallen = Array(wide[:min(amount, width)].any() for amount in amounts)
    # An array's element is cast before anybody slices it: they differ in width.
    return {"wide": Value.cast(shifted[count]), "sticky": sticky | fallen[count]}


def _saturated(value, up, bits):
    """Value + up, clamped, without a carry across the bits that are cut off."""
    maximum, minimum = (1 << (bits - 1)) - 1, -(1 << (bits - 1))
    # At `maximum` it does not matter whether `up` is added; below `minimum` neither.
    above, below = value >= maximum, value < minimum
    near = (value[:bits].as_signed() + up)[:bits].as_signed()
    return Mux(above, Const(maximum, signed(bits)), Mux(below, Const(minimum, signed(bits)), near))


def shift_stochastic(pipe, value, shift, bits, noise, nearest=None, **carried):
    """Divide by 2**shift, up where noise and fraction carry, saturate: two stages and a rest.

    Of the fraction that the shift discards, as many bits count as the noise has. A stage shifts by
    whole bytes, one by 0 to 7 bits; rounding and saturation are left for the caller to register.
    Rounding to nearest is noise of exactly a half, but for ties, which go to even.

    Parameters
    ----------
    pipe : the pipeline that gets two stages
    value : signed value of the current stage
    shift : unsigned value of at least three bits, the same for all beats in flight
    bits : width of the result
    noise : unsigned value of the current stage
    nearest : if given, 1 rounds to nearest, ties to even, instead; the same for all beats in flight
    carried : values that pass along

    Returns
    -------
    (rounded, carried) : signed expression of `bits` bits, and the carried values' registers by name
    """
    fraction = len(noise)
    wide = Cat(Const(0, fraction), value).as_signed()
    sticky = Const(0, 1)
    for count, step in ((shift[3:], 8), (shift[:3], 1)):
        moved = _shifted(wide, count, step, sticky)
        further = {} if nearest is None else {"sticky": moved["sticky"]}
        s = pipe.stage(wide=moved["wide"], noise=noise, **further, **carried)
        wide, noise, sticky = s.wide, s.noise, getattr(s, "sticky", sticky)
        carried = {name: getattr(s, name) for name in carried}
    rest, result = wide[:fraction], wide[fraction:].as_signed()
    if nearest is None:
        up = (rest + noise)[fraction]
    else:
        half = 1 << (fraction - 1)
        carry = (rest + Mux(nearest, half, noise))[fraction]
        tie_to_even = nearest & (rest == half) & ~sticky & ~result[0]
        up = carry & ~tie_to_even
    return _saturated(result, up, bits), carried


def add_in_halves(flow, pairs, **carried):
    """Sums of pairs in two stages: lower halves, then upper ones.

    Parameters
    ----------
    flow : the pipeline that gets two stages
    pairs : two unsigned values a sum, all of one width, as `BitHeap.rows` gives them
    carried : values, or lists or mappings of them, that pass along

    Returns
    -------
    (sums, carried) : registers; the sums unsigned, modulo 2^width, the carried ones as a namespace
    """
    width = len(pairs[0][0])
    cut = width // 2
    s = flow.stage(low=[left[:cut] + right[:cut] for left, right in pairs],
                   upper=[(left[cut:], right[cut:]) for left, right in pairs], **carried)
    sums = [Cat(low[:cut], add_with_carry(*upper, low[cut]))
            for low, upper in zip(s.low, s.upper, strict=True)]
    s = flow.stage(sums=sums, **{name: getattr(s, name) for name in carried})
    return s.sums, s


def add_with_carry(left, right, carry):
    """Sum of two unsigned values of one width and a carry, modulo 2^width, in one adder."""
    # The carry enters below, where the other value has a 1.
    return (Cat(Const(1, 1), left) + Cat(carry, right))[1:len(left) + 1]


def popcount(m, bits, name):
    """Count the ones in a list of bits, by a tree of adders."""
    terms = list(bits)
    level = 0
    while len(terms) > 1:
        sums = []
        for number in range(0, len(terms) - 1, 2):
            total = Signal(len(terms[number]) + 1, name=f"{name}_{level}_{number // 2}")
            m.d.comb += total.eq(terms[number] + terms[number + 1])
            sums.append(total)
        terms = sums + terms[len(terms) & ~1:]
        level += 1
    return terms[0]
