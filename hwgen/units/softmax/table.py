"""Widths, constants and tables that the softmax module's golden model and RTL share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, localcontext
from functools import cache, cached_property

from hwgen.units.quadratic import DIGITS
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.truncated import digits_of, truncated

GUARD = 3
"""Bits that an exponential's fraction has beyond the output's."""

EXTRA = 3
"""Bits that the columns of inner products have beyond the fraction of the result."""

COLUMNS = 8
"""Bits that the sum's reciprocal, and the columns of the last product, have beyond the output."""

WHOLE = 5
"""Bits of distance·2^exponent before the point: e^−32 is nothing in any format."""

TOP = 3
"""Bits of it after the point from which the exponential's power of two is looked up."""

SHIFT_MAXIMUM = 63
"""Largest right shift of the distance; it leaves nothing of any."""


@dataclass(frozen=True)
class Format:
    """Derived widths of a softmax module, and the tables of its exponential.

    The exponential of −t is 2^−k·e^−r with r = t − k·ln 2 in [0, 0.82): k comes from the first bits
    of t, whose rounding down leaves r above ln 2 at times. Then e^−r = c·e^−v, where c is a table's
    value in the middle of the segment that r's first `index_bits` name, and v, of either sign, is
    the rest; and e^−v = 1 − u with u = v − v²/2, whose square is a table of |v|'s first bits.

    Parameters
    ----------
    bits : width of input and output
    growth : ⌈log2 max_row⌉, bits by which a sum outgrows its terms, and by which the terms'
        fraction is longer so that cutting off max_row terms costs one unit of `fraction`
    """

    bits: int
    growth: int

    @classmethod
    @cache
    def of(cls, spec: SoftmaxSpec) -> Format:
        """Widths of a spec."""
        return cls(spec.bits, (spec.max_row - 1).bit_length())

    @property
    def fraction(self) -> int:
        """Bits after the point of t, of r and of e^−r."""
        return self.bits - 1 + GUARD

    @property
    def index_bits(self) -> int:
        """Bits of the segment; v³/6, which is left out, is below 2^−(bits + 2.5)."""
        return max(1, -(-(self.bits - 3) // 3))

    @property
    def offset_bits(self) -> int:
        """Bits of v, its sign included."""
        return self.fraction - self.index_bits

    @property
    def square_bits(self) -> int:
        """Bits of |v| from which its square is looked up."""
        return max(1, self.bits - 1 - 2 * self.index_bits)

    @property
    def whole_bits(self) -> int:
        """Bits of k that matter: what is shifted further right than all of them say is 0."""
        return (self.fraction + self.growth).bit_length()

    @property
    def kept(self) -> int:
        """Bits after the point of the exponential that is multiplied by the reciprocal."""
        return self.bits

    @property
    def inverse(self) -> int:
        """Bits of the sum's reciprocal, which is below 1."""
        return self.bits - 1 + COLUMNS

    @property
    def factor_digits(self) -> int:
        """Radix-4 digits of a kept exponential with the half unit that stands for the rest."""
        return -(-(self.kept + 2) // 2)

    @cached_property
    def product_offset(self) -> int:
        """What is added to an exponential's rows: half of what cutting them off loses, and half a
        unit of the result, or the nearest to it with which e^−0 is exactly 1.
        """
        slope = -(1 << (self.offset_bits - 1)) - self.squares[-1]
        product = truncated(self.centres[0], slope, self.offset_bits + 1, self.fraction - EXTRA,
                            subtract=True)
        least = int((1 << (self.fraction + EXTRA)) - (self.centres[0] << EXTRA) - product)
        average = digits_of(self.offset_bits + 1) // 2 + (1 << (EXTRA - 1))
        return min(max(average, least), least + (1 << EXTRA) - 1)

    @property
    def rounding(self) -> int:
        """What is added to the last product's rows: half an ulp, and what they lose on average."""
        return (1 << (COLUMNS - 1)) + (self.factor_digits - 1) // 3

    @cached_property
    def ln2(self) -> tuple[int, ...]:
        """The fraction of k·ln 2 for every k, rounded down so that r is never negative."""
        with localcontext() as context:
            context.prec = DIGITS
            return tuple(_floor(k * Decimal(2).ln() * 2**self.fraction) % 2**self.fraction
                         for k in range(whole_table()[-1] + 1))

    @cached_property
    def centres(self) -> tuple[int, ...]:
        """e^−r in the middle of each segment."""
        step = Decimal(2) ** -self.index_bits
        with localcontext() as context:
            context.prec = DIGITS
            limit = Decimal(2).ln() + Decimal(2) ** -TOP
            return tuple(round((-(j + Decimal("0.5")) * step).exp() * 2**self.fraction)
                         for j in range(int(limit / step) + 1))

    @cached_property
    def squares(self) -> tuple[int, ...]:
        """v²/2 in the middle of each interval of |v|."""
        interval = Decimal(2) ** (self.offset_bits - 1 - self.square_bits - self.fraction)
        with localcontext() as context:
            context.prec = DIGITS
            return tuple(round(((a + Decimal("0.5")) * interval) ** 2 / 2 * 2**self.fraction)
                         for a in range(1 << self.square_bits))


@dataclass(frozen=True)
class Reciprocal:
    """1/m for m = 1 + f in [1, 2), f of `bits` bits, as c·(1 + d + d² + d³) with d = 1 − c·m.

    c is a table's value in the middle of the segment that f's first `index_bits` name; d is below
    2^−index_bits, and d² + d³ a table of its first bits.

    Parameters
    ----------
    bits : bits of f and of the result
    """

    bits: int

    @property
    def index_bits(self) -> int:
        """Bits of the segment; d⁴ is below 2^−(bits + 2)."""
        return self.bits // 3

    @property
    def centre_bits(self) -> int:
        """Bits of c."""
        return self.index_bits + 2

    @property
    def rest_bits(self) -> int:
        """Bits of d and of d + d² + d³, with the sign."""
        return self.bits + EXTRA - self.index_bits + 1

    @property
    def power_bits(self) -> int:
        """Bits of d, its sign included, from which d² + d³ is looked up."""
        return max(2, self.bits - 1 - 2 * self.index_bits)

    @property
    def rest_offset(self) -> int:
        """What is added to the rows of d: half of what cutting them off loses."""
        return digits_of(self.centre_bits + 1) // 2

    @property
    def offset(self) -> int:
        """What is added to the rows of the result."""
        return digits_of(self.rest_bits) // 2

    @cached_property
    def centres(self) -> tuple[int, ...]:
        """1/m in the middle of each segment."""
        with localcontext() as context:
            context.prec = DIGITS
            return tuple(
                round(2**self.centre_bits / (1 + (j + Decimal("0.5")) / 2**self.index_bits))
                for j in range(1 << self.index_bits))

    @cached_property
    def powers(self) -> tuple[int, ...]:
        """d² + d³ in the middle of each interval of d, the non-negative ones first."""
        half = 1 << (self.power_bits - 1)
        unit = Decimal(2) ** -(self.index_bits + self.power_bits - 1)
        with localcontext() as context:
            context.prec = DIGITS
            places = ((a if a < half else a - 2 * half) for a in range(2 * half))
            middles = ((place + Decimal("0.5")) * unit for place in places)
            return tuple(round((d**2 + d**3) * 2 ** (self.bits + EXTRA)) for d in middles)


def _floor(value: Decimal) -> int:
    return int(value.to_integral_value(ROUND_FLOOR))


@cache
def whole_table() -> tuple[int, ...]:
    """k = ⌊t·log2 e⌋ by the first WHOLE + TOP bits of t."""
    with localcontext() as context:
        context.prec = DIGITS
        return tuple(_floor(Decimal(i) / 2**TOP / Decimal(2).ln())
                     for i in range(1 << (WHOLE + TOP)))


def shift_of(i_exponent: int) -> int:
    """Right shift of (maximum − x)·2^(fraction + WHOLE) that makes it t.

    Exponents of WHOLE and more are alike: two unequal scores are then so far apart that the smaller
    one's exponential is 0.
    """
    return min(max(WHOLE - i_exponent, 0), SHIFT_MAXIMUM)


@cache
def reciprocal(bits: int) -> Reciprocal:
    """The reciprocal of that many bits, whose tables are computed once."""
    return Reciprocal(bits)
