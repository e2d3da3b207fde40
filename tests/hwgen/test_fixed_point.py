"""Fixed point: rounding, saturation and thresholds, against exact fractions."""

import math
from fractions import Fraction

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwgen.fixed_point import FixedPoint, integer_threshold, round_shift, saturate

INT = st.integers(-(2**61), 2**61)


@given(st.lists(INT, min_size=1, max_size=8), st.integers(0, 70))
def test_round_shift_is_exact_division_rounded_half_to_even(values: list[int], shift: int) -> None:
    expected = [round(Fraction(value, 2**shift)) for value in values]
    assert round_shift(np.asarray(values), shift).tolist() == expected
    assert round_shift(torch.tensor(values), shift).tolist() == expected
    assert round_shift(array_api_strict.asarray(values), shift).__array__().tolist() == expected


def test_round_shift_takes_an_array_of_shifts() -> None:
    assert round_shift(np.asarray([5, 6, 7, -6]), np.asarray([0, 2, 2, 2])).tolist() == [
        5,
        2,
        2,
        -2,
    ]


@given(st.integers(1, 24), st.booleans(), st.lists(INT, min_size=1, max_size=8))
def test_saturate_clamps_to_the_format(bits: int, signed: bool, values: list[int]) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    expected = [min(max(value, low), high) for value in values]
    assert saturate(np.asarray(values), bits, signed).tolist() == expected
    assert saturate(torch.tensor(values), bits, signed).tolist() == expected


@given(
    st.integers(4, 24),
    st.integers(-30, 10),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=8),
)
def test_quantize_is_the_nearest_integer_saturated(
    bits: int, exponent: int, values: list[float]
) -> None:
    number = FixedPoint(bits, exponent)
    expected = [
        min(max(round(Fraction(value) / Fraction(2) ** exponent), number.minimum), number.maximum)
        for value in values
    ]
    assert number.quantize(np.asarray(values)).tolist() == expected
    assert number.quantize(torch.tensor(values, dtype=torch.float64)).tolist() == expected
    back = number.dequantize(np.asarray(expected))
    assert back.tolist() == [float(n * Fraction(2) ** exponent) for n in expected]


def test_quantize_saturates_infinity_and_refuses_nan() -> None:
    number = FixedPoint(8, -4)
    assert number.quantize(np.asarray([math.inf, -math.inf])).tolist() == [127, -128]
    with pytest.raises(ValueError, match="NaN"):
        number.quantize(np.asarray([1.0, math.nan]))


def test_unsigned_limits_and_widths() -> None:
    assert (FixedPoint(4, 0, False).minimum, FixedPoint(4, 0, False).maximum) == (0, 15)
    for bits in (0, 63):
        with pytest.raises(ValueError, match="bits must be 1 to 62"):
            FixedPoint(bits, 0)


@given(st.floats(0, 1e6, allow_subnormal=False), st.integers(-40, 40))
def test_integer_threshold_keeps_what_the_float_comparison_keeps(tau: float, exponent: int) -> None:
    threshold = integer_threshold(tau, exponent)
    value = Fraction(2) ** exponent
    assert threshold * value >= Fraction(tau)
    assert (threshold - 1) * value < Fraction(tau)


@pytest.mark.parametrize("tau", [-0.1, math.inf, math.nan])
def test_integer_threshold_refuses(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be a finite number"):
        integer_threshold(tau, -16)
