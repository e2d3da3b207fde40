"""The MAC lane's Verilog against golden and cost."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hwgen.emit import unit_module  # noqa: E402  (after the skip)
from hwgen.program import Job  # noqa: E402
from hwgen.simulation import run_jobs  # noqa: E402
from hwgen.units.activation import rtl as activation_rtl  # noqa: E402
from hwgen.units.activation.table import LARGEST_GAIN, LIMIT_LOG2, tail_table  # noqa: E402
from hwgen.units.mac_lane import jobs  # noqa: E402
from hwgen.units.mac_lane.rtl import MacLane  # noqa: E402
from hwgen.units.mac_lane.spec import MacLaneSpec  # noqa: E402
from hwgen.units.stochastic_rounding.noise import NOISE_BITS  # noqa: E402

pytestmark = pytest.mark.rtl

SPECS = [MacLaneSpec(1, 8, 20, "relu"), MacLaneSpec(4, 8, 20, "gelu"),
         MacLaneSpec(16, 20, 52, "gelu"), MacLaneSpec(4, 8, 20, "gelu", 16)]


def check(spec: MacLaneSpec, drawn: list[Job], simulator: str,
          stall_seeds: tuple[int | None, ...] = (None, 1, 2)) -> None:
    """Every beat as golden says; without stalls, every cycle as cost says."""
    results = run_jobs(unit_module(MacLane(spec), "mac_lane"), spec, drawn, simulator, stall_seeds)
    assert len(results) == len(drawn) * len(stall_seeds)
    for result, job in zip(results, drawn * len(stall_seeds), strict=True):
        assert result.mismatches == []
        if result.stall_seed is None:
            assert result.cycles == job.cycles == jobs.predicted_cycles(spec, job)
        else:
            assert result.cycles >= job.cycles


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_exact_and_on_time(spec: MacLaneSpec, simulator: str) -> None:
    rng = np.random.default_rng(11)
    check(spec, [jobs.random_job(spec, rng) for _ in range(8)], simulator)


@pytest.mark.parametrize("spec", [MacLaneSpec(1, 4, 8, "gelu"), MacLaneSpec(64, 5, 22, "relu")],
                         ids=str)
def test_ends_of_the_parameters(spec: MacLaneSpec, simulator: str) -> None:
    rng = np.random.default_rng(12)
    check(spec, [jobs.random_job(spec, rng) for _ in range(5)], simulator, (None, 3))


@pytest.mark.parametrize("nonlinearity", ["relu", "gelu"])
def test_every_value_of_eight_bits(nonlinearity: str, simulator: str) -> None:
    spec = MacLaneSpec(1, 8, 20, nonlinearity)
    values = np.arange(-128, 128)
    drawn = [jobs.make_job(spec, f"{i_exponent} {o_exponent}", [[]] * 256, [[]] * 256, 4 * values,
                           2, activate=True, i_exponent=i_exponent, o_exponent=o_exponent)
             for i_exponent, o_exponent in ((-4, -8), (-5, -5), (-7, -9), (-4, -3), (3, -1),
                                            (-128, -120), (-100, -104))]
    check(spec, drawn, simulator, (None,))


@pytest.mark.parametrize("noise_bits", [0, 24])
def test_every_shift_of_the_widest_lane(noise_bits: int, simulator: str) -> None:
    spec = MacLaneSpec(2, 24, 62, "gelu", noise_bits)
    rng = np.random.default_rng(12)
    drawn = [jobs.random_job(spec, rng)]
    for shift in range(62):
        initial = [int(rng.integers(-(1 << width), 1 << width))
                   for width in (*[shift] * 12, *rng.integers(1, 61, size=8))]
        initial += [number << shift >> 1 for number in (-7, -3, -1, 1, 3, 5) if shift < 58]
        initial += [-(1 << 61), (1 << 61) - 1]
        rows: list[list[int]] = [[]] * len(initial)
        for seed in (None, shift) if noise_bits else (None,):
            drawn.append(jobs.make_job(spec, f"shift {shift}, seed {seed}", rows, rows, initial,
                                       shift, seed=seed))
    check(spec, drawn, simulator, (None,))


def test_dot_products_of_one_beat_leave_one_a_cycle(simulator: str) -> None:
    spec = MacLaneSpec(4, 8, 20, "gelu")
    pairs = np.random.default_rng(5).integers(-128, 128, size=(2, 200, 4))
    job = jobs.make_job(spec, "one beat each", pairs[0], pairs[1], [7] * 200, 8, activate=True,
                        i_exponent=-4, o_exponent=-5)
    assert job.cycles == 200 + 14
    check(spec, [job], simulator)


def random_spec(rng: np.random.Generator, largest: int) -> MacLaneSpec:
    """Any lane of up to `largest` bits of operands on a side."""
    while True:
        macs, bits = 1 << int(rng.integers(0, 7)), int(rng.integers(4, 25))
        if macs * bits <= largest:
            width = int(rng.integers(2 * bits, min(62, 2 * bits + 14) + 1))
            nonlinearity = str(rng.choice(["relu", "gelu"]))
            noise_bits = int(rng.choice([0, 0, *NOISE_BITS]))
            return MacLaneSpec(macs, bits, width, nonlinearity, noise_bits)


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.slow)
                                                for seed in range(10, 50))])
def test_random_lanes(seed: int, simulator: str) -> None:
    rng = np.random.default_rng([seed, 20])
    spec = random_spec(rng, 80 if seed < 10 else 64 * 24)
    number = 2 if seed < 10 else 5
    check(spec, [jobs.random_job(spec, rng) for _ in range(number)], simulator, (None, seed))


@pytest.mark.parametrize("nonlinearity", ["relu", "gelu"])
def test_a_job_straight_after_another_adds_its_beats_alone(nonlinearity: str, simulator: str
                                                           ) -> None:
    spec = MacLaneSpec(4, 8, 20, nonlinearity)
    rng = np.random.default_rng(21)
    rows = [rng.integers(-128, 128, size=(2, int(length))) for length in rng.integers(0, 17, 40)]
    initial = rng.integers(-(1 << 18), 1 << 18, size=40).tolist()
    drawn = [jobs.make_job(spec, f"{part}", [row[0] for row in rows[part]],
                           [row[1] for row in rows[part]], initial[part], 6, activate=True,
                           i_exponent=-4, o_exponent=-6)
             for part in (slice(0, 15), slice(15, 40), slice(0, 40))]
    check(spec, drawn, simulator)
    beats = len(jobs.stimulus(spec, drawn[1])["i"])
    assert drawn[2].cycles == drawn[0].cycles + beats


@pytest.mark.slow
@pytest.mark.parametrize("spec", [MacLaneSpec(64, 24, 62, "gelu"), MacLaneSpec(32, 11, 36, "relu")],
                         ids=str)
def test_trees_of_another_cycle(spec: MacLaneSpec, simulator: str) -> None:
    rng = np.random.default_rng(22)
    check(spec, [jobs.random_job(spec, rng) for _ in range(3)], simulator, (None, 3))


def test_every_parameter_changes_the_verilog() -> None:
    spec = MacLaneSpec(2, 8, 20, "relu")
    plain = unit_module(MacLane(spec), "mac_lane").verilog
    for change in ({"macs": 4}, {"bits": 9}, {"accumulator_bits": 21}, {"nonlinearity": "gelu"},
                   {"noise_bits": 8}):
        assert unit_module(MacLane(replace(spec, **change)), "mac_lane").verilog != plain


def test_a_changed_coefficient_is_found(simulator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MacLaneSpec(1, 16, 40, "gelu")
    table = tail_table(16)
    rows = [list(row) for row in table.coefficients]
    rows[6][3] += 32
    changed = replace(table, coefficients=tuple(map(tuple, rows)))
    monkeypatch.setattr(activation_rtl, "tail_table", lambda bits: changed)
    module = unit_module(MacLane(spec), "mac_lane")
    whole = {"i": LIMIT_LOG2 - 15, "o": LIMIT_LOG2 - 15 - LARGEST_GAIN}
    drawn = (jobs.random_job(spec, np.random.default_rng(seed)) for seed in range(40))
    probing = [job for job in drawn
               if job.operands["activate"] == 1 and job.exponents == whole]
    assert not all(result.ok for result in run_jobs(module, spec, probing[:3], simulator))
