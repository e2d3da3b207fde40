"""Dot products on integers, bit for bit what the RTL computes."""

from __future__ import annotations

from math import prod

from array_api_compat import array_namespace

from hwgen.fixed_point import Array, round_shift, saturate
from hwgen.units.activation.golden import activation, check_exponents
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.stochastic_rounding.golden import golden as round_stochastically
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

FLOAT_BITS = 53
"""Integers of up to 2^53 are float64 numbers, and so are all sums on the way there."""

RELU = 2
"""Value of `activate` for which a lane of any non-linearity applies relu."""

BLOCK = 1 << 16
"""Results that are finished at a time: what stays in a cache takes a tenth of the time."""


def accumulate(left: Array, right: Array, initial: Array | int) -> Array:
    """Return initial + Σ left·right over the last axis, exactly, in int64.

    Parameters
    ----------
    left, right : int64 arrays of shape (…, n), n pairs a dot product
    initial : int, or int64 array of shape (…)
    """
    xp = array_namespace(left, right)
    return xp.sum(left * right, axis=-1) + initial


def finish(accumulator: Array, shift: Array | int, spec: MacLaneSpec, *, activate: int = 0,
           i_exponent: int = 0, o_exponent: int = 0, seed: Array | int | None = None) -> Array:
    """Round accumulators once, saturate, and apply the lane's non-linearity if `activate`.

    Parameters
    ----------
    accumulator : int64 array
    shift : 0 to accumulator_bits − 1, an int or an int64 array that broadcasts
    spec : the lane
    activate : 0: no non-linearity; 1 (or true): the lane's; 2: relu, which every lane has
    i_exponent : exponent of the rounded sum, for the non-linearity
    o_exponent : exponent of the non-linearity's result
    seed : None rounds to nearest, ties to even. Otherwise the last axis is a tile, and results are
        rounded stochastically with the noise of this seed, an int or one a tile; the shift must be
        an int

    Raises
    ------
    ValueError
        If `activate`, a shift, an exponent or a seed is out of range, an accumulator needs more
        than accumulator_bits, or there is a seed and the lane has no noise. A gelu lane takes
        gelu's exponents for relu, too.
    """
    xp = array_namespace(accumulator)
    _check_shift(xp.asarray(shift, dtype=xp.int64), spec)
    _check_fits("accumulator", accumulator, spec.accumulator_bits)
    if activate not in (0, 1, 2):
        raise ValueError(f"activate must be 0, 1 or 2, not {activate}")
    unit = ActivationSpec(spec.bits, spec.nonlinearity)
    if activate == RELU:
        check_exponents(i_exponent, o_exponent, unit)
        unit = ActivationSpec(spec.bits, "relu")
    if seed is not None:
        if not spec.noise_bits:
            raise ValueError("seed must be None for a lane with noise_bits = 0, which only rounds "
                             f"to nearest, not {seed}")
        rounding = StochasticRoundingSpec(spec.accumulator_bits, spec.bits, spec.noise_bits)
        accumulator, shift = round_stochastically(accumulator, int(shift), seed, rounding), 0

    def finished(block: Array, shift: Array | int) -> Array:
        value = saturate(round_shift(block, shift), spec.bits)
        return activation(value, i_exponent, o_exponent, unit) if activate else value

    if prod(accumulator.shape) <= BLOCK:
        return finished(accumulator, shift)
    flat = xp.reshape(accumulator, (-1,))
    shifts = None if isinstance(shift, int) else xp.reshape(
        xp.broadcast_to(xp.asarray(shift, dtype=xp.int64), accumulator.shape), (-1,))
    parts = (slice(start, start + BLOCK) for start in range(0, flat.shape[0], BLOCK))
    return xp.reshape(xp.concat([finished(flat[part], shift if shifts is None else shifts[part])
                                 for part in parts]), accumulator.shape)


