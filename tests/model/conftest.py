"""Fixtures of the models' tests."""

from pathlib import Path

import pytest
from small import EDGE, batch, make_model

from model.calibration import Calibration, calibrate
from model.flexibert import FlexiBertForSequenceClassification
from model.quantized import QuantizedModel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TRANSCODE_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def pruned() -> tuple[FlexiBertForSequenceClassification, Calibration, QuantizedModel]:
    """A model with a threshold, its calibration, and its forward pass on integers."""
    model = make_model(0.1)
    calibration = calibrate(model, [batch(seed) for seed in range(4)])
    return model, calibration, QuantizedModel(model, calibration, EDGE)
