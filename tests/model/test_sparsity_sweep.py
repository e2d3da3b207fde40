"""Pruning at inference alone: what is measured is what the policy gives, and nothing stays."""

from dataclasses import astuple
from pathlib import Path

import pytest
from test_train import TASK, shorten, trained_small

from model import sweep as sweeping
from model.density import DensityRecorder
from model.policy import PruningPolicy
from model.sweep import SweepPoint, sweep
from model.teacher import predict
from model.trained import TrainedModel

SPARSITIES, THRESHOLDS = (0.0, 0.5, 0.9), (0.05, 100.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return trained_small(tmp_path_factory.mktemp("sweep") / "model")


@pytest.fixture(scope="module")
def points(model: TrainedModel) -> dict[tuple[str, float], SweepPoint]:
    found = sweep(model, TASK, SPARSITIES, THRESHOLDS)
    return {(point.method, point.asked): point for point in found}


def test_every_method_meets_what_is_asked(points: dict[tuple[str, float], SweepPoint]) -> None:
    assert list(points) == [
        *(("threshold", value) for value in SPARSITIES),
        *(("top_k_row", value) for value in SPARSITIES),
        *(("one_threshold", value) for value in THRESHOLDS),
    ]
    for method in ("threshold", "top_k_row"):
        # Scores and logits are stored and not pruned, so the whole has fewer zeros than each place.
        assert points[method, 0.0].sparsity < 0.01
        assert 0.4 < points[method, 0.5].sparsity < 0.52
        assert points[method, 0.5].sparsity < points[method, 0.9].sparsity < 0.91
        assert points[method, 0.0].accuracy > 0.9
    assert points["threshold", 0.5].sparsity == pytest.approx(
        points["top_k_row", 0.5].sparsity, abs=0.04
    )
    assert points["one_threshold", 0.05].sparsity < points["one_threshold", 100.0].sparsity
    assert points["one_threshold", 100.0].accuracy == 0.5  # nothing is left but biases


def test_a_point_is_the_model_under_its_policy(
    model: TrainedModel, points: dict[tuple[str, float], SweepPoint]
) -> None:
    fresh = TrainedModel.load(model.path).model
    fresh.dynaprop.policy = PruningPolicy(activation_threshold=0.05)
    fresh.dynaprop.recorder = recorder = DensityRecorder(fresh.design)
    logits = predict(fresh, TASK.validation, 32)
    trace = recorder.trace(
        {name: module.weight for name, module in fresh.products().items()},
        fresh.dynaprop.policy, weights_hash="", task="", split="", stage="inference",
    )  # fmt: skip
    point = points["one_threshold", 0.05]
    assert point.sparsity == pytest.approx(1 - trace.by_role()["OUTPUT"])
    assert point.accuracy == (logits.argmax(1) == TASK.validation.labels).mean()


def test_the_model_stays_as_it_was(
    model: TrainedModel, points: dict[tuple[str, float], SweepPoint]
) -> None:
    dynaprop = model.model.dynaprop
    assert dynaprop.policy == model.policy and dynaprop.table is None and dynaprop.recorder is None
    assert model.correct(TASK.validation).mean() == model.validation_accuracy


def test_a_sweep_is_kept_and_done_anew_where_more_is_asked(
    model: TrainedModel,
    points: dict[tuple[str, float], SweepPoint],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    measured = sweeping._measured
    monkeypatch.setattr(
        sweeping, "_measured", lambda *given: calls.append(given) or measured(*given)
    )
    again = sweep(TrainedModel.load(model.path), TASK, SPARSITIES, THRESHOLDS)
    assert [astuple(p) for p in again] == [astuple(p) for p in points.values()] and not calls
    shares: list[float] = []
    assert len(sweep(model, TASK, (0.5,), (), progress=shares.append)) == len(calls) == 2
    assert shares == [0.5, 1.0]


def test_a_sparsity_that_leaves_nothing_is_refused(model: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"at least 0 and below 1, not 1\.0"):
        sweep(model, TASK, (1.0,))
