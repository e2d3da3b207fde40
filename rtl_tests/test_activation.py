"""The activation's Verilog by itself, every value of a width."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hwgen.emit import unit_module  # noqa: E402  (after the skip)
from hwgen.simulation import Case, run_cases  # noqa: E402
from hwgen.units.activation.cost import cycles  # noqa: E402
from hwgen.units.activation.golden import activation  # noqa: E402
from hwgen.units.activation.rtl import Activation  # noqa: E402
from hwgen.units.activation.spec import ActivationSpec  # noqa: E402

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize(("nonlinearity", "carried"), [("relu", 0), ("gelu", 9)])
def test_every_value_of_nine_bits(nonlinearity: str, carried: int, simulator: str) -> None:
    spec = ActivationSpec(9, nonlinearity)
    values = np.random.default_rng(1).permutation(np.arange(-256, 256))
    extra = [{"carried": index % 512} if carried else {} for index in range(512)]
    cases = []
    for activate, i_exponent, o_exponent in ((1, -5, -9), (1, -6, -5), (1, -12, -12), (0, -5, -9),
                                             (1, 127, 127), (1, -128, 127), (2, -6, -8)):
        applied = spec if activate == 1 else ActivationSpec(9, "relu")
        results = activation(values, i_exponent, o_exponent, applied) if activate else values
        cases.append(Case(
            f"{activate} {i_exponent} {o_exponent}",
            {"activate": activate, "i_exponent": i_exponent, "o_exponent": o_exponent},
            {"i": [{"value": int(v), **e} for v, e in zip(values, extra, strict=True)]},
            {"o": [{"value": int(v), **e} for v, e in zip(results, extra, strict=True)]}))
    module = unit_module(Activation(spec, carried), "activation")
    for result in run_cases(module, cases, simulator, (None, 4)):
        assert result.mismatches == []
        assert result.stall_seed is not None or result.cycles == cycles(spec, 512)
