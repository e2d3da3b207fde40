"""Layer norm on integers."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

from hwgen.fixed_point import round_shift, saturate
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.layer_norm.table import (
    HEADROOM,
    MANTISSA,
    TERM_FRACTION,
    epsilon_term,
    fraction_bits,
    reciprocal_root,
)

LIMB = 36
"""Split of the variance: n·Σx² − (Σx)² takes up to 70 bits."""

HALF_LIMB = 30
"""Split of the product with the reciprocal root, up to 89 bits."""


def golden(
    x: Any,
    i_exponent: int,
    gamma: Any,
    gamma_exponent: int,
    beta: Any,
    beta_exponent: int,
    o_exponent: int,
    spec: LayerNormSpec,
) -> Any:
    """(x − mean) / √(variance + ε) · γ + β along the last axis.

    With integers X, the normalised row is (n·X − ΣX) / √(n·ΣX² − (ΣX)² + ε·n²·2^(−2·i_exponent)),
    whose sums are exact. Only the reciprocal root is approximated, to 2^−(bits + 2) relative; it
    multiplies the exact (n·X − ΣX)·γ, β is added and the sum is rounded once, ties to even.

    Parameters
    ----------
    x : int64 array [..., n], each `bits` wide, n at most `max_row`
    gamma, beta : int64 arrays [n], each `bits` wide
    i_exponent, gamma_exponent, beta_exponent, o_exponent : exponents of x, γ, β and the result
    spec : the module

    Returns
    -------
    int64 array of the shape of `x`, saturating at `bits` bits. At most 1 ulp from the exact value
    for every row, whatever its variance, as long as the scaled row is at most eight times the
    output's range before β is added; a constant row gives β, rounded once.

    Raises
    ------
    ValueError
        If the rows are longer than `max_row`.
    """
    n = x.shape[-1]
    if n > spec.max_row:
        raise ValueError(f"rows must have at most {spec.max_row} elements, not {n}")
    xp = array_namespace(x, gamma, beta)
    total = xp.sum(x, axis=-1, keepdims=True, dtype=xp.int64)
    squares = xp.sum(x * x, axis=-1, keepdims=True, dtype=xp.int64)
    mantissa, exponent = _add_epsilon(*_variance(total, squares, n), n, i_exponent, spec)
    fraction = fraction_bits(spec.bits)
    root = reciprocal_root(fraction).evaluate(_root_argument(mantissa, fraction))

    # The result in ulps is (n·x − Σx)·γ · root · 2^−shift.
    shift = exponent // 2 + (fraction + MANTISSA // 2 + o_exponent - gamma_exponent)
    limit = 1 << (spec.bits + HEADROOM + TERM_FRACTION)
    scaled = _scale((n * x - total) * gamma, root, shift - TERM_FRACTION, limit)
    offset = _align(beta, beta_exponent - o_exponent + TERM_FRACTION, limit)
    return saturate(round_shift(scaled + offset, TERM_FRACTION), spec.bits)


def _variance(total: Any, squares: Any, n: int) -> tuple[Any, Any]:
    """n·squares − total² as mantissa below 2^60 (at least 2^58 where not 0) and even exponent."""
    xp = array_namespace(total)
    half = LIMB // 2
    mask, half_mask = (1 << LIMB) - 1, (1 << half) - 1
    upper, lower = total >> half, total & half_mask
    low = n * (squares & mask) - ((upper * lower) << (half + 1)) - lower * lower
    high = n * (squares >> LIMB) - upper * upper + (low >> LIMB)
    low = low & mask
    # Bits below the 2^16 of a variance of 2^58 and more are less than 2^−42 of it.
    wide = high >= 1 << (MANTISSA - LIMB)
    mantissa = xp.where(wide, (high << (LIMB - 16)) + (low >> 16), (high << LIMB) + low)
    exponent = xp.where(wide, xp.full_like(high, 16), xp.zeros_like(high))
    for step in (32, 16, 8, 4, 2):
        small = mantissa < 1 << (MANTISSA + 2 - step)
        mantissa = xp.where(small, mantissa << step, mantissa)
        exponent = xp.where(small, exponent - step, exponent)
    return mantissa, exponent


def _add_epsilon(
    mantissa: Any, exponent: Any, n: int, i_exponent: int, spec: LayerNormSpec
) -> tuple[Any, Any]:
    """Add ε·n²·2^(−2·i_exponent) to a variance, normalised as before."""
    xp = array_namespace(mantissa)
    added, added_exponent = epsilon_term(spec.epsilon, n, i_exponent)
    low = xp.full_like(exponent, added_exponent)
    exponent = xp.where(mantissa == 0, low, exponent)
    top = xp.maximum(exponent, low)
    mantissa = (mantissa >> xp.clip(top - exponent, 0, 63)) + (
        xp.full_like(mantissa, added) >> xp.clip(top - low, 0, 63)
    )
    over = mantissa >= 4 << MANTISSA
    return xp.where(over, mantissa >> 2, mantissa), xp.where(over, top + 2, top)


def _root_argument(mantissa: Any, fraction: int) -> Any:
    """Octave (1 bit) and place in it (`fraction` bits) of a mantissa."""
    xp = array_namespace(mantissa)
    second = mantissa >= 2 << MANTISSA
    return xp.where(
        second,
        mantissa >> (MANTISSA + 1 - fraction),
        (mantissa >> (MANTISSA - fraction)) - (1 << fraction),
    )


def _scale(value: Any, root: Any, shift: Any, limit: int) -> Any:
    """Floor of value · root · 2^−shift, saturating at ±limit."""
    xp = array_namespace(value)
    low = (value & ((1 << HALF_LIMB) - 1)) * root
    high = (value >> HALF_LIMB) * root + (low >> HALF_LIMB)
    low = low & ((1 << HALF_LIMB) - 1)
    # The root is at least a half: nothing is left, or `limit` reached, beyond these shifts.
    shift = xp.clip(shift, -HEADROOM - TERM_FRACTION, HALF_LIMB + 63)
    # Where `high` is beyond `bound`, so is the result beyond `limit`, and the left shift is safe.
    power = xp.clip(shift + (limit.bit_length() - 1 - HALF_LIMB), 0, 60)
    bound = xp.ones_like(power) << power
    high = xp.minimum(xp.maximum(high, -bound - 1), bound)
    left = xp.clip(HALF_LIMB - shift, 0, 63)
    right = xp.clip(shift - HALF_LIMB, 0, 63)
    upper = (high << left) >> right
    lower = (low >> xp.clip(shift, 0, 63)) << xp.clip(-shift, 0, 63)
    return xp.clip(upper + lower, -limit, limit)


def _align(value: Any, shift: int, limit: int) -> Any:
    """Value · 2^shift, saturating at ±limit; bits lost leave a sticky last bit."""
    xp = array_namespace(value)
    if shift >= 0:
        return xp.clip(value << min(shift, limit.bit_length()), -limit, limit)
    right = min(-shift, 63)
    floor = value >> right
    sticky = xp.astype((floor << right) != value, xp.int64)
    return xp.clip(floor | sticky, -limit, limit)
