"""Cycles of pre_sparsity against a machine that is walked cycle by cycle, and by enumeration."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwgen.units.pre_sparsity import cost
from hwgen.units.pre_sparsity.spec import PreSparsitySpec


def walked(spec: PreSparsitySpec, counts: list[list[int]]) -> list[int]:
    """Cycles in which each dot product's last beat is issued, as the contract words it."""
    pending = [[pairs, number == len(dot) - 1]
               for dot in counts for number, pairs in enumerate(dot)]
    held, end_in, bare, finished = 0, False, False, []
    cycle = 0
    while len(finished) < len(counts):
        if held >= spec.macs or end_in:
            issued = min(held, spec.macs)
            last = end_in and (held == 0 if bare else issued == held)
        else:
            issued, last = 0, False
        if last:
            finished.append(cycle)
        held -= issued
        end_in = end_in and not last
        if pending and not end_in:
            taken = min(pending[0][0], spec.fifo_depth - held)
            pending[0][0] -= taken
            held += taken
            if pending[0][0] == 0:
                end_in = pending.pop(0)[1]
                bare = taken == 0 and held % spec.macs == 0
        cycle += 1
        assert cycle < 100_000, "the FIFO blocks for ever"
    return finished


@st.composite
def specs(draw: st.DrawFn) -> PreSparsitySpec:
    macs = draw(st.sampled_from([1, 2, 4, 8]))
    window = macs * draw(st.sampled_from([1, 2, 4, 8]))
    return PreSparsitySpec(macs, 8, window, macs * draw(st.integers(1, 2 + 2 * window // macs)))


@settings(max_examples=300, deadline=None)
@given(specs(), st.integers(1, 6), st.integers(1, 6), st.sampled_from([0.05, 0.3, 0.7, 1.0]),
       st.integers(0, 2**32 - 1))
def test_periods_are_those_of_the_machine(spec: PreSparsitySpec, dots: int, windows: int,
                                          density: float, seed: int) -> None:
    counts = np.random.default_rng(seed).binomial(spec.window, density, (dots, windows))
    finished = walked(spec, counts.tolist())
    assert finished == np.cumsum(cost.periods(spec, counts)).tolist()
    assert cost.cycles(spec, counts) == finished[-1] + cost.latency(spec)
    assert cost.cycles_back_to_back(spec, counts) == finished[-1]


def test_a_fifo_of_other_than_whole_beats_is_refused() -> None:
    PreSparsitySpec(4, 8, 8, 4)
    with pytest.raises(ValueError, match="fifo_depth must be .* from 4 to 1024, not 3"):
        PreSparsitySpec(4, 8, 8, 3)
    with pytest.raises(ValueError, match="fifo_depth must be a multiple of macs = 4, not 11"):
        PreSparsitySpec(4, 8, 8, 11)


def test_periods_without_blocking_are_windows_and_the_rest() -> None:
    spec = PreSparsitySpec(4, 8, 16, 32)
    counts = np.array([[0, 0, 0], [1, 1, 1], [16, 0, 0], [0, 0, 16], [4, 0, 0],
                       [15, 0, 0], [4, 0, 1]])
    # The third has two whole beats left and then the empty one that says that it ends.
    assert cost.periods(spec, counts).tolist() == [3, 3, 5, 6, 3, 4, 3]


def test_every_parameter_shows_in_the_cycles() -> None:
    # Dense, then empty but for the end: macs sets how fast the pairs leave, depth how many still
    # do so while the empty windows pass, window how fast those pass.
    mask = np.repeat([1, 0, 1], [48, 47, 1])
    cycles = [int(cost.cycles(spec, mask.reshape(1, -1, spec.window).sum(axis=2)))
              for spec in (PreSparsitySpec(2, 8, 4, 6), PreSparsitySpec(1, 8, 4, 6),
                           PreSparsitySpec(2, 8, 8, 12), PreSparsitySpec(2, 8, 4, 12),
                           PreSparsitySpec(2, 8, 4, 2))]
    assert cycles == [39, 60, 30, 36, 41]


def test_periods_take_arrays_of_specs() -> None:
    counts = np.random.default_rng(3).integers(0, 9, (5, 4))
    made = [PreSparsitySpec(macs, 8, 8, depth) for macs, depth in [(1, 8), (2, 2), (4, 12), (8, 40),
                                                                  (1, 30)]]
    arrays = SimpleNamespace(macs=np.array([spec.macs for spec in made]),
                             fifo_depth=np.array([spec.fifo_depth for spec in made]))
    expected = [cost.periods(spec, row) for spec, row in zip(made, counts, strict=True)]
    assert cost.periods(arrays, counts).tolist() == [int(value) for value in expected]


@pytest.mark.parametrize(("macs", "window", "depth", "length"), [
    (1, 1, 1, 5), (1, 2, 2, 7), (1, 4, 4, 10), (1, 4, 1, 9), (2, 4, 6, 11), (2, 4, 8, 12),
    (2, 4, 2, 12), (4, 4, 4, 12), (4, 4, 8, 12), (2, 8, 10, 3), (1, 4, 6, 12),
])
@pytest.mark.parametrize("density", [0.0, 0.2, 0.65, 1.0])
def test_distribution_is_that_of_all_masks(macs: int, window: int, depth: int, length: int,
                                           density: float) -> None:
    spec = PreSparsitySpec(macs, 8, window, depth)
    masks = np.array(list(itertools.product([0, 1], repeat=length)))
    weight = np.prod(np.where(masks, density, 1 - density), axis=1)
    windows = -(-length // window)
    padded = np.pad(masks, ((0, 0), (0, windows * window - length)))
    periods = cost.periods(spec, padded.reshape(-1, windows, window).sum(axis=2))
    values, probabilities = cost.cycles_distribution(spec, length, density, 1.0)
    found = dict(zip(values.tolist(), probabilities.tolist(), strict=True))
    for value in set(periods.tolist()) | set(found):
        expected = weight[periods == value].sum()
        np.testing.assert_allclose(found.get(value, 0.0), expected, rtol=1e-12)
    np.testing.assert_allclose(cost.mean(values, probabilities), weight @ periods, rtol=1e-12)


def test_only_the_product_of_the_densities_matters() -> None:
    spec = PreSparsitySpec(4, 8, 16, 32)
    first = cost.cycles_distribution(spec, 40, 0.5, 0.25)
    second = cost.cycles_distribution(spec, 40, 1.0, 0.125)
    assert np.array_equal(first, second)


def test_rows_are_the_distributions_one_by_one() -> None:
    rng = np.random.default_rng(5)
    macs = rng.choice([1, 4, 16], 60)
    length = rng.integers(1, 100, 60)
    density = rng.choice([0.0, 0.1, 0.37, 1.0], 60)
    values, probabilities = cost.distributions(macs, 4 * macs, 8 * macs, length, density)
    for row in range(60):
        spec = PreSparsitySpec(int(macs[row]), 8, int(4 * macs[row]), int(8 * macs[row]))
        one, weight = cost.cycles_distribution(spec, int(length[row]), density[row], 1.0)
        assert values[row, :len(one)].tolist() == one.tolist()
        np.testing.assert_allclose(probabilities[row, :len(one)], weight, rtol=1e-14)
        assert not probabilities[row, len(one):].any()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-13)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="pair_density must be from 0 to 1, not"):
        cost.distributions(1, 4, 8, 8, [0.5, 1.5])
    with pytest.raises(ValueError, match="length must be at least 1, not 0"):
        cost.distributions(1, 4, 8, [8, 0], 0.5)
    with pytest.raises(ValueError, match="dots must be at least 1, not 0"):
        cost.expected_maximum([1, 2], [0.5, 0.5], [4, 0], 1)
    with pytest.raises(ValueError, match="lanes must be at least 1, not 0"):
        cost.expected_maximum([1, 2], [0.5, 0.5], 4, 0)


def convolved(values: np.ndarray, probabilities: np.ndarray, dots: int, lanes: int) -> float:
    """Expected maximum by multiplying out the probabilities: no cancellation, no wrapping."""
    total = np.ones(1)
    power = probabilities
    remaining = dots
    while remaining:
        if remaining & 1:
            total = np.convolve(total, power)
        remaining >>= 1
        if remaining:
            power = np.convolve(power, power)
    beyond = np.minimum(np.cumsum(total[::-1])[::-1][1:] / total.sum(), 1.0)
    with np.errstate(divide="ignore"):
        return float(values[0] * dots - np.expm1(lanes * np.log1p(-beyond)).sum())


@pytest.mark.parametrize("density", [1e-6, 0.01, 0.25, 0.9])
@pytest.mark.parametrize("macs", [1, 16])
def test_expected_maximum_is_that_of_the_convolution(macs: int, density: float) -> None:
    spec = PreSparsitySpec(macs, 8, 4 * macs, 8 * macs)
    values, probabilities = cost.cycles_distribution(spec, max(16, 4 * macs), density, 1.0)
    dots, lanes = np.meshgrid([1, 2, 7, 64, 256, 1024, 4096], [1, 3, 1024, 131072])
    found = cost.expected_maximum(values, probabilities, dots, lanes)
    for number in np.ndindex(dots.shape):
        expected = convolved(values, probabilities, int(dots[number]), int(lanes[number]))
        assert found[number] == pytest.approx(expected, rel=5e-8)


def test_one_lane_is_the_mean() -> None:
    values, probabilities = cost.distributions([1, 16, 4], [4, 64, 16], [8, 128, 32], 64,
                                               [0.3, 0.26, 0.5])
    np.testing.assert_allclose(cost.expected_maximum(values, probabilities, [5, 100, 4096], 1),
                               cost.mean(values, probabilities) * [5, 100, 4096], rtol=1e-12)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_no_chance_no_spread(density: float) -> None:
    spec = PreSparsitySpec(4, 8, 16, 20)
    values, probabilities = cost.cycles_distribution(spec, 70, density, 1.0)
    dense = [[16 * density] * 4 + [6 * density]]
    period = int(cost.periods(spec, np.array(dense))[0])
    result = cost.expected_maximum(values, probabilities, [1, 256, 4096], [131072, 5, 131072])
    assert result.tolist() == [period, 256 * period, 4096 * period]


def test_values_need_not_be_neighbours_and_rows_may_share_a_distribution() -> None:
    values = np.array([[2, 5, 11], [3, 4, 5]])
    probabilities = np.array([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
    result = cost.expected_maximum(values, probabilities, 1, [1, 2, 1, 2], index=[0, 0, 1, 1])
    # The larger of two: 11 with 7/16, 5 with 5/16, 2 with 4/16; and 5 with 3/4, 4 with 1/4.
    np.testing.assert_allclose(result, [5.0, 110 / 16, 4.5, 4.75], rtol=1e-14)


def test_expected_maximum_is_what_random_masks_need() -> None:
    spec = PreSparsitySpec(4, 8, 16, 24)
    rng = np.random.default_rng(11)
    trials, lanes, dots, length = 400, 32, 20, 40
    masks = rng.random((trials, lanes, dots, 48)) < 0.55
    masks[..., length:] = False
    counts = masks.reshape(trials, lanes, dots, 3, 16).sum(axis=-1)
    slowest = cost.periods(spec, counts).sum(axis=2).max(axis=1)
    values, probabilities = cost.cycles_distribution(spec, length, 0.55, 1.0)
    expected = float(cost.expected_maximum(values, probabilities, dots, lanes))
    assert abs(slowest.mean() - expected) < 3 * slowest.std() / np.sqrt(trials)


@pytest.mark.parametrize(("fifo_depth", "length"), [(32, 64), (32, 200), (16, 200), (64, 300)])
@pytest.mark.parametrize(("left", "right"), [(1.0, 0.5), (0.5, 0.5), (0.5, 0.25), (0.9, 0.8)])
def test_expectation_is_the_mean_over_random_masks(fifo_depth: int, length: int, left: float,
                                                   right: float) -> None:
    spec = PreSparsitySpec(16, 20, 64, fifo_depth)
    rng = np.random.default_rng(fifo_depth + length)
    dots, windows = 20_000, -(-length // spec.window)
    both = np.zeros((dots, windows * spec.window), dtype=bool)
    both[:, :length] = (rng.random((dots, length)) < left) & (rng.random((dots, length)) < right)
    periods = cost.periods(spec, both.reshape(dots, windows, spec.window).sum(axis=2))
    expected = float(cost.mean(*cost.cycles_distribution(spec, length, left, right)))
    assert abs(periods.mean() - expected) <= 3 * periods.std() / np.sqrt(dots)
