"""Piecewise cubics of the normal distribution's upper tail, in integers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import isqrt

LIMIT_LOG2 = 3
"""From |x| = 2^3 on the tail counts as zero: there |x|·Q(|x|) < 2^-47."""

LARGEST_GAIN = 4
"""gelu is within 1 ulp for i_exponent − o_exponent up to this."""

DEGREE = 3
_GUARD = 256
_PI = Fraction("3.14159265358979323846264338327950288419716939937510582097494459230781640628")
_NODES = tuple(Fraction(node) for node in
               ("0.0380602337", "0.3086582838", "0.6913417162", "0.9619397663"))
"""Chebyshev's nodes on 0 to 1, to ten digits."""


@dataclass(frozen=True, slots=True)
class TailTable:
    """What golden and RTL need to compute Q(a) = ½·erfc(a/√2) for 0 ≤ a < 2^LIMIT_LOG2.

    Parameters
    ----------
    fraction_bits : Q and the coefficients are integers times 2^-fraction_bits
    argument_bits : fraction bits of the argument a
    segment_bits : low bits of the argument that run inside a segment, as t
    coefficients : per segment, from the constant to the cube's, in powers of t / 2^segment_bits
    used_bits : of t, its upper bits that each step of Horner's rule multiplies by, in the order of
        the steps (the cube's coefficient first)
    """

    fraction_bits: int
    argument_bits: int
    segment_bits: int
    coefficients: tuple[tuple[int, ...], ...]
    used_bits: tuple[int, ...]


def upper_tail(argument: Fraction) -> Fraction:
    """½·erfc(a/√2) for 0 ≤ a ≤ 8 to 2^-190, by the Taylor series of the normal distribution."""
    scaled = int(argument * 2**_GUARD)
    square = scaled * scaled >> _GUARD
    term, total, order = scaled, 0, 0
    while term:
        total += term // (2 * order + 1)
        order += 1
        term = -(term * square >> _GUARD) // (2 * order)
    root = isqrt(int(2 * _PI * 4**_GUARD))
    return Fraction(1, 2) - Fraction(total, root)


@cache
def tail_table(bits: int) -> TailTable:
    """Make the table for values of `bits` bits.

    The argument has bits + 2 fraction bits, which puts its rounding below ⅛ ulp of the output; a
    segment is 2^-(bits - 8)/4 wide (at most 1), since a cubic's error falls with its fourth power;
    six guard bits cover the gain of 2^LARGEST_GAIN and the cut-off of Horner's steps.
    """
    per_unit = max(0, -(-(bits - 8) // 4))
    fraction_bits, argument_bits = bits + 6, bits + 2
    segment_bits = argument_bits - per_unit
    coefficients = tuple(_cubic(Fraction(index, 1 << per_unit), Fraction(1, 1 << per_unit),
                                fraction_bits)
                         for index in range(1 << (LIMIT_LOG2 + per_unit)))
    return TailTable(fraction_bits, argument_bits, segment_bits, coefficients,
                     _used_bits(coefficients, segment_bits))


def _cubic(start: Fraction, width: Fraction, fraction_bits: int) -> tuple[int, ...]:
    """Coefficients of the cubic through Q at four points of a segment, as integers."""
    # Newton's divided differences, then the powers of u = (a - start) / width.
    values = [upper_tail(start + width * node) for node in _NODES]
    for level in range(1, DEGREE + 1):
        for index in range(DEGREE, level - 1, -1):
            values[index] = ((values[index] - values[index - 1])
                             / (_NODES[index] - _NODES[index - level]))
    powers = [values[DEGREE]]
    for index in range(DEGREE - 1, -1, -1):
        shifted = [Fraction(0), *powers]
        for power, value in enumerate(powers):
            shifted[power] -= _NODES[index] * value
        shifted[0] += values[index]
        powers = shifted
    # Every step but the first adds to a product that was cut off, half a unit too low on average.
    return tuple(round(value * 2**fraction_bits + (Fraction(1, 2) if power < DEGREE else 0))
                 for power, value in enumerate(powers))


def _used_bits(coefficients: tuple[tuple[int, ...], ...], segment_bits: int) -> tuple[int, ...]:
    """Bits of t worth multiplying by: no more than the other factor has."""
    low = min(row[DEGREE] for row in coefficients)
    high = max(row[DEGREE] for row in coefficients)
    used = []
    for power in range(DEGREE - 1, -1, -1):
        used.append(min(segment_bits, max(low.bit_length(), high.bit_length()) + 1))
        low = min(0, low) + min(row[power] for row in coefficients)
        high = max(0, high) + max(row[power] for row in coefficients)
    return tuple(used)
