"""Figures fitted to synthesised points: exact where they are linear, refused outside."""

from types import SimpleNamespace

import numpy as np
import pytest

from hwgen.units.ppa import Fit, Points


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
