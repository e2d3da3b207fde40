"""What benchmarks/sparsity.py compares pre_sparsity with does the same work."""

import sys
from pathlib import Path

import numpy as np
import pytest

from hwgen.emit import unit_module
from hwgen.simulation.run import Case, run_cases
from hwgen.units.post_sparsity.golden import compress
from hwgen.units.pre_sparsity import jobs
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from constructions.decompressor import Decompressor, DenseGather  # noqa: E402

pytestmark = pytest.mark.rtl


def test_dense_windows_give_the_same_beats(simulator: str) -> None:
    spec = PreSparsitySpec(4, 6, 16, 8)
    rng = np.random.default_rng(1)
    made = [jobs.random_job(spec, rng) for _ in range(6)]
    cases = []
    for job in made:
        stimulus = jobs.stimulus(spec, job)
        for side in ("left", "right"):
            dots, length = job.operands[side].shape
            padded = np.pad(job.operands[side], ((0, 0), (0, -length % spec.window)))
            stimulus[f"i_{side}"] = [{"value": window}
                                     for window in padded.reshape(-1, spec.window).tolist()]
        cases.append(Case(job.name, {}, stimulus, jobs.expected(spec, job)))
    results = run_cases(unit_module(DenseGather(spec), "dense_gather"), cases, simulator, (None, 1))
    assert [result.mismatches for result in results] == [[]] * 12
    # It has no stage that compacts the masks.
    assert [result.cycles for result in results[:6]] == [
        (job.cycles or 0) - 1 for job in made]


@pytest.mark.parametrize("window", [1, 2, 16])
def test_decompressor_inverts_compression(window: int, simulator: str) -> None:
    spec = PreSparsitySpec(1, 6, window, 1)
    rng = np.random.default_rng(window)
    masks, values, expected = [], [], []
    for density in rng.random(40):
        packed, zero_mask = compress(rng.integers(1, 32, window) * (rng.random(window) < density))
        nonzero = np.flatnonzero(zero_mask).tolist()
        masks.append({"i_mask": sum(1 << k for k in nonzero)})
        values.append({"value": np.pad(packed, (0, window - len(packed))).tolist()})
        # Padded with zeros, positions without a value get zeros.
        place = np.zeros(window, int)
        place[nonzero] = packed
        expected.append({"value": place.tolist()})
    case = Case("windows", {}, {"i_mask": masks, "i": values}, {"o": expected})
    module = unit_module(Decompressor(spec), "decompressor")
    results = run_cases(module, [case], simulator, (None, 1))
    assert [result.mismatches for result in results] == [[], []]
    assert results[0].cycles == 40 + 3
