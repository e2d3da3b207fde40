"""The accelerator gives golden's integers in the cycles of ELECTOR's reference, step by step.

A case that fails is repeated by its seed: `random_cases(random_design(seed), seed)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from hwgen.design import AcceleratorDesign
from hwgen.emit import unit_module
from hwgen.simulation.machine import run_programs
from hwgen.simulation.module import VerilogModule
from hwgen.units.accelerator.rtl import Accelerator
from hwgen.units.accelerator.spec import AcceleratorSpec
from rtl_tests.accelerator_cases import Case, differences, prepare
from rtl_tests.accelerator_coverage import BINS, count_bins, report
from rtl_tests.accelerator_draws import (
    in_every_order,
    random_cases,
    random_design,
    small_design,
)

pytestmark = pytest.mark.rtl

SMALL = small_design()

SEEDS = range(14)
"""Designs of the long suite, which has 34 cases on each."""

CYCLE_LIMIT = 200_000
"""Many times what any case takes."""


def module_of(design: AcceleratorDesign) -> VerilogModule:
    return unit_module(Accelerator(AcceleratorSpec.of(design)), "accelerator")


def check(design: AcceleratorDesign, cases: Sequence[Case], seed: int, simulator: str) -> None:
    """Run cases on one machine and compare what is stored, and each step's cycles."""
    prepared = [prepare(case) for case in cases]
    results = run_programs(
        module_of(design), [one.machine for one in prepared], simulator, cycle_limit=CYCLE_LIMIT)
    wrong = [
        f"seed {seed}, case {number}, {case}: {'; '.join(said)}"
        for number, (case, one, result) in enumerate(zip(cases, prepared, results, strict=True))
        if (said := differences(case, one, result))
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)} cases:\n" + "\n".join(wrong)


def drawn(design: AcceleratorDesign, seed: int) -> list[Case]:
    return [*random_cases(design, seed), *in_every_order(design, seed)]


def test_random_cases_and_every_order(simulator: str) -> None:
    check(SMALL, drawn(SMALL, 0), 0, simulator)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", SEEDS)
def test_random_designs(simulator: str, seed: int) -> None:
    design = random_design(seed)
    check(design, drawn(design, seed), seed, simulator)


@pytest.mark.slow
def test_the_random_designs_cover_every_bin() -> None:
    counts = count_bins(case for seed in SEEDS for case in drawn(random_design(seed), seed))
    print(report(counts))
    assert not [name for name in BINS if not counts[name]]
