"""Which power of two a tensor is stored in: by its range, a percentile, or the least error."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

EXPONENT_RANGE = (-128, 127)
"""What an exponent port of 8 bits holds."""

Method = float | Literal["max", "mse"]
"""How an exponent is chosen: "max", nothing seen saturates; a percentage, so many of the values
seen do not; "mse", least mean squared error of the values seen."""


def method_of(text: str | float) -> Method:
    """Read a method: "max", "mse", or a percentage such as 99.9.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if text in ("max", "mse"):
        return text  # type: ignore[return-value]  # mypy does not narrow by membership
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 50 <= share <= 100:
        raise ValueError(
            f"calibration must be max, mse or a percentage from 50 to 100, such as 99.9, "
            f"not {text!r}"
        )
    return share


def exponent_of(smallest: float, largest: float, bits: int) -> int:
    """Smallest exponent at which neither value saturates, rounded to nearest, ties to even.

    Exponents end at EXPONENT_RANGE.

    Parameters
    ----------
    smallest, largest : the range of a tensor
    bits : width of a value

    Raises
    ------
    ValueError
        If the range is not finite.
    """
    if not (math.isfinite(smallest) and math.isfinite(largest)):
        raise ValueError(f"the range of a tensor must be finite, not {smallest} to {largest}")
    limit = 1 << (bits - 1)

    def fits(exponent: int) -> bool:
        scale = 2.0**-exponent
        return round(largest * scale) <= limit - 1 and round(smallest * scale) >= -limit

    magnitude = max(abs(smallest), abs(largest))
    if magnitude == 0:
        return 1 - bits
    # frexp gives the power of two above the magnitude, so this is one less than nearly always fits.
    exponent = max(math.frexp(magnitude)[1] - bits, EXPONENT_RANGE[0])
    while exponent < EXPONENT_RANGE[1] and not fits(exponent):
        exponent += 1
    return exponent


class Distribution:
    """Values of a tensor, counted by the smallest exponent at which each does not saturate.

    A percentile is then exact. Of a mean squared error so is what saturates and what vanishes; the
    rounding of everything else is taken as uniform, Δ²/12 a value.

    Parameters
    ----------
    bits : width of a value
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self._exponents = np.arange(EXPONENT_RANGE[0], EXPONENT_RANGE[1] + 1)
        # Number, sum of magnitudes and of squares: of values from 0 up, and of negative ones.
        self._moments = np.zeros((3, 2, len(self._exponents)))

    def add(self, values: Tensor) -> None:
        """Count the values of a floating-point tensor of any shape."""
        wide = values.detach().flatten().double()
        magnitude, negative = wide.abs(), wide < 0
        # Ties go to the even limit: too far for a positive value, the last integer of a negative
        # one. A quotient of numbers of 25 bits is never rounded to a power of two that it is not.
        limit = 1 << (self.bits - 1)
        quotient, power = torch.frexp(magnitude / (limit - 0.5 + negative.double()))
        power = power - (negative & (quotient == 0.5)).to(power.dtype)
        low, high = EXPONENT_RANGE
        power = torch.where(magnitude == 0, low, power).clamp(low, high)
        places = len(self._exponents)
        index = (power - low).long() + places * negative
        for moment, weights in enumerate((None, magnitude, magnitude * magnitude)):
            counted = torch.bincount(index, weights, minlength=2 * places)
            self._moments[moment] += counted.reshape(2, places).cpu().numpy()

    def exponent(self, method: Method) -> int:
        """Exponent by a method; 1 − bits for a tensor of zeros, as `exponent_of`."""
        counts = self._moments[0].sum(0)
        magnitudes = self._moments[1].sum(0)
        if not magnitudes.any():
            return 1 - self.bits
        highest = int(np.flatnonzero(magnitudes)[-1])
        if method == "mse":
            lowest = max(highest - self.bits + 1, 0)
            errors = [self._squared_error(place) for place in range(lowest, highest + 1)]
            return int(self._exponents[lowest + int(np.argmin(errors))])
        share = 100.0 if method == "max" else method
        # What is added makes up for the rounding of the product, which should be whole at times.
        allowed = math.floor(counts.sum() * (100 - share) / 100 + 1e-6)
        above = counts.sum() - np.cumsum(counts)
        place = int(np.flatnonzero(above <= allowed)[0])
        return int(self._exponents[min(place, highest)])

    def _squared_error(self, place: int) -> float:
        """Sum of squared errors at an exponent."""
        unit = 2.0 ** int(self._exponents[place])
        bounds = np.array([(1 << (self.bits - 1)) - 1, 1 << (self.bits - 1)])[:, None] * unit
        count, total, squares = self._moments[:, :, place + 1 :]
        clipped = (squares - 2 * bounds * total + bounds * bounds * count).sum()
        vanishing = max(place - self.bits + 1, 0)
        lost = self._moments[2, :, :vanishing].sum()
        rounded = self._moments[0, :, vanishing : place + 1].sum() * unit * unit / 12
        return float(clipped + lost + rounded)
