"""Polynomials in carry-save form against the table's own integers, in Amaranth's simulator."""

import numpy as np
import pytest
from amaranth.lib.wiring import In, Out
from cases import Case, check

from hwgen.lib import parabola
from hwgen.units.layer_norm.table import reciprocal_root


@pytest.mark.parametrize("guard", [0, 2])
@pytest.mark.parametrize("fraction", [9, 13, 25])
def test_parabola_equals_the_table_rounded(fraction, guard):
    table = reciprocal_root(fraction)

    def make(m, flow, ports):
        value = parabola.parabola(m, flow, table, ports.a, "table", guard)
        assert flow.latency == parabola.STAGES
        return value

    last = (1 << (fraction + 1)) - 1
    arguments = [0, last, *np.random.default_rng(1).integers(0, last, 150).tolist()]
    wanted = (table.evaluate(np.asarray(arguments)) + ((1 << guard) >> 1)) >> guard
    dut = Case(make, a=In(fraction + 1), o=Out(fraction + 3 - guard))
    check(dut, [({"a": a}, w) for a, w in zip(arguments, wanted.tolist(), strict=True)], 7)
