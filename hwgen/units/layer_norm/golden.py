"""Layer norm on integers, bit for bit what the RTL computes."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace, device

from hwgen.fixed_point import round_shift, saturate
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.layer_norm.table import (
    ROOT_GUARD,
    TERM_FRACTION,
    Format,
    epsilon_mantissa,
    reciprocal_root,
)

LIMB = 36
"""Split of the variance: n·Σx² − (Σx)² takes up to 70 bits."""

MANTISSA = 58
"""The exact variance is held as m · 2^e with e even and 2^58 <= m < 2^60."""


def golden(
    x: Any,
    i_exponent: int,
    gamma: Any,
    gamma_exponent: int,
    beta: Any,
    beta_exponent: int,
    o_exponent: int,
    spec: LayerNormSpec,
    valid_mask: Any | None = None,
) -> Any:
    """(x − mean) / √(variance + ε) · γ + β along the last axis.

    With integers X, the normalised row is (n·X − ΣX) / √(n·ΣX² − (ΣX)² + ε·n²·2^(−2·i_exponent)),
    whose sums are exact. (n·X − ΣX)·γ is exact, too; it is moved to TERM_FRACTION bits below the
    output's ulp, multiplied by the reciprocal root's mantissa, β is added and the sum is rounded
    once, ties to even.

    Parameters
    ----------
    x : int64 array [..., n], each `bits` wide, n at most `max_row`
    gamma, beta : int64 arrays [n], each `bits` wide
    i_exponent, gamma_exponent, beta_exponent, o_exponent : exponents of x, γ, β and the result
    spec : the module
    valid_mask : booleans that broadcast with `x`; positions that are false count neither in n nor
        in the sums, and get 0

    Returns
    -------
    int64 array of the shape of `x`, saturating at `bits` bits. At most 1 ulp from the exact value
    for every row, whatever its variance, as long as both the scaled row and β are at most eight
    times the output's range before they are added; a constant row gives β, rounded once.
    tests/hwgen/units/test_layer_norm_bound.py adds the worst of the parts up, to 0.942 at most; the
    largest seen is 0.61.

    Raises
    ------
    ValueError
        If the rows are longer than `max_row`.
    """
    n = x.shape[-1]
    if n > spec.max_row:
        raise ValueError(f"rows must have at most {spec.max_row} elements, not {n}")
    xp = array_namespace(x, gamma, beta)
    form = Format.of(spec)
    if valid_mask is not None:
        valid_mask = xp.broadcast_to(
            xp.astype(xp.asarray(valid_mask, device=device(x)), xp.bool), x.shape
        )
        x = xp.where(valid_mask, x, xp.zeros_like(x))
    total = xp.sum(x, axis=-1, keepdims=True, dtype=xp.int64)
    squares = xp.sum(x * x, axis=-1, keepdims=True, dtype=xp.int64)
    if valid_mask is None:
        count = xp.full_like(total, n)
    else:
        count = xp.sum(xp.astype(valid_mask, xp.int64), axis=-1, keepdims=True, dtype=xp.int64)
    root, half_exponent = _root(total, squares, count, i_exponent, spec.epsilon, form)

    # The result in ulps is (n·x − Σx)·γ · root · 2^(−fraction − half_exponent + …).
    shift = half_exponent + (o_exponent - gamma_exponent - TERM_FRACTION)
    scaled = _align((count * x - total) * gamma, shift, form.window - 1)
    offset = beta_exponent - o_exponent + TERM_FRACTION
    aligned = _align(beta, xp.full_like(beta, -offset), form.offset - 1, sticky=True)
    result = scaled * root + (aligned << form.fraction)
    result = saturate(round_shift(result, form.fraction + TERM_FRACTION), spec.bits)
    return result if valid_mask is None else xp.where(valid_mask, result, xp.zeros_like(result))


def _root(
    total: Any, squares: Any, count: Any, i_exponent: int, epsilon: float, form: Format
) -> tuple[Any, Any]:
    """1/√(n·Σx² − (Σx)² + ε·n²·4^−i_exponent) as root · 2^−fraction · 2^−half_exponent."""
    xp = array_namespace(total)
    exact, exponent = _variance(total, squares, count)
    # A row without variance may have anything here: nothing is multiplied by its root.
    mantissa = xp.where(exact == 0, xp.ones_like(exact) << MANTISSA, exact)
    mantissa = mantissa >> (MANTISSA - form.mantissa)
    power = (exponent + MANTISSA) // 2
    added, added_power = _epsilon_term(count, epsilon, form)
    added_power = added_power - i_exponent
    top = xp.maximum(power, added_power)
    mantissa = (mantissa >> xp.clip(2 * (top - power), 0, 63)) + (
        added >> xp.clip(2 * (top - added_power), 0, 63)
    )
    over = mantissa >= 4 << form.mantissa
    mantissa = xp.where(over, mantissa >> 2, mantissa)
    value = reciprocal_root(form.fraction).evaluate(_root_argument(mantissa, form))
    rounded = (value + (1 << (ROOT_GUARD - 1))) >> ROOT_GUARD
    root = xp.minimum(rounded, xp.full_like(rounded, (1 << form.fraction) - 1))
    return root, top + xp.astype(over, xp.int64)


def _variance(total: Any, squares: Any, n: Any) -> tuple[Any, Any]:
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


def _epsilon_term(count: Any, epsilon: float, form: Format) -> tuple[Any, Any]:
    """ε · n² as m · 4^e with `mantissa` bits after the point of m, at least 1 and below 4."""
    xp = array_namespace(count)
    constant, power = epsilon_mantissa(epsilon, form.mantissa)
    # n is moved up to 2^growth or more; a row without elements has no use for this.
    filled = xp.maximum(count, xp.ones_like(count))
    length_power = xp.zeros_like(count)
    for level in range(1, form.growth + 1):
        length_power = length_power + xp.astype(filled >= 1 << level, xp.int64)
    filled = filled << (form.growth - length_power)
    product = (constant * filled * filled) >> (2 * form.growth)
    over = product >= 4 << form.mantissa
    return xp.where(over, product >> 2, product), (
        length_power + power + xp.astype(over, xp.int64)
    )


def _root_argument(mantissa: Any, form: Format) -> Any:
    """Octave (1 bit) and place in it (`fraction` bits) of a mantissa."""
    xp = array_namespace(mantissa)
    drop = form.mantissa - form.fraction
    second = mantissa >= 2 << form.mantissa
    return xp.where(second, mantissa >> (drop + 1), (mantissa >> drop) - (1 << form.fraction))


def _align(value: Any, shift: Any, width: int, sticky: bool = False) -> Any:
    """Value · 2^−shift, saturating at −2^width and 2^width − 1.

    Bits lost are cut off, or leave a last bit that is set where any of them was (`sticky`).
    """
    xp = array_namespace(value)
    limit = 1 << width
    left, right = xp.clip(-shift, 0, width), xp.clip(shift, 0, 63)
    # What saturates before a shift to the left also saturates after it.
    wide = xp.clip(value, -limit, limit) << left
    floor = value >> right
    if sticky:
        floor = floor | xp.astype((floor << right) != value, xp.int64)
    return xp.clip(xp.where(shift < 0, wide, floor), -limit, limit - 1)
