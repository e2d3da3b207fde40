"""Networks against plain lists, in Amaranth's own simulator."""

import numpy as np
import pytest
from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.sim import Simulator

from hwgen.lib.compaction import (
    close_gaps,
    elements,
    open_front,
    popcount,
    rotate,
    zeros_before,
)

WIDTH = 5


def settled(m, signal, values, results):
    """Values of `results` for each value of `signal`."""
    found = []

    async def testbench(ctx):
        for value in values:
            ctx.set(signal, value)
            found.append([ctx.get(result) for result in results])

    simulator = Simulator(m)
    simulator.add_testbench(testbench)
    simulator.run()
    return found


def masks(size):
    """All masks of a small size, random and extreme ones of a larger one."""
    if size <= 8:
        return list(range(1 << size))
    rng = np.random.default_rng(size)
    density = rng.random((60, 1))
    drawn = [sum(1 << k for k in np.flatnonzero(row)) for row in rng.random((60, size)) < density]
    return [*map(int, drawn), 0, (1 << size) - 1]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 32])
def test_counts(size):
    m, bits = Module(), Signal(size)
    ones = popcount(m, bits, "ones")
    zeros = zeros_before(m, bits, "zeros")
    assert {len(count) for count in zeros} == {(size - 1).bit_length()}
    for mask, (one, *zero) in zip(masks(size), settled(m, bits, masks(size), [ones, *zeros]),
                                  strict=True):
        assert one == mask.bit_count()
        assert zero == [k - (mask & ((1 << k) - 1)).bit_count() for k in range(size)]


@pytest.mark.parametrize("size", [1, 2, 8, 32])
@pytest.mark.parametrize("half", [0, 1, 2])
def test_gaps_close_in_two_parts(size, half):
    m, bits = Module(), Signal(size)
    levels = range((size - 1).bit_length())
    values = [Const(k + 1, WIDTH + 1) for k in range(size)]
    state = (values, list(bits), zeros_before(m, bits, "zeros"))
    state = close_gaps(m, *state, levels[:half], "near")
    values, valid, shifts = close_gaps(m, *state, levels[half:], "far")
    assert all(len(shift) == 0 for shift in shifts)
    for mask, found in zip(masks(size), settled(m, bits, masks(size), [*values, Cat(valid)]),
                           strict=True):
        kept = [k + 1 for k in range(size) if mask >> k & 1]
        assert found[:len(kept)] == kept
        assert found[-1] == (1 << len(kept)) - 1


@pytest.mark.parametrize("size", [1, 3, 4])
def test_a_front_opens(size):
    m, distance = Module(), Signal(2)
    vector = Cat(Const(k + 1, WIDTH) for k in range(size))
    opened = elements(open_front(m, vector, WIDTH, distance, size + 3, "opened"), WIDTH)
    for shift, found in enumerate(settled(m, distance, range(4), opened)):
        assert found == [0] * shift + [k + 1 for k in range(size)] + [0] * (3 - shift)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_rotation_of_any_size(size):
    m, distance = Module(), Signal(range(max(2, size)))
    vector = Cat(Const(k + 1, WIDTH) for k in range(size))
    rotated = elements(rotate(m, vector, WIDTH, distance, "rotated"), WIDTH)
    for shift, found in enumerate(settled(m, distance, range(size), rotated)):
        assert found == [(k - shift) % size + 1 for k in range(size)]
