"""Training for target densities: as resumable as with fixed thresholds, and traced by stage."""

from pathlib import Path

import pytest
from test_train import RECIPE, STEPS, TASK, shorten, stopping
from tiny import SMALL, same

from model import loop, train
from model.policy import PruningPolicy
from model.thresholds import ThresholdTable
from model.trained import TrainedModel, summary

POLICY = PruningPolicy.load(
    {
        "activation_density": 0.5,
        "gradient_density": 0.3,
        "gradients_off": ["classifier", "pooler"],
        "ramp": {"start": 4, "steps": 20},
        "refresh_steps": 9,
        "parameter_gradient_threshold": 1e-6,
        "movement": {"density": 0.5, "start": 10, "steps": 40},
    }
)
STAGES = (0.0, 0.25, 0.5)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


def trained_to_targets(out: Path, **other: object) -> TrainedModel:
    options = {"recipe": RECIPE, "seed": 1, "trace_at": STAGES, **other}
    return train.train(SMALL, TASK, POLICY, out=out, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return trained_to_targets(tmp_path_factory.mktemp("reference") / "model")


def test_densities_are_what_was_asked_for(reference: TrainedModel) -> None:
    assert reference.validation_accuracy > 0.9
    densities = reference.densities
    for role in ("LEFT", "RIGHT"):
        assert densities[role] == pytest.approx(0.5, abs=0.03)
    assert densities["WEIGHT"] == pytest.approx(0.5, abs=1e-3)
    for place in ("query", "key", "value", "context", "feed_forward_0"):
        # In evaluation, on validation, with the table of the training split.
        assert reference.trace.density(0, place, "OUTPUT") == pytest.approx(0.5, abs=0.03), place
        assert reference.gradients.density(0, place, "GRAD_OUTPUT") < 0.4
    printed = summary(reference)
    assert (printed["activation_density"], printed["gradient_density"]) == (0.5, 0.3)
    assert printed["activation_threshold"] == 0


def test_the_table_is_saved_with_the_model(reference: TrainedModel) -> None:
    table = ThresholdTable.load(reference.path / "thresholds.json")
    table.check(SMALL)
    assert table.batch_size == RECIPE.batch_size and table.step is None
    assert reference.model.dynaprop.table == table
    threshold = table.threshold(0, "query", "OUTPUT", 0.5)
    assert reference.trace.thresholds["0.query.OUTPUT"] == threshold > 0
    assert reference.gradients.thresholds["0.query.OUTPUT"] != threshold  # training's, with dropout
    correct = reference.correct(TASK.validation)
    assert correct.mean() == reference.validation_accuracy


def test_stages_show_the_ramp(reference: TrainedModel) -> None:
    assert list(reference.stages) == list(STAGES)
    first, second, third = reference.stages.values()
    for trace in reference.stages.values():
        assert trace.stage == "training" and trace.split == "train"
        assert trace.batch == 4 * RECIPE.batch_size and trace.sequence_length == 32
    assert first.density(0, "query", "OUTPUT") > 0.9
    assert second.density(0, "query", "OUTPUT") == pytest.approx(0.55, abs=0.1)
    assert first.by_role()["WEIGHT"] == 1 > second.by_role()["WEIGHT"] > third.by_role()["WEIGHT"]
    assert len({t.weights_hash for t in (first, second, third, reference.gradients)}) == 4


@pytest.mark.parametrize("at", [2, 23, 31, STEPS - 3])  # being traced, traced, between tables, end
def test_an_interrupted_training_ends_as_if_it_had_not_been(
    at: int, reference: TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        trained_to_targets(tmp_path / "model", progress=stopping(at))
    steps: list[int] = []
    resumed = trained_to_targets(tmp_path / "model", progress=lambda now: steps.append(now.step))
    assert steps[0] == {2: 1, 23: 21, 31: 32, STEPS - 3: STEPS - 8}[at]
    assert same(resumed.model, reference.model)
    assert resumed.model.dynaprop.table == reference.model.dynaprop.table
    assert resumed.trace == reference.trace and resumed.gradients == reference.gradients
    assert resumed.stages == reference.stages


def test_a_higher_rung_goes_on_from_a_lower_one_and_ends_as_if_alone(
    reference: TrainedModel, tmp_path: Path
) -> None:
    lower = trained_to_targets(tmp_path / "low", recipe=RECIPE.rung(0.5), trace_at=())
    higher = trained_to_targets(tmp_path / "high", trace_at=(), start=lower)
    assert same(higher.model, reference.model) and not higher.stages
    assert higher.model.dynaprop.table == reference.model.dynaprop.table


def test_stages_that_cannot_be_are_refused(reference: TrainedModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"trace_at must be at least 0 and below 1, not 1\.0"):
        trained_to_targets(tmp_path / "model", trace_at=(1.0,))
    with pytest.raises(ValueError, match="trace_at and start exclude each other"):
        trained_to_targets(tmp_path / "model", start=reference)
    with pytest.raises(ValueError, match="holds a training of another trace_at"):
        trained_to_targets(reference.path, trace_at=())
