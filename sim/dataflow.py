"""Classes of steps: the few different ones among the many, with how often each comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.tiling import DIM_J, DIM_K, Tiling

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STATES = 4
"""Different indices of a loop: the first, the last, the one before it, and all between.

A loop in which a design looks two waves ahead, for blocks of weights, has one more: the last but
two.
"""


@dataclass(frozen=True)
class Wave:
    """One wave of each class of steps.

    Parameters
    ----------
    exists : whether the step has it, shape (steps,)
    extents : elements of its block by dimension b, i, j, k, shape (4, steps)
    segment : its index along k, shape (steps,)
    """

    exists: Bools
    extents: Ints
    segment: Ints


@dataclass(frozen=True)
class Copies:
    """Steps in which a block of weights comes from main memory.

    Parameters
    ----------
    at : which steps
    wave : the second after the one that is computed, which the block is for
    """

    at: Ints
    wave: Wave

    def of(self, some: Bools) -> Copies:
        """Those of some of the steps."""
        if some.all():
            return self
        wave = self.wave
        return Copies(
            self.at[some], Wave(wave.exists[some], wave.extents[:, some], wave.segment[some])
        )


@dataclass(frozen=True)
class StepClasses:
    """Classes of the steps of one product, those of a design side by side.

    Parameters
    ----------
    design : which design, shape (steps,)
    starts : where each design begins
    count : how often the step comes, shape (steps,)
    now, following, previous : what is computed, dispatched and written
    new_left, new_right : whether the following wave's operands are dispatched
    copies : blocks of weights that come meanwhile, where a design's weights may stream
    """

    design: Ints
    starts: Ints
    count: Ints
    now: Wave
    following: Wave
    previous: Wave
    new_left: Bools
    new_right: Bools
    copies: Copies | None


def class_counts(trips: Ints) -> Ints:
    """Classes of each design that looks one wave ahead, its opening and closing step included."""
    return _counts(np.minimum(trips, STATES))


def _counts(states: Ints) -> Ints:
    return np.asarray(np.prod(states, axis=0) + 2)


def _states(tiling: Tiling, loops: Ints, streams: Bools) -> Ints:
    """States of each loop, outermost first, shape (4, designs).

    Two waves may go by in the innermost loop of several trips alone, and it matters where the last
    block of weights is smaller than the others.
    """
    most = np.full(loops.shape, STATES)
    if streams.any():
        design = np.arange(loops.shape[1])
        innermost = len(loops) - 1 - np.argmax(loops[::-1] > 1, axis=0)
        dimension = tiling.order[innermost, design]
        smaller = (tiling.last != tiling.block)[dimension, design]
        most[innermost, design] += streams & smaller & (dimension >= DIM_J)
    return np.asarray(np.minimum(loops, most))


def _numbers(rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Design of each row, where designs start, and number of each row within its design."""
    starts = np.concatenate([[0], np.cumsum(rows)[:-1]])
    design = np.repeat(np.arange(len(rows)), rows)
    return design, starts, np.arange(len(design)) - starts[design]


def _index(state: Ints, beyond: Ints) -> tuple[Ints, Ints]:
    """An index that stands for a state of a loop, and how many it stands for.

    Parameters
    ----------
    state : number of the state
    beyond : trips of the loop beyond its states, all of which the second state stands for
    """
    return np.where(state > 1, state + beyond, state), np.where(state == 1, beyond + 1, 1)


