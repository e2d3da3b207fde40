"""Paired differences: their interval against what is known of the bootstrap's distribution."""

import re

import numpy as np
import pytest

from model.statistics import paired_difference


def test_an_equal_difference_everywhere_has_no_width() -> None:
    right, wrong = np.ones((3, 50), bool), np.zeros((3, 50), bool)
    found = paired_difference(right, wrong)
    assert (found.mean, found.low, found.high, found.deviation) == (1, 1, 1, 0)
    assert (found.seeds, found.examples) == (3, 50)


def test_it_is_paired_by_seed_and_by_example() -> None:
    """Hard examples and bad seeds that both share do not widen the interval."""
    rng = np.random.default_rng(1)
    theirs = rng.random((5, 400)) < rng.random((5, 1)) * (rng.random(400) < 0.5)
    ours = theirs | (rng.random((5, 400)) < 0.02)
    paired = paired_difference(ours, theirs)
    other_examples = paired_difference(ours, theirs[:, rng.permutation(400)])
    other_seeds = paired_difference(ours, theirs[::-1])
    for unpaired in (other_examples, other_seeds):
        assert paired.mean == pytest.approx(unpaired.mean)
        assert paired.high - paired.low < 0.5 * (unpaired.high - unpaired.low)
    assert paired.mean == pytest.approx(ours.mean() - theirs.mean())


def test_over_examples_it_is_the_normal_interval_of_a_mean() -> None:
    rng = np.random.default_rng(2)
    ours, theirs = rng.random((1, 2000)) < 0.8, rng.random((1, 2000)) < 0.7
    found = paired_difference(ours, theirs)
    gain = ours[0].astype(float) - theirs[0]
    half = 1.96 * gain.std() / 2000**0.5
    assert found.deviation is None
    assert found.high - found.mean == pytest.approx(half, rel=0.05)
    assert found.mean - found.low == pytest.approx(half, rel=0.05)
    narrow = paired_difference(ours, theirs, level=0.5)
    assert narrow.high - narrow.low == pytest.approx(2 * half * 0.6745 / 1.96, rel=0.05)


def test_over_seeds_it_is_the_bootstrap_of_their_means() -> None:
    """Two seeds of which one gains everything: 0, 1/2 or 1 in 1, 2 and 1 of 4 draws."""
    ours, theirs = np.array([[1] * 10, [0] * 10]), np.zeros((2, 10))
    found = paired_difference(ours, theirs)
    assert (found.mean, found.low, found.high) == (0.5, 0, 1)
    assert found.deviation == pytest.approx(0.5**0.5)
    assert paired_difference(ours, theirs, level=0.45).low == 0.5


def test_the_same_answers_give_the_same_interval() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random((2, 4, 90)) < 0.5
    assert paired_difference(ours, theirs) == paired_difference(ours, theirs)
    assert paired_difference(ours, theirs, seed=1).low != paired_difference(ours, theirs).low


@pytest.mark.parametrize("shape", [(3, 9), (2, 10), (10,), (0, 10)])
def test_what_is_not_paired_is_refused(shape: tuple[int, ...]) -> None:
    theirs = np.ones(shape) if shape in ((10,), (0, 10)) else np.ones((3, 10))
    with pytest.raises(ValueError, match=rf"of one shape.*not {re.escape(str(shape))} and"):
        paired_difference(np.ones(shape), theirs)
