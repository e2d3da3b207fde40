"""Dot products against Python's integers."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import array_api_strict
import numpy as np
import pytest

from hwgen.design import AcceleratorDesign, DesignBatch
from hwgen.program import Job
from hwgen.units.activation.golden import activation
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.mac_lane import golden, jobs
from hwgen.units.mac_lane.cost import beats_of, cycles, latency, tree_rows
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.stochastic_rounding.golden import golden as stochastic
from hwgen.units.stochastic_rounding.spec import StochasticRoundingSpec

RNG = np.random.default_rng


def exact(left: np.ndarray, right: np.ndarray, initial: np.ndarray, shift: int,
          bits: int) -> np.ndarray:
    """Rounded and saturated matrix product of Python's integers and fractions."""
    sums = left.astype(object) @ right.astype(object) + initial.astype(object)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    rounded = [max(low, min(high, round(Fraction(int(total), 1 << shift)))) for total in sums.flat]
    return np.asarray(rounded, dtype=np.int64).reshape(sums.shape)


@pytest.mark.parametrize(("bits", "length"), [(4, 7), (8, 300), (20, 200), (20, 4096), (24, 128),
                                              (24, 129), (24, 4096)])
def test_product_is_exact(bits: int, length: int) -> None:
    spec = MacLaneSpec(4, bits, 2 * bits + 12, "relu")
    rng = np.random.default_rng(bits + length)
    low, high = -(1 << (bits - 1)), 1 << (bits - 1)
    left = rng.integers(low, high, size=(2, 5, length))
    right = rng.integers(low, high, size=(2, length, 6))
    left[0, 0], right[0, :, 0] = low, low       # the largest sum
    left[1, 1], right[1, :, 1] = low, high - 1  # the smallest
    initial = rng.integers(-(1 << (2 * bits)), 1 << (2 * bits), size=6)
    for shift in (0, bits - 1, 2 * bits, 2 * bits + 11):
        np.testing.assert_array_equal(golden.product(left, right, initial, shift, spec),
                                      exact(left, right, initial, shift, bits))


def test_longest_products_of_the_widest_numbers_are_exact() -> None:
    # Beyond 2^18 pairs not even halves of 24 bits sum up exactly in one float64 product.
    spec = MacLaneSpec(1, 20, 60, "relu")
    length = (1 << 19) + 3
    rng = np.random.default_rng(0)
    left = rng.integers(-(1 << 19), 1 << 19, size=(1, length))
    left[:, ::2], right = -(1 << 19), np.full((length, 1), -(1 << 19) + 1)
    wanted = sum(int(a) for a in left[0]) * (1 - (1 << 19))
    value = golden.product(left, right, 1 - wanted, 0, spec)
    assert value.tolist() == [[1]]


def test_product_broadcasts_and_takes_a_shift_a_column() -> None:
    spec = MacLaneSpec(4, 8, 24, "gelu")
    rng = np.random.default_rng(3)
    left, right = rng.integers(-128, 128, size=(3, 2, 4, 9)), rng.integers(-128, 128, size=(9, 5))
    shifts = np.asarray([0, 3, 7, 9, 15])
    values = golden.product(left, right, 0, shifts, spec)
    assert values.shape == (3, 2, 4, 5)
    for column, shift in enumerate(shifts):
        wanted = exact(left.reshape(-1, 9), right, np.zeros(5, dtype=np.int64), int(shift), 8)
        np.testing.assert_array_equal(values.reshape(-1, 5)[:, column], wanted[:, column])


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MacLaneSpec(4, 8, 24, "gelu")
    sums = np.random.default_rng(6).integers(-(1 << 18), 1 << 18, size=(7, 11, 13))
    shifts = np.arange(13)
    whole = [golden.finish(sums, shift, spec, activate=True, i_exponent=-4, o_exponent=-4)
             for shift in (11, shifts)]
    monkeypatch.setattr(golden, "BLOCK", 100)
    for shift, wanted in zip((11, shifts), whole, strict=True):
        got = golden.finish(sums, shift, spec, activate=True, i_exponent=-4, o_exponent=-4)
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("nonlinearity", ["relu", "gelu"])
def test_lane_product_and_libraries_agree(nonlinearity: str) -> None:
    torch = pytest.importorskip("torch")
    spec = MacLaneSpec(4, 20, 52, nonlinearity)
    rng = np.random.default_rng(4)
    left, right = (rng.integers(-(1 << 19), 1 << 19, size=shape) for shape in ((6, 300), (300, 7)))
    initial = rng.integers(-(1 << 40), 1 << 40, size=7)
    options = {"activate": True, "i_exponent": -16, "o_exponent": -17}
    wanted = golden.product(left, right, initial, 26, spec, **options)
    value, accumulator = golden.lane(left[:, None, :], right.T[None], initial, 26, spec, **options)
    np.testing.assert_array_equal(value, wanted)
    np.testing.assert_array_equal(accumulator, left @ right + initial)
    plain = golden.product(left, right, initial, 26, spec)
    np.testing.assert_array_equal(
        wanted, activation(plain, -16, -17, ActivationSpec(20, nonlinearity)))
    assert not np.array_equal(wanted, plain)
    for library in (torch, array_api_strict):
        operands = [library.asarray(array) for array in (left, right, initial)]
        got = golden.product(*operands, 26, spec, **options)
        np.testing.assert_array_equal(np.asarray(got), wanted)


