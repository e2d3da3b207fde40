"""Piecewise quadratic polynomials on integers, for functions that fall and are convex."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

from array_api_compat import array_namespace, device

DIGITS = 40
"""Decimal digits with which tables are computed, the same on every platform."""


@dataclass(frozen=True)
class Quadratic:
    """f(u) for u in [0, 1) as p(v) = c0 − v·(c1 − v·c2) on 2^index_bits equal segments.

    The argument is `index_bits` + `offset_bits` bits wide: a segment and the place v in it. The
    result has `fraction_bits` bits after the point; each product is cut off to as many.

    Parameters
    ----------
    index_bits, offset_bits, fraction_bits : widths as above
    c0, c1, c2 : coefficients of each segment, non-negative, in units of 2^−fraction_bits
    """

    index_bits: int
    offset_bits: int
    fraction_bits: int
    c0: tuple[int, ...]
    c1: tuple[int, ...]
    c2: tuple[int, ...]

    @classmethod
    def interpolate(
        cls,
        function: Callable[[Decimal], Decimal],
        index_bits: int,
        argument_bits: int,
        fraction_bits: int,
    ) -> Quadratic:
        """Table of the parabolas through both ends and the middle of each segment."""
        with localcontext() as context:
            context.prec = DIGITS
            halves = 2 << index_bits
            values = [function(Decimal(i) / halves) * 2**fraction_bits for i in range(halves + 1)]
            left, middle, right = values[:-1:2], values[1::2], values[2::2]
            points = list(zip(left, middle, right, strict=True))
            return cls(
                index_bits,
                argument_bits - index_bits,
                fraction_bits,
                tuple(round(a) for a, _, _ in points),
                tuple(round(3 * a - 4 * b + c) for a, b, c in points),
                tuple(round(2 * (a - 2 * b + c)) for a, b, c in points),
            )

    def evaluate(self, argument: Any) -> Any:
        """Polynomial of an int64 array of arguments; int64, in units of 2^−fraction_bits."""
        xp = array_namespace(argument)
        segment = xp.reshape(argument >> self.offset_bits, (-1,))
        offset = argument & ((1 << self.offset_bits) - 1)

        def take(table: tuple[int, ...]) -> Any:
            values = xp.asarray(table, dtype=xp.int64, device=device(argument))
            return xp.reshape(xp.take(values, segment, axis=0), argument.shape)

        slope = take(self.c1) - ((take(self.c2) * offset) >> self.offset_bits)
        return take(self.c0) - ((slope * offset) >> self.offset_bits)
