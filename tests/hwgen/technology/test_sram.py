"""The SRAM model: facts, fits, their residuals, and what it refuses."""

import numpy as np
import pytest

from hwgen.technology.sram import left_out_errors, memory, two_port_factors


def test_it_is_near_a_macro_that_it_is_fitted_to():
    factors = two_port_factors()
    cost = memory(256, 32)
    assert cost.slices == 1
    assert cost.area_um2 / factors["area_um2"] == pytest.approx(5065.704, rel=0.05)
    assert cost.access_ns / factors["access_ns"] == pytest.approx(0.235, rel=0.05)
    assert cost.read_pj / factors["access_mw"] == pytest.approx(1.87439, rel=0.05)
    assert cost.write_pj == cost.read_pj
    assert cost.leakage_mw / factors["area_um2"] == pytest.approx(0.289841, rel=0.10)
    assert cost.setup_ns == 0.05


def test_the_second_port_is_openrams():
    factors = two_port_factors()
    assert factors == pytest.approx(
        {"area_um2": 97576.94 / 47608.441, "access_ns": 0.37426 / 0.37435,
         "access_mw": 5.007115 / 2.871609})


@pytest.mark.parametrize(
    ("quantity", "median", "largest"),
    [("area_um2", 0.0753, 0.2419), ("access_ns", 0.0574, 0.1003), ("access_fj", 0.0646, 0.2885),
     ("leakage_nw", 0.0916, 0.4451)],
)
def test_the_residuals_are_those_that_are_stated(quantity, median, largest):
    errors = np.abs(left_out_errors()[quantity])
    assert len(errors) == 17
    assert np.median(errors) == pytest.approx(median, abs=1e-4)
    assert errors.max() == pytest.approx(largest, abs=1e-4)


def test_a_wide_memory_is_slices_side_by_side():
    wide, narrow = memory(64, 232), memory(64, 116)
    assert (wide.slices, narrow.slices) == (2, 1)
    assert wide.area_um2 == pytest.approx(2 * narrow.area_um2)
    assert wide.read_pj == pytest.approx(2 * narrow.read_pj)
    assert wide.leakage_mw == pytest.approx(2 * narrow.leakage_mw)
    assert wide.access_ns == narrow.access_ns
    assert memory(64, 117).slices == 2


def test_a_memory_below_the_smallest_macro_costs_what_that_costs():
    assert memory(16, 200) == memory(32, 200)
    assert memory(1024, 3) == memory(1024, 7)


def test_what_is_outside_the_range_is_refused():
    with pytest.raises(ValueError, match="up to 2048 entries, not 2049"):
        memory(2049, 32)
    with pytest.raises(ValueError, match="at least 1 entry of 1 bit, not 0 of 8"):
        memory(0, 8)