def test_rounding_and_saturation() -> None:
    spec = MacLaneSpec(1, 8, 20, "relu")
    sums = np.asarray([2, 6, -2, -6, 3, 4 * 127 + 1, 4 * 127 + 2, -4 * 128 - 2, -4 * 129, 4 * 500])
    wanted = [0, 2, 0, -2, 1, 127, 127, -128, -128, 127]
    assert golden.finish(sums, 2, spec).tolist() == wanted
    assert golden.finish(sums, 2, spec, activate=True).tolist() == [max(n, 0) for n in wanted]


def test_every_lane_has_relu() -> None:
    sums = np.random.default_rng(8).integers(-(1 << 18), 1 << 18, size=300)
    relu, gelu = MacLaneSpec(1, 8, 20, "relu"), MacLaneSpec(1, 8, 20, "gelu")
    options = {"i_exponent": -4, "o_exponent": -6}
    wanted = golden.finish(sums, 9, relu, activate=1, **options)
    np.testing.assert_array_equal(golden.finish(sums, 9, relu, activate=2, **options), wanted)
    np.testing.assert_array_equal(golden.finish(sums, 9, gelu, activate=2, **options), wanted)
    assert not np.array_equal(golden.finish(sums, 9, gelu, activate=1, **options), wanted)
    with pytest.raises(ValueError, match="at least i_exponent - 4 = -8, not -9"):
        golden.finish(sums, 9, gelu, activate=2, i_exponent=-4, o_exponent=-9)
    with pytest.raises(ValueError, match="activate must be 0, 1 or 2, not 3"):
        golden.finish(sums, 9, gelu, activate=3)


def test_accumulate_is_exact() -> None:
    left = np.full(4096, -(1 << 23))
    assert int(golden.accumulate(left, left, -5)) == (1 << 58) - 5
    assert golden.accumulate(np.zeros((3, 0), dtype=np.int64), np.zeros((3, 0), dtype=np.int64),
                             np.asarray([1, 2, 3])).tolist() == [1, 2, 3]


def test_what_does_not_fit_is_refused() -> None:
    spec = MacLaneSpec(2, 8, 18, "gelu")
    one = np.ones((1, 1), dtype=np.int64)
    with pytest.raises(ValueError, match="left must fit 8 bits, -128 to 127, not 128"):
        golden.product(128 * one, one, 0, 0, spec)
    with pytest.raises(ValueError, match="right must fit 8 bits, -128 to 127, not -129"):
        golden.lane(one, -129 * one, 0, 0, spec)
    with pytest.raises(ValueError, match="initial must fit 18 bits"):
        golden.product(one, one, 1 << 17, 0, spec)
    with pytest.raises(ValueError, match="accumulator must fit 18 bits.*not 131072"):
        golden.product(one, one, (1 << 17) - 1, 0, spec)
    with pytest.raises(ValueError, match="at most 4 long for accumulator_bits = 18, not 5"):
        golden.product(np.ones((1, 5), dtype=np.int64), np.ones((5, 1), dtype=np.int64), 0, 0, spec)
    for shift in (-1, 18):
        with pytest.raises(ValueError, match=f"shift must be 0 to 17, not {shift}"):
            golden.product(one, one, 0, shift, spec)


