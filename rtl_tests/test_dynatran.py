"""dynatran's RTL against its golden model and its cost."""

import numpy as np
import pytest

from hwgen.simulation.unit_check import check_unit
from hwgen.units.dynatran import jobs
from hwgen.units.dynatran.rtl import Dynatran
from hwgen.units.dynatran.spec import DynatranSpec

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("spec", [DynatranSpec(1, 4), DynatranSpec(4, 8), DynatranSpec(16, 20)],
                         ids=str)
def test_unit(spec: DynatranSpec, simulator: str) -> None:
    rng = np.random.default_rng(3)
    check_unit(Dynatran, spec, [jobs.random_job(spec, rng) for _ in range(16)], simulator)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_random_specs(seed: int, simulator: str) -> None:
    """Twenty jobs a spec, 200 in all; each is of tiles back to back."""
    rng = np.random.default_rng(100 + seed)
    spec = DynatranSpec(int(rng.integers(1, 65)), int(rng.integers(4, 25)))
    check_unit(Dynatran, spec, [jobs.random_job(spec, rng) for _ in range(20)], simulator)
