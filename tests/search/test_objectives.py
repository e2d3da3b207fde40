"""Intervals, dominance, knee, scalar, ties and hypervolume against figures worked out apart."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.objectives import (
    COST_RESOLUTION,
    Measured,
    Scale,
    boxes,
    check_constraints,
    knee,
    minimised,
    non_dominated,
    published_scalar,
    spread,
    ties,
    violations,
    wilson,
)

PAIR = Measured(0.8, 1e5, 1e9, 5e7, 1e3, 4e5, 1e-3, 4e8, 13312)

points = st.integers(1, 40).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), min_size=n, max_size=n)
)


@given(points)
@settings(max_examples=60)
def test_non_dominated_is_what_its_definition_says(rows):
    array = np.array(rows, dtype=float)
    kept = non_dominated(array)
    expected = []
    for i, row in enumerate(array):
        beaten = any((other <= row).all() and (other < row).any() for other in array)
        if not beaten and not any((array[j] == row).all() for j in range(i)):
            expected.append(i)
    assert kept.tolist() == expected


def test_nan_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        non_dominated(np.array([[1.0, np.nan]]))


def test_wilson_interval():
    # Wilson score interval of 80 of 100 at z = 1.959964 (Brown, Cai and DasGupta 2001, eq. 4).
    low, high = wilson(0.8, 100)
    assert low == pytest.approx(0.71117, abs=1e-5) and high == pytest.approx(0.86663, abs=1e-5)
    assert wilson(1.0, 10)[1] == pytest.approx(1.0) and wilson(0.0, 10)[0] == pytest.approx(0.0)
    for p, n in ((0.5, 30), (0.77, 1278)):
        for limit in wilson(p, n):
            assert (limit - p) ** 2 == pytest.approx(1.959964**2 * limit * (1 - limit) / n)


def test_objectives_are_error_and_logarithms():
    row = minimised([PAIR])[0]
    assert row == pytest.approx([0.2, math.log(1e5), math.log(1e9), math.log(5e7)])
    assert minimised([]).shape == (0, 4)


def test_boxes_join_what_lies_within_two_percent_and_a_standard_error():
    base = np.zeros((1, 4))
    assert COST_RESOLUTION == pytest.approx(math.log(1.02))
    near = np.array([[0.5 / math.sqrt(1600) * 0.99, *[math.log(1.0199)] * 3]])
    far = np.array([[0.5 / math.sqrt(1600) * 1.01, *[math.log(1.0201)] * 3]])
    assert (boxes(near, 1600) == boxes(base, 1600)).all()
    assert (boxes(far, 1600) > boxes(base, 1600)).all()


def test_knee_is_nearest_to_the_ideal_point():
    # Scaled: (0, 1), (0.2, 0.3), (1, 0): distances 1, 0.36, 1. A constant objective is left out.
    front = np.array([[0.1, 20.0, 7.0], [0.12, 13.0, 7.0], [0.2, 10.0, 7.0]])
    assert knee(front) == 1
    assert knee(front[[0]]) == 0
    # Stretching an objective changes nothing.
    assert knee(front * [1, 1000, 1]) == 1


def test_published_scalar_weighs_as_published():
    zero = replace(PAIR, accuracy=1.0, latency_cycles_per_sequence=0, energy_pj_per_sequence=0,
                   leakage_pj_per_sequence=0, area_um2=0)  # fmt: skip
    assert published_scalar(zero) == pytest.approx(1.0)
    assert published_scalar(replace(zero, accuracy=0.0)) == pytest.approx(0.5)
    assert published_scalar(replace(zero, area_um2=30_000e6)) == pytest.approx(0.9)
    assert published_scalar(replace(zero, latency_cycles_per_sequence=4e9)) == pytest.approx(0.9)
    leaking = replace(zero, energy_pj_per_sequence=2e13, leakage_pj_per_sequence=2e13)
    assert published_scalar(leaking) == pytest.approx(0.9)
    assert published_scalar(replace(zero, energy_pj_per_sequence=9e13)) == pytest.approx(0.8)


def test_ties_name_the_cheapest_that_does_not_separate():
    cheap = replace(PAIR, accuracy=0.79, latency_cycles_per_sequence=5e4)
    cheaper = replace(cheap, accuracy=0.785, area_um2=4e7)
    poor = replace(cheaper, accuracy=0.6, area_um2=1e7)
    dear = replace(PAIR, accuracy=0.795, energy_pj_per_sequence=2e9)
    assert ties([PAIR, cheap, cheaper, poor, dear], [1000] * 5) == [2, 2, None, None, 2]
    assert ties([PAIR, cheap], [10**6] * 2) == [None, None]


def test_hypervolume_of_boxes():
    scale = Scale((0.0, 0.0), (10.0, 10.0), reference=1.0)
    assert scale.hypervolume(np.array([[5.0, 5.0]])) == pytest.approx(0.25)
    two = np.array([[2.0, 5.0], [5.0, 2.0]])
    assert scale.hypervolume(two) == pytest.approx(0.8 * 0.5 + 0.3 * 0.5)
    assert scale.contributions(two) == pytest.approx([0.15, 0.15])
    assert scale.hypervolume(np.empty((0, 2))) == 0.0
    # Outside the reference point counts nothing, better than the ideal counts as the ideal.
    assert scale.hypervolume(np.array([[11.0, 0.0]])) == 0.0
    assert scale.hypervolume(np.array([[-5.0, -5.0]])) == pytest.approx(1.0)
    default = Scale((0.0,), (1.0,))
    assert default.hypervolume(np.array([[0.0]])) == pytest.approx(1.0)
    assert default.hypervolume(np.array([[1.0]])) == pytest.approx(0.1 / 1.1)


def test_spread_takes_first_what_adds_most():
    groups = [np.array([[0.5, 0.5]]), np.array([[0.0, 1.0]]), np.array([[0.45, 0.6], [1.0, 0.0]]),
              np.array([[0.9, 0.9]])]  # fmt: skip
    order = spread(groups, 4)
    assert order[0] in (0, 2) and order[-1] == 3 and sorted(order) == [0, 1, 2, 3]
    assert spread(groups, 2) == order[:2]


def test_constraints_and_violations():
    limits = check_constraints({"area_um2": 4e7, "accuracy": 0.75, "power_mw": 2000})
    assert violations(PAIR, limits) == pytest.approx([0.25, -0.05 / 0.75, -0.5])
    assert violations(PAIR, {"accuracy": 0.9}) == pytest.approx([0.1 / 0.9])
    assert violations(PAIR, {"accuracy": 0.9}, accuracy=False) == [0.0]
    assert check_constraints(None) == {}
    for bad in ({"area": 1}, {"area_um2": float("nan")}, {"area_um2": "big"}, {"accuracy": True}):
        with pytest.raises(ValueError, match="constraint"):
            check_constraints(bad)