def lane(left: Array, right: Array, initial: Array | int, shift: Array | int, spec: MacLaneSpec, *,
         activate: int = 0, i_exponent: int = 0, o_exponent: int = 0,
         seed: Array | int | None = None) -> tuple[Array, Array]:
    """Value and accumulator of dot products over the last axis.

    Parameters
    ----------
    left, right : int64 arrays of shape (…, n) of numbers of `spec.bits` bits
    initial : int, or int64 array of shape (…); the accumulators' initial value
    shift, spec, activate, i_exponent, o_exponent, seed : as for `finish`

    Returns
    -------
    two int64 arrays of shape (…)

    Raises
    ------
    ValueError
        As `finish`, and if an operand does not fit or n is above what accumulator_bits is for.
    """
    _check_operands(left, right, initial, spec)
    accumulator = accumulate(left, right, initial)
    return finish(accumulator, shift, spec, activate=activate, i_exponent=i_exponent,
                  o_exponent=o_exponent, seed=seed), accumulator


def product(left: Array, right: Array, initial: Array | int, shift: Array | int, spec: MacLaneSpec,
            *, activate: int = 0, i_exponent: int = 0, o_exponent: int = 0) -> Array:
    """Values of a whole matrix product, whichever the order of its dot products.

    Parameters
    ----------
    left : int64 array of shape (…, I, K) of numbers of `spec.bits` bits
    right : int64 array of shape (…, K, J), likewise
    initial : int, or int64 array that broadcasts to (…, I, J): biases, of shape (J,)
    shift, spec, activate, i_exponent, o_exponent : as for `finish`; a shift may be one a column

    Returns
    -------
    int64 array of shape (…, I, J)

    Raises
    ------
    ValueError
        As `lane`.
    """
    _check_operands(left, right, initial, spec)
    return finish(_matmul(left, right, spec.bits) + initial, shift, spec, activate=activate,
                  i_exponent=i_exponent, o_exponent=o_exponent)


def _matmul(left: Array, right: Array, bits: int) -> Array:
    """Integer matrix product by float64 products that are exact."""
    xp = array_namespace(left, right)
    length = left.shape[-1]
    if _sum_bits(bits, bits, length) <= FLOAT_BITS:
        return xp.astype(xp.matmul(xp.astype(left, xp.float64), xp.astype(right, xp.float64)),
                         xp.int64)
    # Halves of the left operand: the upper one is signed, the lower one is not.
    low_bits = bits // 2
    upper, lower = left >> low_bits, left & ((1 << low_bits) - 1)
    wide = xp.astype(right, xp.float64)
    step = 1 << (FLOAT_BITS - _sum_bits(bits - low_bits + 1, bits, 1))
    total = 0
    for start in range(0, length, step):
        part = slice(start, start + step)
        products = [xp.astype(xp.matmul(xp.astype(half[..., part], xp.float64),
                                        wide[..., part, :]), xp.int64)
                    for half in (upper, lower)]
        total = total + (products[0] << low_bits) + products[1]
    return total


def _sum_bits(left_bits: int, right_bits: int, length: int) -> int:
    """Bits of the largest magnitude of a sum of products, which a power of two may reach."""
    return left_bits - 1 + right_bits - 1 + max(length - 1, 0).bit_length()


def _check_operands(left: Array, right: Array, initial: Array | int, spec: MacLaneSpec) -> None:
    xp = array_namespace(left, right)
    longest = 1 << (spec.accumulator_bits - 2 * spec.bits)
    if left.shape[-1] > longest:
        raise ValueError(f"dot products must be at most {longest} long for accumulator_bits = "
                         f"{spec.accumulator_bits}, not {left.shape[-1]}")
    _check_fits("left", left, spec.bits)
    _check_fits("right", right, spec.bits)
    _check_fits("initial", xp.asarray(initial, dtype=xp.int64), spec.accumulator_bits)


def _check_shift(shift: Array, spec: MacLaneSpec) -> None:
    xp = array_namespace(shift)
    low, high = int(xp.min(shift)), int(xp.max(shift))
    if low < 0 or high >= spec.accumulator_bits:
        raise ValueError(f"shift must be 0 to {spec.accumulator_bits - 1}, "
                         f"not {low if low < 0 else high}")


def _check_fits(name: str, value: Array, bits: int) -> None:
    if prod(value.shape) == 0:
        return
    xp = array_namespace(value)
    low, high = int(xp.min(value)), int(xp.max(value))
    limit = 1 << (bits - 1)
    if low < -limit or high >= limit:
        raise ValueError(f"{name} must fit {bits} bits, {-limit} to {limit - 1}, "
                         f"not {low if low < -limit else high}")
