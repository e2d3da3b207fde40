"""pre_sparsity's RTL against its golden model and its cost."""

import numpy as np
import pytest

from hwgen.simulation.unit_check import check_unit
from hwgen.units.pre_sparsity import jobs
from hwgen.units.pre_sparsity.rtl import PreSparsity
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("spec", [
    PreSparsitySpec(1, 8, 1, 1), PreSparsitySpec(1, 20, 4, 8), PreSparsitySpec(2, 8, 8, 10),
    PreSparsitySpec(4, 6, 4, 24), PreSparsitySpec(4, 8, 16, 4), PreSparsitySpec(4, 8, 16, 8), PreSparsitySpec(16, 4, 16, 32),PreSparsitySpec(16, 4, 64, 32),
], ids=str)
def test_unit(spec: PreSparsitySpec, simulator: str) -> None:
    rng = np.random.default_rng(7)
    made = [jobs.random_job(spec, rng) for _ in range(12)]
    check_unit(PreSparsity, spec, made, simulator, stall_seeds=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("spec", [PreSparsitySpec(16, 20, 64, 128), PreSparsitySpec(8, 16, 32, 77)],
                         ids=str)
def test_default_windows(spec: PreSparsitySpec, simulator: str) -> None:
    rng = np.random.default_rng(8)
    made = [jobs.random_job(spec, rng) for _ in range(10)]
    check_unit(PreSparsity, spec, made, simulator)
