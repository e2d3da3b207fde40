"""Stochastic rounding's RTL against its golden model and its cost."""

import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("amaranth")

from hwgen.emit import unit_module  # noqa: E402  (after the skip)
from hwgen.simulation import check_unit, run_jobs  # noqa: E402
from hwgen.units.stochastic_rounding import cost, jobs  # noqa: E402
from hwgen.units.stochastic_rounding.noise import NOISE_BITS  # noqa: E402
from hwgen.units.stochastic_rounding.rtl import StochasticRounding  # noqa: E402
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec  # noqa: E402

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("spec", [
    StochasticRoundingSpec(5, 4, 8), StochasticRoundingSpec(20, 8, 11),
    StochasticRoundingSpec(52, 20, 16), StochasticRoundingSpec(62, 24, 24),
], ids=str)
def test_random_tiles(spec: StochasticRoundingSpec, simulator: str) -> None:
    rng = np.random.default_rng(spec.bits)
    made = [jobs.random_job(spec, rng) for _ in range(24)]
    check_unit(StochasticRounding, spec, made, simulator, stall_seeds=(1, 2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("noise_bits", NOISE_BITS)
def test_more_random_tiles(noise_bits: int, simulator: str) -> None:
    rng = np.random.default_rng(noise_bits)
    bits = int(rng.integers(4, 25))
    spec = StochasticRoundingSpec(int(rng.integers(bits + 1, 63)), bits, noise_bits)
    check_unit(StochasticRounding, spec, [jobs.random_job(spec, rng) for _ in range(40)], simulator)


def test_every_fraction_over_the_whole_period(simulator: str) -> None:
    """Every fraction of 8 bits, of both signs, meets every state of the noise."""
    spec = StochasticRoundingSpec(14, 5, 8)
    fraction = np.arange(256)
    made = [jobs.make_job(spec, [np.full(255, (whole << 8) + rest) for rest in fraction],
                          fraction.tolist(), 8, f"from {whole}") for whole in (-2, 15)]
    first = check_unit(StochasticRounding, spec, made, simulator, stall_seeds=())[0]
    up = np.array([beat["value"] + 2 for beat in first.outputs["o"]]).reshape(256, 255)
    assert (up.sum(axis=1) == fraction).all()


@pytest.mark.parametrize("accumulator_bits", [9, 26])
def test_every_shift(accumulator_bits: int, simulator: str) -> None:
    spec = StochasticRoundingSpec(accumulator_bits, 6, 9)
    rng = np.random.default_rng(1)
    limit = 1 << (accumulator_bits - 1)
    made = []
    for shift in range(accumulator_bits):
        size = np.minimum(1 << np.minimum(rng.integers(shift, shift + 7, 60), 40), limit)
        value = [*(rng.integers(0, size) - size // 2), -limit, limit - 1]
        made.append(jobs.make_job(spec, [value], [shift], shift, f"shift {shift}"))
    check_unit(StochasticRounding, spec, made, simulator, stall_seeds=())


def test_tiles_follow_without_a_gap(simulator: str) -> None:
    spec = StochasticRoundingSpec(20, 8, 16)
    rng = np.random.default_rng(2)
    lengths = [1, 1, 30, 1, 7, 2]
    tiles = [rng.integers(-(2**15), 2**15, n) for n in lengths]
    # Tiles of the same seed and values give the same results, wherever they stand.
    tiles += [tiles[2], tiles[4], tiles[2]]
    job = jobs.make_job(spec, tiles, [3, 4, 5, 6, 7, 8, 5, 7, 5], 8, "tiles")
    assert job.cycles == 42 + 67 + cost.LATENCY
    got = [beat["value"] for beat in
           check_unit(StochasticRounding, spec, [job], simulator)[0].outputs["o"]]
    assert got[2:32] == got[42:72] == got[79:109]


def test_every_parameter_changes_the_verilog() -> None:
    texts = {unit_module(StochasticRounding(spec), "stochastic_rounding").verilog for spec in (
        StochasticRoundingSpec(20, 8, 16), StochasticRoundingSpec(21, 8, 16),
        StochasticRoundingSpec(20, 9, 16), StochasticRoundingSpec(20, 8, 15))}
    assert len(texts) == 4


def test_a_changed_seed_for_zero_is_found(simulator: str) -> None:
    spec = StochasticRoundingSpec(20, 8, 8)
    module = unit_module(StochasticRounding(spec), "stochastic_rounding")
    # The choice between the seed and 1.
    chosen = re.compile(r"\? 8'h01 :")
    assert len(chosen.findall(module.verilog)) == 1
    changed = replace(module, verilog=chosen.sub("? 8'h02 :", module.verilog))
    job = jobs.make_job(spec, [np.full(40, 128)], [0], 8, "halves")
    assert run_jobs(module, spec, [job], simulator)[0].ok
    assert not run_jobs(changed, spec, [job], simulator)[0].ok
