"""The residual adder's RTL against its golden model and its cost."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hwgen.emit import unit_module  # noqa: E402  (after the skip)
from hwgen.simulation import check_unit, run_jobs  # noqa: E402
from hwgen.units.residual_add import cost, jobs  # noqa: E402
from hwgen.units.residual_add.rtl import ResidualAdd  # noqa: E402
from hwgen.units.residual_add.spec import ResidualAddSpec  # noqa: E402

pytestmark = pytest.mark.rtl

SPECS = [ResidualAddSpec(1, 4), ResidualAddSpec(2, 5), ResidualAddSpec(4, 8),
         ResidualAddSpec(16, 20), ResidualAddSpec(8, 24)]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_random_rows(spec: ResidualAddSpec, simulator: str) -> None:
    rng = np.random.default_rng(spec.bits)
    # Three ports: three seeds press on each of them.
    check_unit(ResidualAdd, spec, [jobs.random_job(spec, rng) for _ in range(24)], simulator,
               stall_seeds=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 2, 4, 8, 16, 32])
def test_more_random_rows(parallel: int, simulator: str) -> None:
    rng = np.random.default_rng(parallel)
    for bits in rng.choice(np.arange(4, 25), 4, replace=False).tolist():
        spec = ResidualAddSpec(parallel, bits)
        check_unit(ResidualAdd, spec, [jobs.random_job(spec, rng) for _ in range(40)], simulator)


def _pairs(bits):
    """Every pair of numbers, shape (2, pairs)."""
    grid = np.arange(-(1 << (bits - 1)), 1 << (bits - 1))
    return np.stack(np.meshgrid(grid, grid)).reshape(2, -1)


@pytest.mark.parametrize("o_exponent", [-13, -3, -1, 0, 1, 2, 4, 5, 9])
def test_every_pair_of_four_bits(o_exponent: int, simulator: str) -> None:
    spec = ResidualAddSpec(32, 4)
    pairs = _pairs(4)
    made = [jobs.make_job(spec, [pairs], (a_exponent, 0, o_exponent), f"{a_exponent}")
            for a_exponent in range(-12, 13)]
    check_unit(ResidualAdd, spec, made, simulator, stall_seeds=())


@pytest.mark.parametrize("bits", [20, pytest.param(24, marks=pytest.mark.slow)])
def test_edges_at_every_distance(bits: int, simulator: str) -> None:
    spec = ResidualAddSpec(32, bits)
    top = 1 << (bits - 1)
    edges = np.array([-top, 1 - top, -top // 2 - 1, -top // 2, -3, -2, -1, 0, 1, 2, 3,
                      top // 2, top // 2 + 1, top - 2, top - 1])
    pairs = np.stack(np.meshgrid(edges, edges)).reshape(2, -1)
    reach = range(-2 * bits - 4, 2 * bits + 5, 4)
    made = [jobs.make_job(spec, [pairs], (a, b, 0), f"{a}, {b}")
            for a in reach for b in (-bits - 1, -bits, -1, 0, 1, bits - 1, bits, bits + 1)]
    ends = [jobs.make_job(spec, [pairs], exponents, str(exponents))
            for exponents in [(-128, -128, 127), (127, 127, -128), (127, -128, 0),
                              (-128, 127, 127), (-128, -128, -128)]]
    check_unit(ResidualAdd, spec, made + ends, simulator, stall_seeds=())


def test_rows_follow_without_a_gap(simulator: str) -> None:
    spec = ResidualAddSpec(4, 6)
    rng = np.random.default_rng(1)
    lengths = [1, 4, 5, 1, 1, 33, 4, 8]
    rows = [rng.integers(-32, 32, (2, n)) for n in lengths]
    job = jobs.make_job(spec, rows, (-2, -3, -2), "rows")
    assert job.cycles == sum(-(-n // 4) for n in lengths) + cost.STAGES
    check_unit(ResidualAdd, spec, [job], simulator)


def test_every_parameter_changes_the_verilog() -> None:
    texts = {unit_module(ResidualAdd(spec), "residual_add").verilog for spec in (
        ResidualAddSpec(4, 8), ResidualAddSpec(8, 8), ResidualAddSpec(4, 9))}
    assert len(texts) == 3


def test_a_changed_constant_is_found(simulator: str) -> None:
    """The longest shift, which the control is clamped to."""
    spec = ResidualAddSpec(1, 8)
    module = unit_module(ResidualAdd(spec), "residual_add")
    longest = re.compile(r"(5|10)'h0*11\b")
    assert longest.search(module.verilog)
    changed = replace(module, verilog=longest.sub(r"\1'h10", module.verilog))
    pairs = [[1, 2, 3, 64, -128], [-128, 127, -128, -128, 64]]
    made = [jobs.make_job(spec, [pairs], (a, b, 0), f"{a} {b}")
            for a in range(-30, 10, 2) for b in (-30, -9, 0, 7)]
    assert all(result.ok for result in run_jobs(module, spec, made, simulator))
    assert not all(result.ok for result in run_jobs(changed, spec, made, simulator))
