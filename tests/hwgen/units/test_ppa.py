"""Figures fitted to synthesised points: exact where they are linear, refused outside."""

from types import SimpleNamespace

import numpy as np
import pytest

from hwgen.units.dynatran.cost import PPA as DYNATRAN
from hwgen.units.fifo.cost import PPA as FIFO
from hwgen.units.layer_norm.cost import PPA as LAYER_NORM
from hwgen.units.mac_lane.cost import PPA as MAC_LANE
from hwgen.units.post_sparsity.cost import PPA as POST_SPARSITY
from hwgen.units.ppa import FITTED as COLUMNS
from hwgen.units.ppa import Fit, Points
from hwgen.units.pre_sparsity.cost import PPA as PRE_SPARSITY
from hwgen.units.residual_add.cost import PPA as RESIDUAL_ADD
from hwgen.units.softmax.cost import PPA as SOFTMAX
from hwgen.units.stochastic_rounding.cost import PPA as STOCHASTIC_ROUNDING

FITTED = (DYNATRAN, FIFO, LAYER_NORM, MAC_LANE, POST_SPARSITY, PRE_SPARSITY, RESIDUAL_ADD, SOFTMAX,
          STOCHASTIC_ROUNDING)


def terms(spec):
    return (1.0, spec.lanes * spec.bits, spec.bits * (spec.kind == "wide"))


def points(noise=0.0, count=12):
    rng = np.random.default_rng(0)
    lanes, bits = np.arange(1.0, count + 1), rng.integers(4, 25, count).astype(float)
    kind = np.where(np.arange(count) % 2, "wide", "plain")
    exact = 7 + 3 * lanes * bits + 11 * bits * (kind == "wide")
    return Points(
        "unit",
        {"lanes": lanes, "bits": bits, "kind": kind,
         "area_um2": exact * (1 + noise * rng.standard_normal(count))},
    )


def test_a_linear_quantity_is_found_exactly():
    fit = Fit.of(points(), "area_um2", ("lanes", "bits", "kind"), terms)
    assert fit.coefficients == pytest.approx([7, 3, 11])
    assert fit.left_out_errors == pytest.approx(np.zeros(12), abs=1e-9)
    spec = SimpleNamespace(lanes=2, bits=8, kind="wide")
    assert fit.evaluate(spec) == pytest.approx(7 + 48 + 88)
    many = SimpleNamespace(lanes=np.array([2, 3]), bits=np.array([8, 8]),
                           kind=np.array(["wide", "plain"]))
    assert fit.evaluate(many) == pytest.approx([143, 79])


def test_left_out_errors_are_those_of_fits_without_the_point():
    noisy = points(noise=0.05)
    fit = Fit.of(noisy, "area_um2", ("lanes", "bits", "kind"), terms)
    for index in range(len(noisy)):
        rest = Points("unit", {name: np.delete(column, index)
                               for name, column in noisy.columns.items()})
        spec = SimpleNamespace(**{name: column[index] for name, column in noisy.columns.items()})
        alone = Fit.of(rest, "area_um2", (), terms).evaluate(spec)
        assert fit.left_out_errors[index] == pytest.approx(
            alone / noisy.columns["area_um2"][index] - 1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"lanes": 13, "bits": 8, "kind": "wide"}, "lanes = 1 to 12, not 13"),
        ({"lanes": np.array([1, 0]), "bits": 8, "kind": "wide"}, "lanes = 1 to 12, not 0"),
        ({"lanes": 1, "bits": 8, "kind": "tall"}, "kind = plain, wide, not tall"),
    ],
)
def test_outside_the_points_there_is_no_figure(spec, message):
    fit = Fit.of(points(), "area_um2", ("lanes", "bits", "kind"), terms)
    with pytest.raises(ValueError, match=message):
        fit.evaluate(SimpleNamespace(**spec))


def test_too_few_or_equal_points_are_refused():
    few = Points("unit", {name: column[:3] for name, column in points().columns.items()})
    with pytest.raises(ValueError, match="3 points do not determine the 3 terms of area_um2"):
        Fit.of(few, "area_um2", (), terms)
    with pytest.raises(ValueError, match="12 points do not determine the 2 terms"):
        Fit.of(points(), "area_um2", (), lambda spec: (spec.bits, 2 * spec.bits))


def test_a_unit_without_points_says_how_to_make_them():
    with pytest.raises(ValueError, match="transcode characterize nothing"):
        Points.read("nothing")


@pytest.mark.parametrize("ppa", [
    pytest.param(ppa, marks=pytest.mark.skipif(not ppa.complete(), reason="no points yet"))
    for ppa in FITTED], ids=lambda ppa: ppa.unit)
def test_fits_miss_points_left_out_by_little(ppa):
    for quantity in set(COLUMNS) - {"idle_mw"}:
        errors = np.abs(ppa.fit(quantity).left_out_errors)
        assert np.median(errors) < 0.03, quantity
        assert errors.max() < 0.10, quantity


def test_a_fitted_unit_says_what_a_spec_costs():
    spec = SimpleNamespace(parallel=16, bits=20)
    point = next(point for point in Points.read("dynatran").specs()
                 if (point.parallel, point.bits) == (16, 20))
    assert DYNATRAN.area_um2(spec) == pytest.approx(point.area_um2, rel=0.02)
    for density, wanted in ((1.0, point.energy_density_1_pj), (0.5, point.energy_density_0_5_pj),
                            (0.25, point.energy_density_0_25_pj)):
        assert DYNATRAN.energy_pj(spec, density) == pytest.approx(wanted, rel=0.02)
    with pytest.raises(ValueError, match="density must be one of"):
        DYNATRAN.energy_pj(spec, 0.3)
    assert DYNATRAN.slowest_path_ns(spec) == max(
        each.critical_path_ns for each in Points.read("dynatran").specs() if each.bits <= 20)
    with pytest.raises(ValueError, match="bits = 8 to 24, not 25"):
        DYNATRAN.area_um2(SimpleNamespace(parallel=16, bits=25))


def test_parameters_that_depend_on_one_another_in_the_points_must_do_so_in_a_spec():
    spec = SimpleNamespace(accumulator_bits=44, bits=16, noise_bits=16)
    assert STOCHASTIC_ROUNDING.area_um2(spec) > 0
    spec.bits = 12
    with pytest.raises(ValueError, match=r"accumulator_bits - 2 \* bits = 12 to 12, not 20"):
        STOCHASTIC_ROUNDING.area_um2(spec)
