"""Classes of steps: the few different ones among the many, with how often each comes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.tiling import DIM_K, Tiling

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

STATES = 4
"""Different indices of a loop: the first, the last, the one before it, and all between."""


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
class StepClasses:
    """Classes of the steps of one product, those of a design side by side.

    Parameters
    ----------
    design : which design, shape (steps,)
    starts : where each design begins
    count : how often the step comes, shape (steps,)
    now, following, previous : what is computed, dispatched and written
    new_left, new_right : whether the following wave's operands are dispatched
    """

    design: Ints
    starts: Ints
    count: Ints
    now: Wave
    following: Wave
    previous: Wave
    new_left: Bools
    new_right: Bools


def class_counts(trips: Ints) -> Ints:
    """Classes of each design, its opening and its closing step included."""
    return np.asarray(np.prod(np.minimum(trips, STATES), axis=0) + 2)


def _numbers(rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Design of each row, where designs start, and number of each row within its design."""
    starts = np.concatenate([[0], np.cumsum(rows)[:-1]])
    design = np.repeat(np.arange(len(rows)), rows)
    return design, starts, np.arange(len(design)) - starts[design]


def _index(state: Ints, trips: Ints) -> tuple[Ints, Ints]:
    """An index that stands for a state of a loop, and how many it stands for."""
    index = np.where((state <= 1) | (trips <= STATES), state, trips - STATES + state)
    return index, np.where((state == 1) & (trips > STATES), trips - STATES + 1, 1)


def product_steps(tiling: Tiling, right_has_b: bool) -> StepClasses:
    """Enumerate the classes of a product's steps.

    Parameters
    ----------
    tiling : of all designs
    right_has_b : whether the right operand has a b index (both operands are activations)
    """
    rows = class_counts(tiling.trips)
    design, starts, number = _numbers(rows)
    trips = np.repeat(np.take_along_axis(tiling.trips, tiling.order, axis=0), rows, axis=1)
    rest = number.copy()
    index, count = np.empty_like(trips), np.ones_like(number)
    for loop in (3, 2, 1, 0):
        states = np.minimum(trips[loop], STATES)
        index[loop], times = _index(rest % states, trips[loop])
        count *= times
        rest //= states
    closing = np.zeros(len(design), dtype=bool)
    closing[starts + rows - 1] = True
    opening = np.roll(closing, -1)
    real = ~(opening | closing)
    count = np.where(real, count, 1)
    after, before = np.empty_like(index), np.empty_like(index)
    changed = np.empty(index.shape, dtype=bool)
    carry, borrow = real.copy(), real.copy()
    for loop in (3, 2, 1, 0):
        more, less = index[loop] + 1 < trips[loop], index[loop] > 0
        changed[loop] = carry & (trips[loop] > 1)
        after[loop] = np.where(carry, np.where(more, index[loop] + 1, 0), index[loop])
        before[loop] = np.where(
            borrow, np.where(less, index[loop] - 1, trips[loop] - 1), index[loop]
        )
        carry &= ~more
        borrow &= ~less
    after[:, opening] = 0
    changed[:, opening] = True
    before[:, closing] = trips[:, closing] - 1
    place = np.repeat(tiling.position, rows, axis=1)
    final = np.repeat(tiling.trips - 1, rows, axis=1)
    block, last = np.repeat(tiling.block, rows, axis=1), np.repeat(tiling.last, rows, axis=1)

    def wave(by_loop: Ints, exists: Bools) -> Wave:
        by_dimension = np.take_along_axis(by_loop, place, axis=0)
        extents = np.where(by_dimension == final, last, block)
        extents *= exists
        return Wave(exists, extents, by_dimension[DIM_K])

    changed = np.take_along_axis(changed, place, axis=0)
    following = wave(after, (real & ~carry) | opening)
    left = changed[0] | changed[1] | changed[DIM_K]
    right = changed[2] | changed[DIM_K] | (changed[0] if right_has_b else False)
    return StepClasses(
        design,
        starts,
        count,
        wave(index, real),
        following,
        wave(before, (real & ~borrow) | closing),
        left & following.exists,
        right & following.exists,
    )


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
    index, count = _index(number, trips)
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