def test_latency() -> None:
    for macs, wanted in ((1, 6), (2, 6), (4, 6), (8, 6), (16, 6), (32, 6), (64, 7)):
        assert latency(MacLaneSpec(macs, 8, 28, "relu")) == wanted
        assert latency(MacLaneSpec(macs, 8, 28, "gelu")) == wanted + 8
        assert cycles(MacLaneSpec(macs, 8, 28, "relu"), 5) == wanted + 5
    edge = AcceleratorDesign.load("edge")
    other = AcceleratorDesign.load({**edge.model_dump(), "nonlinearity": "relu"})
    batch = DesignBatch.of([edge, other, edge])
    np.testing.assert_array_equal(latency(batch.mac_lane), [14, 6, 14])
    np.testing.assert_array_equal(cycles(batch.mac_lane, np.asarray([1, 2, 3])), [15, 8, 17])


def test_a_deep_tree_takes_another_cycle() -> None:
    # 211 rows take 12 levels: 16 multipliers of 24 bits have 210 rows, 32 of 12 bits have 226.
    specs = [(16, 24), (16, 23), (32, 10), (32, 11), (32, 12), (64, 4), (64, 5), (64, 24), (1, 24)]
    rows = [210, 210, 194, 226, 226, 194, 258, 834, 15]
    wanted = [6, 6, 6, 7, 7, 6, 7, 7, 6]
    assert [tree_rows(MacLaneSpec(*spec, 62, "relu")) for spec in specs] == rows
    assert [latency(MacLaneSpec(*spec, 62, "relu")) for spec in specs] == wanted
    macs, bits = np.asarray(specs).T
    batch = SimpleNamespace(macs=macs, bits=bits, nonlinearity=np.asarray(["relu"] * len(specs)),
                            noise_bits=0)
    np.testing.assert_array_equal(latency(batch), wanted)


def test_stochastic_rounding_takes_another_cycle() -> None:
    plain = AcceleratorDesign.load("edge").model_dump()
    training = {**plain, "stochastic_rounding": True}
    batch = DesignBatch.of([plain, training])
    np.testing.assert_array_equal(batch.mac_lane.noise_bits, [0, 16])
    np.testing.assert_array_equal(latency(batch.mac_lane), [14, 15])


def test_a_seed_rounds_each_tile_stochastically() -> None:
    spec = MacLaneSpec(2, 8, 20, "relu", 8)
    rounding = StochasticRoundingSpec(20, 8, 8)
    sums = RNG(4).integers(-(1 << 13), 1 << 13, size=(3, 40))
    for seed in (0, 7, np.asarray([1, 2, 255])):
        rounded = stochastic(sums, 5, seed, rounding)
        assert (golden.finish(sums, 5, spec, seed=seed) == rounded).all()
        relu = golden.finish(sums, 5, spec, activate=1, seed=seed)
        assert (relu == np.maximum(rounded, 0)).all()
    nearest = golden.finish(sums, 5, spec)
    assert (nearest != golden.finish(sums, 5, spec, seed=7)).any()
    assert (nearest == golden.finish(sums, 5, replace(spec, noise_bits=0))).all()
    # The mean over the noise is the sum itself.
    tile = np.full(255, 5 * 32 + 11)
    assert golden.finish(tile, 5, spec, seed=1).sum() == 255 * 5 + (11 << 3)


def test_a_lane_without_noise_takes_no_seed() -> None:
    spec = MacLaneSpec(2, 8, 20, "relu")
    with pytest.raises(ValueError, match="noise_bits = 0, which only rounds to nearest, not 3"):
        golden.finish(np.asarray([1]), 0, spec, seed=3)
    with pytest.raises(ValueError, match="noise_bits = 0, not 3"):
        jobs.make_job(spec, "one", [[1]], [[1]], [0], 0, seed=3)
    with pytest.raises(ValueError, match="noise_bits must be one of 0, 8, .* not 7"):
        MacLaneSpec(2, 8, 20, "relu", 7)
    with pytest.raises(ValueError, match="tiles must be 1 dot products together, not 3"):
        jobs.make_job(spec, "one", [[1]], [[1]], [0], 0, tiles=[1, 2])


def test_beats() -> None:
    spec = MacLaneSpec(4, 8, 28, "relu")
    assert [beats_of(spec, n) for n in (0, 1, 4, 5, 8, 9)] == [1, 1, 1, 2, 2, 3]
    macs = SimpleNamespace(macs=np.asarray([1, 4, 16]))
    np.testing.assert_array_equal(beats_of(macs, np.asarray([0, 7, 33])), [1, 2, 3])


@pytest.mark.parametrize("spec", [MacLaneSpec(1, 4, 8, "relu"), MacLaneSpec(4, 8, 20, "gelu"),
                                  MacLaneSpec(64, 24, 62, "gelu"), MacLaneSpec(8, 12, 36, "relu")])
