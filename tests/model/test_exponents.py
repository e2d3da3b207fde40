"""The choice of an exponent: range, percentile, least error."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwgen.fixed_point import FixedPoint
from model.exponents import Distribution, exponent_of, method_of

floats = st.floats(-1e6, 1e6, width=32)


def distribution(values, bits):
    made = Distribution(bits)
    made.add(torch.as_tensor(values))
    return made


def saturating(values, exponent, bits):
    wide, number = FixedPoint(62, exponent).quantize(values), FixedPoint(bits, exponent)
    return int(((wide < number.minimum) | (wide > number.maximum)).sum())


@given(floats, floats, st.integers(4, 24))
def test_exponent_is_the_smallest_that_does_not_saturate(a, b, bits):
    low, high = min(a, b), max(a, b)
    exponent = exponent_of(low, high, bits)
    pair = np.array([low, high])
    assert not saturating(pair, exponent, bits)
    if max(abs(low), abs(high)) > 1e-30:
        assert saturating(pair, exponent - 1, bits)


def test_zeros_have_an_exponent():
    assert exponent_of(0.0, 0.0, 20) == -19
    assert exponent_of(0.0, 5e-324, 20) == -128
    zeros = distribution(np.zeros(5), 20)
    assert [zeros.exponent(method) for method in ("max", "mse", 99.0)] == [-19, -19, -19]


@given(arrays(np.float32, 12, elements=floats), st.integers(4, 24))
@example(np.float32([127.5, 127.49999, -128.5, -128.50002]), 8)  # ties, and beside them
@example(np.float32([-128.5]), 8)
@example(np.float32([127.5]), 8)
@example(np.float32([8388607.5, 0]), 24)
def test_a_distribution_knows_the_exponent_of_its_range(values, bits):
    expected = exponent_of(float(values.min()), float(values.max()), bits)
    assert distribution(values, bits).exponent("max") == expected


@given(
    arrays(np.float32, 40, elements=st.floats(-100, 100, width=32)),
    st.sampled_from([50.0, 75.0, 90.0, 95.0, 97.5, 100.0]),
    st.integers(4, 20),
)
def test_a_percentile_is_the_smallest_exponent_at_which_so_many_do_not_saturate(
    values, share, bits
):
    exponent = distribution(values, bits).exponent(share)
    allowed = round(40 * (100 - share) / 100, 6)
    assert saturating(values, exponent, bits) <= allowed
    if np.abs(values).max() > 1e-30 and exponent > -128:
        assert saturating(values, exponent - 1, bits) > allowed or not values.any()


@pytest.mark.parametrize("bits", [4, 6, 8, 12])
@pytest.mark.parametrize("seed", range(6))
def test_the_least_error_is_that_of_actual_rounding(bits, seed):
    """No exponent has a clearly smaller error; a heavy tail is clipped where there are few bits."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(5000) if seed % 2 else rng.standard_t(1.5, 5000)
    values = values * 2.0 ** rng.uniform(-9, 9)
    chosen = distribution(values, bits).exponent("mse")
    widest = exponent_of(values.min(), values.max(), bits)

    def error(exponent):
        number = FixedPoint(bits, exponent)
        return float(((number.dequantize(number.quantize(values)) - values) ** 2).sum())

    best = min(error(exponent) for exponent in range(widest - bits, widest + 2))
    assert error(chosen) <= 1.02 * best
    if bits == 4 and not seed % 2:
        assert chosen < widest and error(chosen) < 0.95 * error(widest)


def test_parts_add_up():
    rng = np.random.default_rng(0)
    values = rng.standard_t(1, 1000)
    parts = Distribution(8)
    for part in np.split(values, 4):
        parts.add(torch.from_numpy(part))
    whole = distribution(values, 8)
    for method in ("max", "mse", 99.0, 99.9):
        assert parts.exponent(method) == whole.exponent(method)
    assert whole.exponent(99.0) < whole.exponent(99.9) < whole.exponent("max")


def test_methods():
    assert [method_of(text) for text in ("max", "mse", "99.9", 99)] == ["max", "mse", 99.9, 99.0]
    for text in ("mean", "nan", "101", "20"):
        with pytest.raises(ValueError, match=f"max, mse or a percentage .* not '{text}'"):
            method_of(text)
