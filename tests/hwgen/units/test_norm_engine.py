"""Norm engine against golden and its cost, step by step, in Amaranth's simulator."""

import numpy as np
import pytest
from row_engines import Steps, drawn

from hwgen.units.dynatran.golden import prune
from hwgen.units.layer_norm import cost as layer_norm_cost
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.norm_engine.cost import cycles, load_cycles
from hwgen.units.norm_engine.rtl import NormEngine
from hwgen.units.norm_engine.spec import NormEngineSpec
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.residual_add.spec import ResidualAddSpec
from hwgen.units.stages import beats

EPSILON = 0.05
"""Large enough that the exponent of a sum matters."""

EXPONENTS = {"a": -4, "b": -5, "sum": -3, "gamma": -5, "beta": -6, "o": -5}


def engine(parallel, bits, max_row, window, piece):
    return NormEngineSpec(ResidualAddSpec(parallel, bits),
                          LayerNormSpec(parallel, bits, max_row, EPSILON), window, piece)


class Case:
    """Rows for an engine, each with the operation and the place under which it is worked on."""

    def __init__(self, spec):
        self.spec, self.wanted, self.cycles = spec, [], []
        self.steps = Steps(NormEngine(spec), spec.rows, [
            ("residual_add", "i_a"), ("residual_add", "i_b"), ("layer_norm", "i"),
            ("layer_norm", "weights"), ("dynatran", "i")])
        self.number = 0

    def operation(self, length, exponents, threshold, valid_rows):
        return {**{f"{name}_exponent": value for name, value in exponents.items()},
                "threshold": threshold, "length": length, "valid_rows": valid_rows}

    def load(self, gamma, beta):
        self.gamma, self.beta = gamma, beta
        # Of a load, the banks and the row must not matter.
        self.steps.add({"load": 1, "bank": 1, "result_bank": 1, "row": 9},
                       [({"operand": 2, "bank": 1}, gamma), ({"operand": 3, "bank": 0}, beta)],
                       self.operation(len(gamma), EXPONENTS, 0, 3), 0)
        self.cycles.append(load_cycles(self.spec, len(gamma)))

    def add(self, a, b, threshold=1, place=0, valid_rows=1, changed=None):
        bank, n, exponents = self.number % 2, len(a), {**EXPONENTS, **(changed or {})}
        pieces = beats(n, self.spec.piece)
        self.steps.add(
            {"load": 0, "bank": bank, "result_bank": 1 - bank, "row": place},
            [({"operand": 0, "bank": bank}, a), ({"operand": 1, "bank": bank}, b)],
            self.operation(n, exponents, threshold, valid_rows), pieces)
        total = residual_add(np.asarray(a), exponents["a"], np.asarray(b), exponents["b"],
                             exponents["sum"], self.spec.residual_add)
        normed = layer_norm(
            total, exponents["sum"], self.gamma[:n], exponents["gamma"], self.beta[:n],
            exponents["beta"], exponents["o"], self.spec.layer_norm)
        result, _ = prune(normed, threshold, np.full(n, place < valid_rows))
        self.wanted.append([*result.tolist(), *[0] * (pieces * self.spec.piece - n)])
        self.cycles.append(cycles(self.spec, n))
        self.number += 1

    def check(self):
        self.steps.run()
        assert self.steps.results == self.wanted
        assert self.steps.busy == self.cycles


@pytest.mark.parametrize("spec", [
    engine(4, 8, 37, 4, 4),
    engine(4, 7, 37, 16, 2),
    engine(2, 6, 20, 16, 1),
    engine(8, 8, 43, 4, 2),
    engine(1, 8, 6, 4, 1),
], ids=str)
def test_rows_of_all_lengths(spec):
    rng, case, bits = np.random.default_rng(2), Case(spec), spec.line.bits
    parallel, window, longest = spec.layer_norm.parallel, spec.window, spec.layer_norm.max_row
    lengths = [longest, 1, parallel, parallel + 1, window, window + 1, 2 * window,
               longest - 1, *rng.integers(1, longest + 1, 4).tolist()]
    loaded = 0
    for number, n in enumerate(lengths):
        n = min(n, longest)
        if number % 5 == 0 or n > loaded:
            loaded = max(n, *lengths[number:number + 2])
            loaded = min(loaded, longest)
            case.load(*(drawn(rng, bits, loaded, density) for density in (0.9, 0.6)))
        a, b = (drawn(rng, bits, n, rng.choice([0.2, 0.6, 1.0])) for _ in range(2))
        case.add(a, b, int(rng.choice([0, 1, 3])), changed={"b": int(rng.integers(-7, -2))})
    case.check()


def test_masked_rows_and_empty_zero_masks():
    case, rng = Case(engine(4, 8, 24, 8, 4)), np.random.default_rng(5)
    case.load(drawn(rng, 8, 24, 1.0), drawn(rng, 8, 24, 1.0))
    a, b, nothing = drawn(rng, 8, 24, 0.5), drawn(rng, 8, 24, 0.5), np.zeros(24, dtype=np.int64)
    for place, valid_rows in ((0, 3), (2, 3), (3, 3), (4, 3), (0, 0), (65535, 65535)):
        case.add(a, b, place=place, valid_rows=valid_rows)
    case.add(nothing, b)
    case.add(a, nothing)
    case.add(nothing, nothing)
    case.load(nothing[:5], nothing[:5])
    case.add(a[:5], b[:5])
    case.load(drawn(rng, 8, 24, 0.7), nothing)
    case.add(a, b, threshold=128)  # only the most negative number stays
    case.check()
    assert any(case.wanted[1]) and not any(case.wanted[2]) and any(case.wanted[8])


def test_cycles_of_arrays():
    lengths = np.array([1, 16, 17, 512])
    spec = engine(16, 20, 512, 64, 16)
    assert cycles(spec, lengths).tolist() == [cycles(spec, int(n)) for n in lengths]
    assert cycles(spec, 33) == 2 + 5 + 5 + layer_norm_cost.cycles(spec.layer_norm, 33) + 1 + 2
    assert load_cycles(spec, lengths).tolist() == [2 + 5 + n for n in (1, 1, 2, 32)]


def test_memories_of_an_engine():
    rows = {"zero_masks_0": (36, 64), "values_0": (36, 64 * 20)}
    assert engine(16, 20, 768, 64, 16).memories() == {
        **{f"{side}_{name}": size for side in "ab" for name, size in rows.items()},
        "results": (96, 16 * 21)}
    assert engine(16, 20, 768, 64, 16).row_lines == 12


def test_modules_that_do_not_fit_each_other():
    with pytest.raises(ValueError, match="bits of residual_add and of layer_norm must be equal"):
        NormEngineSpec(ResidualAddSpec(4, 8), LayerNormSpec(4, 9, 16, 1e-12), 8, 4)
    with pytest.raises(ValueError, match="parallel of .* must be equal, not 4 and 8"):
        NormEngineSpec(ResidualAddSpec(4, 8), LayerNormSpec(8, 8, 16, 1e-12), 8, 4)
