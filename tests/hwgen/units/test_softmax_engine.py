"""Softmax engine against golden and its cost, step by step, in Amaranth's simulator."""

import numpy as np
import pytest
from row_engines import Steps, drawn

from hwgen.units.dynatran.golden import prune
from hwgen.units.softmax import cost as softmax
from hwgen.units.softmax.golden import golden
from hwgen.units.softmax.spec import SoftmaxSpec
from hwgen.units.softmax_engine.cost import cycles
from hwgen.units.softmax_engine.rtl import SoftmaxEngine
from hwgen.units.softmax_engine.spec import SoftmaxEngineSpec
from hwgen.units.stages import beats


def engine(parallel, bits, max_row, window, piece):
    return SoftmaxEngineSpec(SoftmaxSpec(parallel, bits, max_row), window, piece)


class Case:
    """Rows for an engine, each with the operation and the place under which it is worked on."""

    def __init__(self, spec):
        self.spec, self.wanted, self.lengths = spec, [], []
        self.steps = Steps(SoftmaxEngine(spec), spec.rows, [("softmax", "i"), ("dynatran", "i")])

    def add(self, row, i_exponent=-2, threshold=1, valid_length=None, place=0, valid_rows=1):
        number, n = len(self.wanted), len(row)
        valid_length = n if valid_length is None else valid_length
        pieces = beats(n, self.spec.piece)
        self.steps.add(
            {"bank": number % 2, "result_bank": (number + 1) % 2, "row": place},
            [({"bank": number % 2}, row)],
            {"i_exponent": i_exponent, "threshold": threshold, "length": n,
             "valid_length": valid_length, "valid_rows": valid_rows}, pieces)
        mask = (np.arange(n) < valid_length) & (place < valid_rows)
        probabilities = golden(np.asarray(row), i_exponent, self.spec.softmax, mask)
        result, _ = prune(probabilities, threshold)
        self.wanted.append([*result.tolist(), *[0] * (pieces * self.spec.piece - n)])
        self.lengths.append(n)

    def check(self):
        self.steps.run()
        assert self.steps.results == self.wanted
        assert self.steps.busy == [cycles(self.spec, n) for n in self.lengths]


@pytest.mark.parametrize("spec", [
    engine(4, 8, 37, 4, 4),
    engine(4, 7, 37, 16, 2),
    engine(2, 6, 20, 16, 1),
    engine(8, 8, 40, 4, 4),
    engine(8, 8, 43, 4, 2),
    engine(2, 8, 9, 2, 2),
    engine(1, 8, 6, 4, 1),
], ids=str)
def test_rows_of_all_lengths(spec):
    rng, case = np.random.default_rng(2), Case(spec)
    parallel, window, longest = spec.softmax.parallel, spec.window, spec.softmax.max_row
    # The longest row comes first, so that all others stand beside what is left of it.
    lengths = [longest, longest, 1, parallel, parallel + 1, window, window + 1, 2 * window, 1,
               longest - 1, *rng.integers(1, longest + 1, 6).tolist()]
    for n in lengths:
        n = min(n, longest)
        valid = int(rng.choice([n, n, int(rng.integers(n + 1))]))
        case.add(drawn(rng, spec.line.bits, n, rng.choice([0.2, 0.6, 1.0])),
                 int(rng.integers(-5, 0)), int(rng.choice([0, 1, 3])), valid)
    case.check()


def test_masked_rows_and_empty_zero_masks():
    case = Case(engine(4, 8, 24, 8, 4))
    rng = np.random.default_rng(5)
    ones = np.full(24, 3)
    for place, valid_rows in ((0, 3), (2, 3), (3, 3), (4, 3), (0, 0), (65535, 65535)):
        case.add(ones, place=place, valid_rows=valid_rows)
    for valid_length in (0, 1, 3, 4, 5, 23):
        case.add(drawn(rng, 8, 24, 0.5), valid_length=valid_length)
    case.add(np.zeros(24, dtype=np.int64))
    case.add(np.zeros(5, dtype=np.int64), valid_length=4)
    case.add(drawn(rng, 8, 24, 0.9), threshold=127)  # nothing is left of most rows
    case.check()
    assert not any(case.wanted[2]) and any(case.wanted[1])


def test_rows_follow_one_another_without_a_gap():
    case = Case(engine(8, 6, 16, 16, 8))
    rng = np.random.default_rng(7)
    for _ in range(20):
        case.add(drawn(rng, 6, 16, 0.5))
    case.check()


def test_cycles_of_arrays():
    lengths = np.array([1, 16, 17, 512])
    spec = engine(16, 20, 512, 64, 16)
    assert cycles(spec, lengths).tolist() == [cycles(spec, int(n)) for n in lengths]
    assert cycles(spec, 33) == 2 + 5 + softmax.cycles(spec.softmax, 33) + 1 + 2


def test_memories_of_an_engine():
    assert engine(16, 20, 500, 64, 16).memories() == {
        "zero_masks_0": (16, 64), "values_0": (16, 64 * 20), "results": (64, 16 * 21)}
    assert engine(8, 8, 40, 4, 4).memories() == {
        "zero_masks_0": (10, 4), "values_0": (10, 32), "zero_masks_1": (10, 4),
        "values_1": (10, 32), "results": (10, 72)}
    assert engine(8, 8, 40, 4, 4).row_lines == 10


@pytest.mark.parametrize(("parallel", "window", "piece", "text"), [
    (4, 12, 4, "window must be a power of two"),
    (4, 4, 8, "piece must be a whole number from 1 to 4"),
    (4, 16, 8, "piece must be at most 4, the elements of a beat, not 8")])
def test_parameters_that_do_not_fit(parallel, window, piece, text):
    with pytest.raises(ValueError, match=text):
        engine(parallel, 8, 16, window, piece)