def test_random_jobs_are_whole_and_reproducible(spec: MacLaneSpec) -> None:
    for seed in range(20):
        job = jobs.random_job(spec, np.random.default_rng(seed))
        assert job.to_json() == jobs.random_job(spec, np.random.default_rng(seed)).to_json()
        back = Job.from_json(job.to_json())
        beats = jobs.stimulus(spec, job)
        assert jobs.stimulus(spec, back) == beats
        assert jobs.expected(spec, back) == jobs.expected(spec, job)
        assert jobs.signals(spec, back) == jobs.signals(spec, job)
        ends = sum(beat["last"] for beat in beats["i"])
        assert ends == len(jobs.expected(spec, job)["o"]) == len(job.operands["initial"])
        assert beats["i"][-1]["last"] == 1
        assert job.cycles == jobs.predicted_cycles(spec, job) == len(beats["i"]) + latency(spec)


def test_beats_hold_the_operands_in_order() -> None:
    spec = MacLaneSpec(2, 8, 20, "relu")
    job = jobs.make_job(spec, "three", [[1, 2, 3], [], [4]], [[5, 6, 7], [], [8]], [10, 20, 30], 1)
    beats = jobs.stimulus(spec, job)["i"]
    assert [beat["left"] for beat in beats] == [[1, 2], [3, 0], [0, 0], [4, 0]]
    assert [beat["right"] for beat in beats] == [[5, 6], [7, 0], [0, 0], [8, 0]]
    assert [beat["last"] for beat in beats] == [0, 1, 1, 1]
    assert [beats[k]["initial"] for k in (0, 2, 3)] == [10, 20, 30]
    assert beats[1]["initial"] != 10
    assert jobs.expected(spec, job) == {"o": [{"value": 24, "accumulator": 48},
                                              {"value": 10, "accumulator": 20},
                                              {"value": 31, "accumulator": 62}]}
    assert job.cycles == 4 + 6


def test_jobs_of_unequal_operands_are_refused() -> None:
    spec = MacLaneSpec(2, 8, 20, "relu")
    with pytest.raises(ValueError, match="one entry a dot product, not 1, 1 and 2"):
        jobs.make_job(spec, "x", [[1]], [[1]], [0, 0], 0)
    with pytest.raises(ValueError, match="same number of pairs"):
        jobs.make_job(spec, "x", [[1]], [[1, 2]], [0], 0)


@pytest.mark.parametrize("nonlinearity", ["relu", "gelu"])
def test_random_jobs_reach_the_limits(nonlinearity: str) -> None:
    spec = MacLaneSpec(4, 8, 24, nonlinearity)
    seen = set()
    for seed in range(12):
        job = jobs.random_job(spec, np.random.default_rng(seed))
        shift, activate = job.operands["shift"], job.operands["activate"]
        seen.add(f"activate {activate}")
        for a, b in zip(job.operands["left"], job.operands["right"], strict=True):
            seen.update({"-128 · -128"} if (-128, -128) in zip(a, b, strict=True) else ())
            seen.add("one beat" if len(a) <= 4 else "more beats")
            seen.update({"empty"} if not a else ())
        for beat in jobs.expected(spec, job)["o"]:
            rest = beat["accumulator"] % (1 << shift)
            seen.update({"tie"} if shift and 2 * rest == 1 << shift else ())
            if not activate:
                seen.update({f"value {beat['value']}"} if beat["value"] in (-128, 127) else ())
                seen.update({"beyond"} if beat["accumulator"] >> shift > 127 else ())
    assert seen == {"activate 0", "activate 1", "activate 2", "-128 · -128", "one beat",
                    "more beats", "empty", "tie", "value -128", "value 127", "beyond"}


def test_jobs_show_another_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = MacLaneSpec(4, 8, 24, "relu")
    drawn = [jobs.random_job(spec, np.random.default_rng(seed)) for seed in range(60)]
    plain = [job for job in drawn
             if 0 < job.operands["shift"] <= 12 and not job.operands["activate"]]
    assert len(plain) >= 8
    for rounded in (lambda value, shift: (value + ((1 << shift) >> 1)) >> shift,  # ties up
                    lambda value, shift: (value + ((1 << shift) - 1 >> 1)) >> shift,  # ties down
                    lambda value, shift: value >> shift):
        wanted = [jobs.expected(spec, job) for job in plain]
        with monkeypatch.context() as patch:
            patch.setattr(golden, "round_shift", rounded)
            assert all(jobs.expected(spec, job) != before
                       for job, before in zip(plain, wanted, strict=True))
