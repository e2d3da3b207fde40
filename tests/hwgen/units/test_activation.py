"""relu and gelu against exact arithmetic."""

from fractions import Fraction
from types import SimpleNamespace

import array_api_strict
import mpmath
import numpy as np
import pytest
from scipy.special import ndtr

from hwgen.units.activation import golden
from hwgen.units.activation.cost import cycles, latency
from hwgen.units.activation.golden import activation, scaled_tail
from hwgen.units.activation.probes import probes
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.activation.table import LARGEST_GAIN, LIMIT_LOG2, tail_table, upper_tail

ERROR_BOUND = 0.75
"""Units in the last place; measured 0.73 at 20 bits. The contract is 1."""


def all_values(bits: int) -> np.ndarray:
    return np.arange(-(1 << (bits - 1)), 1 << (bits - 1))


def gelu_error(value: np.ndarray, i_exponent: int, o_exponent: int, spec: ActivationSpec) -> float:
    """Largest distance from the saturated x·Φ(x), in units of the output's last place."""
    x = value * 2.0**i_exponent
    limit = 1 << (spec.bits - 1)
    wanted = np.clip(x * ndtr(x) * 2.0**-o_exponent, -limit, limit - 1)
    return float(np.abs(activation(value, i_exponent, o_exponent, spec) - wanted).max())


@pytest.mark.parametrize("bits", [4, 5, 6, 7, 8, 9, 10, 11, 12])
def test_gelu_is_within_an_ulp_for_every_value_and_exponent(bits: int) -> None:
    spec = ActivationSpec(bits, "gelu")
    values = all_values(bits)
    for i_exponent in range(-bits - 6, LIMIT_LOG2 + 3):
        for fall in range(-LARGEST_GAIN, 6):
            assert gelu_error(values, i_exponent, i_exponent + fall, spec) < ERROR_BOUND


@pytest.mark.parametrize("bits", [16, 20, 24])
def test_gelu_is_within_an_ulp_for_wide_values(bits: int) -> None:
    spec = ActivationSpec(bits, "gelu")
    rng = np.random.default_rng(bits)
    limit = 1 << (bits - 1)
    small = np.arange(-300, 301)
    for i_exponent in (-60, *range(-bits - 4, 6 - bits), -2, LIMIT_LOG2, 127):
        segment = 2.0 ** (-3 - i_exponent)
        starts = np.rint(np.clip(np.arange(-64, 65) * segment, 1 - limit, limit - 2))
        values = np.concatenate([small, starts.astype(np.int64), starts.astype(np.int64) - 1,
                                 rng.integers(-limit, limit, size=3000), [-limit, limit - 1]])
        for fall in (-4, -3, -1, 0, 2, bits - 2):
            if i_exponent + fall <= 127:
                assert gelu_error(values, i_exponent, i_exponent + fall, spec) < ERROR_BOUND


def test_gelu_agrees_with_mpmath() -> None:
    spec = ActivationSpec(20, "gelu")
    rng = np.random.default_rng(5)
    for i_exponent, o_exponent in ((-16, -16), (-16, -20), (-18, -17)):
        values = rng.integers(-(1 << 19), 1 << 19, size=100)
        results = activation(values, i_exponent, o_exponent, spec)
        for value, result in zip(values.tolist(), results.tolist(), strict=True):
            x = mpmath.ldexp(value, i_exponent)
            wanted = mpmath.ldexp(x * mpmath.ncdf(x), -o_exponent)
            assert abs(result - min(wanted, (1 << 19) - 1)) < ERROR_BOUND


def test_gelu_is_nearest_to_the_truth_on_average() -> None:
    # A cut-off that is not made up for shows as an offset of the mean.
    values = all_values(16)
    x = values * 2.0**-13
    error = activation(values, -13, -16, ActivationSpec(16, "gelu")) - x * ndtr(x) * 2.0**16
    unsaturated = np.abs(x * ndtr(x)) < 0.49
    assert abs(error[unsaturated].mean()) < 0.02


@pytest.mark.parametrize("bits", [8, 20, 24])
def test_tails_of_gelu_are_exact(bits: int) -> None:
    spec = ActivationSpec(bits, "gelu")
    i_exponent = 5 - bits  # the numbers reach to ±16
    edge = 1 << (LIMIT_LOG2 - i_exponent)
    beyond = np.asarray([edge, edge + 1, 2 * edge - 1])
    np.testing.assert_array_equal(activation(beyond, i_exponent, i_exponent, spec), beyond)
    np.testing.assert_array_equal(activation(-beyond, i_exponent, i_exponent, spec), 0 * beyond)
    odd = np.asarray([edge + 1, edge + 3, edge + 5])
    ties = [Fraction(int(value), 2) for value in odd]
    assert activation(odd, i_exponent, i_exponent + 1, spec).tolist() == [round(t) for t in ties]
    saturated = activation(beyond, i_exponent, i_exponent - LARGEST_GAIN, spec)
    assert saturated.tolist() == [(1 << (bits - 1)) - 1] * 3


@pytest.mark.parametrize("bits", [4, 8])
def test_relu_is_exact(bits: int) -> None:
    spec = ActivationSpec(bits, "relu")
    values = all_values(bits)
    for fall in (*range(-bits - 2, bits + 3), -255, 255):
        i_exponent = 127 if fall < -200 else -128 if fall > 200 else 0
        # Python rounds fractions to nearest, ties to even.
        wanted = [min(round(max(int(value), 0) / Fraction(2) ** fall), (1 << (bits - 1)) - 1)
                  for value in values]
        assert activation(values, i_exponent, i_exponent + fall, spec).tolist() == wanted


