"""pre_sparsity's RTL against its golden model and its cost."""

import numpy as np
import pytest

from hwgen.emit import unit_module
from hwgen.program import Job
from hwgen.simulation.run import Case, run_cases
from hwgen.simulation.unit_check import check_unit
from hwgen.units.pre_sparsity import cost, jobs
from hwgen.units.pre_sparsity.golden import pairs_per_window
from hwgen.units.pre_sparsity.rtl import PreSparsity
from hwgen.units.pre_sparsity.spec import PreSparsitySpec

pytestmark = pytest.mark.rtl


def random_spec(rng: np.random.Generator) -> PreSparsitySpec:
    macs = int(rng.choice([1, 2, 4, 8, 16]))
    window = macs * int(rng.choice([1, 2, 4, 8]))
    return PreSparsitySpec(macs, int(rng.integers(4, 25)), min(window, 64),
                           macs * int(rng.integers(1, 7)))


@pytest.mark.parametrize("spec", [
    PreSparsitySpec(1, 8, 1, 1), PreSparsitySpec(1, 20, 4, 3), PreSparsitySpec(2, 8, 8, 2),
    PreSparsitySpec(4, 6, 4, 24), PreSparsitySpec(4, 8, 16, 8), PreSparsitySpec(16, 4, 32, 32),
], ids=str)
def test_unit(spec: PreSparsitySpec, simulator: str) -> None:
    rng = np.random.default_rng(7)
    made = [jobs.random_job(spec, rng) for _ in range(12)]
    check_unit(PreSparsity, spec, made, simulator, stall_seeds=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("spec", [PreSparsitySpec(16, 20, 64, 16), PreSparsitySpec(16, 20, 64, 32),
                                  PreSparsitySpec(8, 16, 32, 80)],
                         ids=str)
def test_default_windows(spec: PreSparsitySpec, simulator: str) -> None:
    rng = np.random.default_rng(8)
    made = [jobs.random_job(spec, rng) for _ in range(10)]
    check_unit(PreSparsity, spec, made, simulator)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_random_specs(seed: int, simulator: str) -> None:
    rng = np.random.default_rng([9, seed])
    spec = random_spec(rng)
    made = [jobs.random_job(spec, rng) for _ in range(10)]
    check_unit(PreSparsity, spec, made, simulator, stall_seeds=(seed,))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_the_size_of_the_networks_changes_nothing(group: int, simulator: str) -> None:
    spec = PreSparsitySpec(4, 5, 8, 8)
    rng = np.random.default_rng(group)
    made = [jobs.random_job(spec, rng) for _ in range(4)]
    cases = [Case(job.name, {}, jobs.stimulus(spec, job), jobs.expected(spec, job))
             for job in made]
    module = unit_module(PreSparsity(spec, group), "pre_sparsity")
    results = run_cases(module, cases, simulator, (None, 1))
    assert [result.mismatches for result in results] == [[]] * 8
    assert [result.cycles for result in results[:4]] == [job.cycles for job in made]


def test_networks_place_a_beat_by_default() -> None:
    groups = [PreSparsity(PreSparsitySpec(macs, 4, 32, 32)).group for macs in (1, 8, 16, 32)]
    assert groups == [1, 8, 16, 16]


def test_jobs_follow_one_another_without_a_gap(simulator: str) -> None:
    spec = PreSparsitySpec(4, 8, 16, 8)
    rng = np.random.default_rng(12)
    made = [jobs.random_job(spec, rng) for _ in range(8)]
    case = Case("back to back", {}, joined([jobs.stimulus(spec, job) for job in made]),
                joined([jobs.expected(spec, job) for job in made]))
    module = unit_module(PreSparsity(spec), "pre_sparsity")
    results = run_cases(module, [case], simulator, (None, 1))
    assert [result.mismatches for result in results] == [[], []]
    added = [int(cost.cycles_back_to_back(spec, counts(spec, job))) for job in made]
    assert results[0].cycles == sum(added) + cost.latency(spec)


@pytest.mark.slow
@pytest.mark.parametrize(("left", "right"), [(1.0, 0.5), (0.5, 0.5), (0.5, 0.25)])
def test_the_expectation_is_what_is_simulated(left: float, right: float, simulator: str) -> None:
    spec, dots, length = PreSparsitySpec(4, 8, 16, 8), 2000, 40
    rng = np.random.default_rng(13)
    operands = {side: rng.integers(1, 100, (dots, length)) * (rng.random((dots, length)) < density)
                for side, density in (("left", left), ("right", right))}
    job = Job("pre_sparsity", "densities", operands, shapes={"dot_products": [dots, length]})
    job = job.with_cycles(jobs.predicted_cycles(spec, job))
    result = check_unit(PreSparsity, spec, [job], simulator, stall_seeds=())[0]
    assert result.cycles is not None
    values, probabilities = cost.cycles_distribution(spec, length, left, right)
    expected = float(cost.mean(values, probabilities))
    variance = float(cost.mean((values - expected) ** 2, probabilities))
    mean = (result.cycles - cost.latency(spec)) / dots
    assert abs(mean - expected) <= 3 * np.sqrt(variance / dots)


def counts(spec: PreSparsitySpec, job: Job) -> np.ndarray:
    """Effectual pairs of each window of a job."""
    return np.asarray(
        pairs_per_window(job.operands["left"], job.operands["right"], spec.window))


def joined(ports: list[jobs.Beats]) -> jobs.Beats:
    """Beats of several jobs, one after another on each port."""
    return {port: [beat for one in ports for beat in one[port]] for port in ports[0]}
