"""Factors between nodes, by hand from the published coefficients."""

import pytest

from hwgen.technology.scaling import Scaling


def test_factors_to_14_nm_by_hand():
    scaling = Scaling.between("45nm", "14nm")
    energy = [1.018 * 1.1**2 - 0.3107 * 1.1 + 0.1539, 0.2363 * 0.8**2 - 0.09675 * 0.8 + 0.02239]
    delay = [-501.6 * 1.1**3 + 1567 * 1.1**2 - 1619 * 1.1 + 566.1,
             -40.66 * 0.8**3 + 109.2 * 0.8**2 - 100.6 * 0.8 + 35.92]
    assert scaling.area == pytest.approx(0.17)
    assert scaling.energy == pytest.approx(energy[1] / energy[0])
    assert scaling.delay == pytest.approx(delay[1] / delay[0])
    assert "Stillmaker" in scaling.source and "leakage" in scaling.notes[0]


def test_factors_to_7_nm_by_hand():
    scaling = Scaling.between("45nm", "7nm")
    energy = [1.018 * 1.1**2 - 0.3107 * 1.1 + 0.1539, 0.1776 * 0.7**2 - 0.09097 * 0.7 + 0.02447]
    delay = [-501.6 * 1.1**3 + 1567 * 1.1**2 - 1619 * 1.1 + 566.1,
             -28.58 * 0.7**3 + 76.6 * 0.7**2 - 70.26 * 0.7 + 24.69]
    assert scaling.area == pytest.approx(0.059)
    assert scaling.energy == pytest.approx(energy[1] / energy[0])
    assert scaling.delay == pytest.approx(delay[1] / delay[0])


def test_every_step_to_a_smaller_node_shrinks():
    for origin, target in (("45nm", "14nm"), ("14nm", "7nm")):
        scaling = Scaling.between(origin, target)
        for factor in (scaling.area, scaling.delay, scaling.energy):
            assert 0 < factor < 1


def test_a_node_to_itself_changes_nothing():
    same = Scaling.between("14nm", "14nm")
    assert (same.area, same.delay, same.energy) == (1, 1, 1)


def test_an_unknown_node_is_refused():
    with pytest.raises(ValueError, match="one of 45nm, 14nm, 7nm, not '5nm'"):
        Scaling.between("45nm", "5nm")
