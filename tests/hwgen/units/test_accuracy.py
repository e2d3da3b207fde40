"""Measured errors of approximating units: within their bounds, and measured on real inputs."""

from typing import Any

import numpy as np
import pytest

from hwgen.units.accuracy import BINS, Accuracy
from hwgen.units.activation import accuracy as activation
from hwgen.units.activation.spec import ActivationSpec
from hwgen.units.layer_norm import accuracy as layer_norm
from hwgen.units.layer_norm.spec import LayerNormSpec
from hwgen.units.mac_lane import accuracy as mac_lane
from hwgen.units.mac_lane.spec import MacLaneSpec
from hwgen.units.softmax import accuracy as softmax
from hwgen.units.softmax.spec import SoftmaxSpec


def test_errors_are_sorted_into_bins() -> None:
    found = Accuracy.of(
        "title", "inputs", "x", np.array([0.0, 0.1, 128.0]), np.array([-0.5, 0.25, 0.75]), 1.0
    )
    assert (len(found.edges), found.edges[0], found.edges[-1]) == (BINS + 1, 0.0, 128.0)
    assert (found.largest[0], found.mean[0]) == (0.5, 0.375)
    assert (found.largest[-1], found.mean[-1]) == (0.75, 0.75)
    assert np.isnan(found.largest[1:-1]).all() and np.isnan(found.mean[1:-1]).all()
    assert (found.largest_ulp, found.mean_ulp) == (0.75, 0.5625)


@pytest.mark.parametrize("error", [np.array([np.nan]), np.array([])])
def test_an_error_that_is_no_number_is_refused(error: Any) -> None:
    with pytest.raises(ValueError, match="errors over x must be finite"):
        Accuracy.of("title", "inputs", "x", np.zeros(error.shape), error, 1.0)


@pytest.mark.parametrize("bits", [4, 8, 13, 20, 24])
def test_every_measurement_is_within_its_bound_and_not_idle(bits: int) -> None:
    measured = [
        *activation.measure(ActivationSpec(bits, "gelu")),
        *softmax.measure(SoftmaxSpec(4, bits, 300)),
        *layer_norm.measure(LayerNormSpec(4, bits, 300, 1e-5)),
    ]
    assert len(measured) == 4
    for each in measured:
        # Of 4 bits, few results of gelu are between two numbers.
        assert 0.1 < each.largest_ulp <= each.bound_ulp == 1.0, each.title
        assert 0.01 < each.mean_ulp < 0.5, each.title


def test_a_lane_is_measured_by_its_non_linearity_and_relu_is_exact() -> None:
    lane = mac_lane.measure(MacLaneSpec(4, 8, 20, "gelu"))
    alone = activation.measure(ActivationSpec(8, "gelu"))
    assert [each.largest_ulp for each in lane] == [each.largest_ulp for each in alone]
    assert mac_lane.measure(MacLaneSpec(4, 8, 20, "relu")) == []


def test_narrow_arguments_are_measured_exhaustively() -> None:
    (coarse, fine) = activation.measure(ActivationSpec(8, "gelu"))
    assert coarse.inputs.startswith("256 arguments from −8 to 8, exponents -4 in and -4 out")
    assert fine.inputs.startswith("256 arguments from −8 to 8, exponents -4 in and -8 out")


def test_a_wrong_table_would_show(monkeypatch: Any) -> None:
    """An error of two ulp in golden is an error of two ulp in the measurement."""
    right = softmax.golden
    monkeypatch.setattr(softmax, "golden", lambda *given: right(*given) + 2)
    (found,) = softmax.measure(SoftmaxSpec(4, 12, 64))
    assert 2.0 < found.largest_ulp < 3.0 and found.mean_ulp > 1.5
