"""Two's-complement fixed point with a power-of-two exponent a tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

Array = Any
"""An array of NumPy, PyTorch or any other library that keeps the Python array API standard."""


def round_shift(value: Array, shift: Array | int) -> Array:
    """Divide integers by 2**shift and round to nearest, ties to even.

    Parameters
    ----------
    value : int64 array of any shape
    shift : int or int64 array that broadcasts with `value`, each at least 0

    Returns
    -------
    int64 array of the broadcast shape
    """
    xp = array_namespace(value)
    if isinstance(shift, int):
        if shift == 0:
            return value
        shift = min(shift, 63)
        # An odd floor counts the tie among what is above half. Nothing here overflows at 63.
        floor = value >> shift
        up = (value & ((1 << shift) - 1)) > (1 << (shift - 1)) - (floor & 1)
        return floor + xp.astype(up, xp.int64)
    shift = xp.asarray(shift, dtype=xp.int64)
    # A shift of 63 leaves the sign alone, which is what every longer shift leaves too.
    shift = xp.where(shift > 63, xp.full_like(shift, 63), shift)
    floor = value >> shift
    remainder = value - (floor << shift)
    half = xp.where(
        shift > 0,
        xp.ones_like(shift) << xp.where(shift > 0, shift - 1, 0 * shift),
        xp.full_like(shift, 2**62),
    )
    up = (remainder > half) | ((remainder == half) & ((floor & 1) == 1))
    return floor + xp.astype(up, xp.int64)


def saturate(value: Array, bits: int, signed: bool = True) -> Array:
    """Clamp integers to what `bits` bits can hold."""
    number = FixedPoint(bits, 0, signed)
    return array_namespace(value).clip(value, number.minimum, number.maximum)


def integer_threshold(tau: float, exponent: int) -> int:
    """Smallest integer magnitude that a threshold keeps: ⌈tau · 2^−exponent⌉, exactly.

    Raises
    ------
    ValueError
        If `tau` is negative or not finite.
    """
    if not 0 <= tau < float("inf"):
        raise ValueError(f"tau must be a finite number of at least 0, not {tau}")
    numerator, denominator = float(tau).as_integer_ratio()
    if exponent >= 0:
        denominator <<= exponent
    else:
        numerator <<= -exponent
    return -(-numerator // denominator)


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """A number format: value = integer · 2^exponent.

    Parameters
    ----------
    bits : width in bits, sign included
    exponent : weight of the last bit as a power of two
    signed : two's complement if true

    Raises
    ------
    ValueError
        If `bits` is outside 1 to 62: integers are computed in int64.
    """

    bits: int
    exponent: int
    signed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 62:
            raise ValueError(f"bits must be 1 to 62, not {self.bits}")

    @property
    def minimum(self) -> int:
        """Smallest integer."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Largest integer."""
        return (1 << (self.bits - 1 if self.signed else self.bits)) - 1

    def quantize(self, value: Array) -> Array:
        """Nearest integers, ties to even, saturating; the shape of `value`, int64.

        Raises
        ------
        ValueError
            If a value is NaN.
        """
        xp = array_namespace(value)
        wide = xp.astype(value, xp.float64)
        if bool(xp.any(xp.isnan(wide))):
            raise ValueError("values to quantize must be numbers, found NaN")
        # Multiplying by a power of two is exact in float64; the clamp keeps the cast in range.
        scaled = xp.round(wide * 2.0**-self.exponent)
        return xp.astype(xp.clip(scaled, float(self.minimum), float(self.maximum)), xp.int64)

    def dequantize(self, integer: Array) -> Array:
        """Values of integers as float64, exactly for up to 53 bits."""
        xp = array_namespace(integer)
        return xp.astype(integer, xp.float64) * 2.0**self.exponent
