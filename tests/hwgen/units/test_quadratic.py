"""Piecewise quadratic polynomials, against plain integers and against the functions."""

from decimal import Decimal

import mpmath
import numpy as np
import pytest
import torch

from hwgen.units.quadratic import Quadratic

TABLE = Quadratic(1, 3, 8, (200, 100), (90, 40), (30, 9))


def test_every_argument_by_hand():
    wanted = []
    for argument in range(16):
        segment, offset = argument // 8, argument % 8
        slope = TABLE.c1[segment] - TABLE.c2[segment] * offset // 8
        wanted.append(TABLE.c0[segment] - slope * offset // 8)
    assert TABLE.evaluate(np.arange(16)).tolist() == wanted
    assert TABLE.evaluate(torch.arange(16).reshape(2, 8)).tolist() == [wanted[:8], wanted[8:]]


@pytest.mark.parametrize("index_bits", [1, 3, 6])
def test_interpolation_goes_through_ends_and_middle(index_bits):
    table = Quadratic.interpolate(lambda f: Decimal(2) ** -f, index_bits, 20, 24)
    ends = np.arange(1 << index_bits) << table.offset_bits
    assert (table.offset_bits, table.fraction_bits) == (20 - index_bits, 24)
    got = table.evaluate(ends)
    assert got.tolist() == [int(mpmath.nint(mpmath.mpf(2) ** (24 - int(e) / 2**20))) for e in ends]
    middles = table.evaluate(ends + (1 << (table.offset_bits - 1)))
    exact = 2.0 ** (24 - (ends + (1 << (table.offset_bits - 1))) / 2**20)
    assert np.abs(middles - exact).max() < 2.5