def product_steps(tiling: Tiling, right_has_b: bool, streams: Bools) -> StepClasses:
    """Enumerate the classes of a product's steps.

    Parameters
    ----------
    tiling : of all designs
    right_has_b : whether the right operand has a b index (both operands are activations)
    streams : designs whose right operand may come from main memory block by block
    """
    loops = np.take_along_axis(tiling.trips, tiling.order, axis=0)
    held = _states(tiling, loops, streams)
    rows = _counts(held)
    design, starts, number = _numbers(rows)
    trips = np.repeat(loops, rows, axis=1)
    states = np.repeat(held, rows, axis=1)
    rest = number.copy()
    index, count = np.empty_like(trips), np.ones_like(number)
    for loop in (3, 2, 1, 0):
        index[loop], times = _index(rest % states[loop], trips[loop] - states[loop])
        count *= times
        rest //= states[loop]
    closing = np.zeros(len(design), dtype=bool)
    closing[starts + rows - 1] = True
    opening = np.roll(closing, -1)
    real = ~(opening | closing)
    count = np.where(real, count, 1)
    after, changed, over = _next(index, trips, real)
    before, under = _previous(index, trips, real)
    after[:, opening] = 0
    changed[:, opening] = True
    before[:, closing] = trips[:, closing] - 1
    place = np.repeat(tiling.position, rows, axis=1)
    final = np.repeat(tiling.trips - 1, rows, axis=1)
    block, last = np.repeat(tiling.block, rows, axis=1), np.repeat(tiling.last, rows, axis=1)

    def wave(by_loop: Ints, exists: Bools, at: Ints | slice = slice(None)) -> Wave:
        by_dimension = np.take_along_axis(by_loop, place[:, at], axis=0)
        extents = np.where(by_dimension == final[:, at], last[:, at], block[:, at])
        extents *= exists
        return Wave(exists, extents, by_dimension[DIM_K])

    changed = np.take_along_axis(changed, place, axis=0)
    following = wave(after, (real & ~over) | opening)
    left = changed[0] | changed[1] | changed[DIM_K]
    right = changed[DIM_J] | changed[DIM_K] | (changed[0] if right_has_b else False)
    copies = None
    if streams.any():
        at = np.flatnonzero(streams[design] & following.exists)
        second, changed, over = _next(after[:, at], trips[:, at], np.ones(len(at), dtype=bool))
        changed = np.take_along_axis(changed, place[:, at], axis=0)
        comes = (changed[DIM_J] | changed[DIM_K]) & ~over
        at = at[comes]
        copies = Copies(at, wave(second[:, comes], np.ones(len(at), dtype=bool), at))
    return StepClasses(
        design,
        starts,
        count,
        wave(index, real),
        following,
        wave(before, (real & ~under) | closing),
        left & following.exists,
        right & following.exists,
        copies,
    )


def _next(index: Ints, trips: Ints, some: Bools) -> tuple[Ints, Bools, Bools]:
    """Indices of the waves that follow some waves, outermost loop first.

    Gives also which indices have changed, and which waves were the last.
    """
    after, changed, carry = np.empty_like(index), np.empty(index.shape, dtype=bool), some.copy()
    for loop in (3, 2, 1, 0):
        more = index[loop] + 1 < trips[loop]
        changed[loop] = carry & (trips[loop] > 1)
        after[loop] = np.where(carry, np.where(more, index[loop] + 1, 0), index[loop])
        carry &= ~more
    return after, changed, carry


def _previous(index: Ints, trips: Ints, some: Bools) -> tuple[Ints, Bools]:
    """Indices of the waves before some waves, and which waves were the first."""
    before, borrow = np.empty_like(index), some.copy()
    for loop in (3, 2, 1, 0):
        less = index[loop] > 0
        before[loop] = np.where(
            borrow, np.where(less, index[loop] - 1, trips[loop] - 1), index[loop]
        )
        borrow &= ~less
    return before, borrow


@dataclass(frozen=True)
class RowClasses:
    """Classes of the steps of an operation on rows, those of a design side by side.

    Parameters
    ----------
    design, starts, count : as in StepClasses
    now, following, previous : rows that are computed, dispatched and written, shape (steps,)
    """

    design: Ints
    starts: Ints
    count: Ints
    now: Ints
    following: Ints
    previous: Ints


def row_steps(rows: Ints, rows_per_wave: Ints) -> RowClasses:
    """Enumerate the classes of the steps of `rows` rows, shapes (designs,)."""
    waves = -(-rows // rows_per_wave)
    design, starts, number = _numbers(class_counts(waves[None]))
    trips = waves[design]
    inner = np.minimum(trips, STATES)
    opening, closing = number == inner, number == inner + 1
    index, count = _index(number, trips - inner)
    index = np.where(opening, -1, np.where(closing, trips, index))

    def size(wave: Ints) -> Ints:
        full = rows_per_wave[design]
        some = np.where(wave == trips - 1, rows[design] - (trips - 1) * full, full)
        return np.where((wave >= 0) & (wave < trips), some, 0)

    return RowClasses(
        design,
        starts,
        np.where(opening | closing, 1, count),
        size(index),
        size(index + 1),
        size(index - 1),
    )