@pytest.mark.parametrize("bits", [4, 8, 12, 16, 20, 24])
def test_table_is_the_cubic_through_chebyshev_nodes(bits: int) -> None:
    table = tail_table(bits)
    segments = len(table.coefficients)
    assert 2 ** (table.argument_bits + LIMIT_LOG2 - table.segment_bits) == segments
    with mpmath.workdps(40):
        nodes = [(1 - mpmath.cos((2 * k + 1) * mpmath.pi / 8)) / 2 for k in range(4)]
        powers = mpmath.matrix([[node**power for power in range(4)] for node in nodes])
        for segment, row in enumerate(table.coefficients):
            values = mpmath.matrix([mpmath.ncdf(-(segment + node) * (1 << LIMIT_LOG2) / segments)
                                    for node in nodes])
            wanted = mpmath.lu_solve(powers, values) * 2**table.fraction_bits
            # All but the cube's stand half a unit higher, to make up for cut-off products.
            for power, value in enumerate(row):
                assert abs(value - wanted[power] - (0.5 if power < 3 else 0)) < 0.501


@pytest.mark.parametrize("bits", [4, 8, 12, 16, 20, 24])
def test_integer_tail_agrees_with_float(bits: int) -> None:
    table = tail_table(bits)
    rng = np.random.default_rng(bits)
    argument = rng.integers(0, 8 << table.argument_bits, size=20000)
    tail = scaled_tail(argument, -table.argument_bits, bits)
    error = tail - ndtr(-argument * 2.0**-table.argument_bits) * 2.0**table.fraction_bits
    assert np.abs(error).max() < 7
    assert abs(error.mean()) < 0.75


def test_series_agrees_with_mpmath() -> None:
    with mpmath.workdps(70):
        for argument in (Fraction(0), Fraction(1, 1000), Fraction(1), Fraction(17, 8), Fraction(8)):
            wanted = mpmath.erfc(mpmath.mpf(argument.numerator) / argument.denominator
                                 / mpmath.sqrt(2)) / 2
            tail = upper_tail(argument)
            error = mpmath.mpf(tail.numerator) / tail.denominator - wanted
            assert abs(error) < mpmath.mpf(2) ** -190


@pytest.mark.parametrize("nonlinearity", ["relu", "gelu"])
def test_libraries_agree(nonlinearity: str) -> None:
    torch = pytest.importorskip("torch")
    spec = ActivationSpec(20, nonlinearity)
    values = np.random.default_rng(1).integers(-(1 << 19), 1 << 19, size=(3, 5, 40))
    wanted = activation(values, -17, -18, spec)
    assert wanted.dtype == np.int64 and wanted.shape == values.shape
    strict = activation(array_api_strict.asarray(values), -17, -18, spec)
    np.testing.assert_array_equal(np.asarray(strict), wanted)
    got = activation(torch.asarray(values), -17, -18, spec)
    assert got.dtype == torch.int64
    np.testing.assert_array_equal(got.numpy(), wanted)


def test_exponents_out_of_range_are_refused() -> None:
    value = np.asarray([1])
    with pytest.raises(ValueError, match="i_exponent must be -128 to 127, not 128"):
        activation(value, 128, 0, ActivationSpec(8, "relu"))
    with pytest.raises(ValueError, match="o_exponent must be -128 to 127, not -129"):
        activation(value, -128, -129, ActivationSpec(8, "gelu"))
    with pytest.raises(ValueError, match="at least i_exponent - 4 = -7, not -8"):
        activation(value, -3, -8, ActivationSpec(8, "gelu"))


def test_latency() -> None:
    both = SimpleNamespace(nonlinearity=np.asarray(["relu", "gelu"]))
    np.testing.assert_array_equal(latency(both), [2, 10])
    assert cycles(ActivationSpec(8, "relu"), 10) == 12
    assert cycles(ActivationSpec(8, "gelu"), 1) == 11


@pytest.mark.parametrize(("bits", "least"), [(8, 0.2), (16, 0.5), (20, 0.5)])
def test_probes_show_a_changed_last_bit(bits: int, least: float, monkeypatch: pytest.MonkeyPatch
                                        ) -> None:
    # Guard bits make some last bits of no consequence; most others must show.
    spec = ActivationSpec(bits, "gelu")
    i_exponent = LIMIT_LOG2 - (bits - 1)
    values = probes(spec, i_exponent, i_exponent - LARGEST_GAIN, np.random.default_rng(2))
    wanted = activation(values, i_exponent, i_exponent - LARGEST_GAIN, spec)
    columns = [column.copy() for column in golden._columns(np, bits, "cpu")]
    monkeypatch.setattr(golden, "_columns", lambda *_: columns)

    def shows(power: int, segment: int, change: int) -> bool:
        columns[power][segment] += change
        got = activation(values, i_exponent, i_exponent - LARGEST_GAIN, spec)
        columns[power][segment] -= change
        return bool(np.any(got != wanted))

    segments = range(len(columns[0]) // 2)
    assert np.mean([shows(0, segment, 1) for segment in segments]) >= least
    # From the fifth bit on, each bit of each coefficient counts where gelu is not flat.
    for power in range(4):
        assert all(shows(power, segment, 32) for segment in segments)
