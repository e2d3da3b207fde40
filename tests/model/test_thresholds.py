"""The table of thresholds: quantiles of what a model stores, over all real entries."""

import numpy as np
import pytest
import torch
from small import DESIGN, EDGE, batch, make_model

from model import threshold_profiling
from model.calibration import calibrate
from model.density import DensityRecorder
from model.operations import GemmRole
from model.policy import PruningPolicy
from model.quantized import QuantizedModel
from model.threshold_profiling import ThresholdRefresh, profile
from model.thresholds import LEVELS, ThresholdTable

OUTPUT, GRADIENT = GemmRole.OUTPUT, GemmRole.GRAD_OUTPUT


def labelled(seed: int, count: int = 32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {**batch(seed, count), "labels": torch.randint(0, 2, (count,), generator=generator)}


def loss_of(model):
    return lambda inputs: model(**inputs).loss


class Catcher:
    """Keeps every tensor and gradient, before pruning, at real entries."""

    def __init__(self):
        self.values = {}

    def start(self, valid_mask):
        return self

    def _keep(self, key, values, mask):
        chosen = values if mask is None else values[mask.expand(values.shape)]
        self.values.setdefault(key, []).append(chosen.detach().reshape(-1).numpy())

    def note_activation(self, before, after, layer, operation, valid_mask, *_):
        self._keep((layer, operation, OUTPUT), before, valid_mask)

    def note_operand(self, *_):
        pass

    note_product = note_operand

    def gradient_note(self, layer, operation, valid_mask, *_):
        def note(before, after):
            self._keep((layer, operation, GRADIENT), before, valid_mask)

        return note


def caught(model, batches, loss):
    catcher = Catcher()
    model.dynaprop.recorder = catcher
    for inputs in batches:
        loss(inputs).backward()
    model.dynaprop.recorder = None
    model.zero_grad()
    return {key: np.abs(np.concatenate(parts)) for key, parts in catcher.values.items()}


def test_rows_are_quantiles_of_all_real_entries(monkeypatch):
    """Two batches of different sizes; every entry of every place counts once."""
    monkeypatch.setattr(threshold_profiling, "SAMPLE", 1 << 30)
    model = make_model(0.2, gradient_threshold=1e-4)
    batches = [labelled(0, 8), labelled(1, 8)]
    table = profile(model, batches, loss_of(model))
    found = caught(model, batches, loss_of(model))
    assert {(row.layer, row.operation, row.role) for row in table.rows} == {
        key for key in found if key[1:] != ("classifier", OUTPUT)
    }
    for row in table.rows:
        values = np.sort(found[row.layer, row.operation, row.role])
        assert row.zeros == pytest.approx(np.mean(values == 0))
        for level, threshold in zip(LEVELS[1:-1], row.thresholds[1:-1], strict=True):
            assert threshold == values[int(level * len(values))], (row.operation, level)
        assert row.thresholds[0] == 0 and row.thresholds[-1] == values[-1]
    assert table.batch_size == 8 and table.step is None
    assert table.design_hash == DESIGN.design_hash


def densities(model, batches):
    recorder = DensityRecorder(model.design)
    model.dynaprop.recorder = recorder
    for inputs in batches:
        model(**inputs).loss.backward()
    model.dynaprop.recorder = None
    return {
        key: [int(n) / int(counts[2]) for n in counts[:2]]
        for key, counts in recorder.counts().items()
        if key[2] is not GemmRole.INPUT
    }


def test_a_target_is_met_over_all_entries_zeros_included():
    """On the batches that were profiled, so what is left is sampling and interpolation."""
    off = ["classifier", "pooler"]  # where a pruned entry takes a sequence out of all layers below
    model = make_model(0.0, activation_density=0.6, gradient_density=0.1, gradients_off=off)
    batches = [labelled(seed) for seed in range(4)]
    model.dynaprop.table = profile(model, batches, loss_of(model))
    already = 0
    for (_, operation, role), (density, zeros) in densities(model, batches).items():
        target = 0.6 if role is OUTPUT else 0.1
        if (operation in ("score", "classifier")) if role is OUTPUT else (operation in off):
            continue
        if 1 - zeros <= target:  # the last layer's gradients: nothing is left to prune
            already += 1
            assert density == pytest.approx(1 - zeros, abs=1e-3), operation
        else:
            assert density == pytest.approx(target, abs=0.02), operation
    assert already > 5


def test_what_is_zero_by_itself_counts_towards_the_target():
    model = make_model(0.0)
    table = profile(model, [labelled(0)], loss_of(model))
    row = table.row(1, "feed_forward_0", GRADIENT)  # only the first position has a gradient
    assert 0.8 < row.zeros < 0.99
    assert table.threshold(1, "feed_forward_0", GRADIENT, 1 - row.zeros) == 0
    assert table.threshold(1, "feed_forward_0", GRADIENT, 0.5) == 0
    half = table.threshold(1, "feed_forward_0", GRADIENT, (1 - row.zeros) / 2)
    assert half > 0
    assert table.density(1, "feed_forward_0", GRADIENT, half) == pytest.approx((1 - row.zeros) / 2)
    assert table.density(1, "feed_forward_0", GRADIENT, 0.0) == 1 - row.zeros


def row(values, zeros=0.0):
    found = np.quantile(values, LEVELS, method="higher")
    return {
        "layer": 0, "operation": "query", "role": "OUTPUT", "zeros": zeros,
        "thresholds": (0.0, *found[1:].tolist()),
    }  # fmt: skip


def test_thresholds_are_interpolated_and_their_inverse_is():
    table = ThresholdTable(
        design_hash="0", batch_size=1, rows=(row(np.linspace(0.001, 1, 100_000)),)
    )
    for density in (1.0, 0.99, 0.5, 0.213, 0.1, 0.011, 0.0005):
        threshold = table.threshold(0, "query", OUTPUT, density)
        assert threshold == pytest.approx(0 if density == 1 else 1 - density, abs=2e-3)
        assert table.density(0, "query", OUTPUT, threshold) == pytest.approx(density)
    assert table.density(0, "query", OUTPUT, 2.0) == 0


def test_gradients_are_of_the_mean_loss_over_the_global_batch(monkeypatch):
    """Profiled in batches of 8 or of 32, with a loss scale or without: the same table."""
    monkeypatch.setattr(threshold_profiling, "SAMPLE", 1 << 30)
    model = make_model(0.1, gradient_threshold=1e-3).double()
    whole = labelled(3, 32)
    parts = [{k: v[i : i + 8] for k, v in whole.items()} for i in range(0, 32, 8)]
    one = profile(model, [whole], loss_of(model), batch_size=32)
    for scale in (1.0, 256.0):
        model.dynaprop.gradient_scale = scale
        four = profile(model, parts, loss_of(model), batch_size=32)
        for a, b in zip(one.rows, four.rows, strict=True):
            assert (a.operation, a.role) == (b.operation, b.role)
            assert b.thresholds == pytest.approx(a.thresholds, rel=1e-9)
            assert b.zeros == pytest.approx(a.zeros)
    model.dynaprop.gradient_scale = 1.0
    small = profile(model, parts, loss_of(model), batch_size=8)
    of_8, of_32 = (t.threshold(None, "classifier", GRADIENT, 0.5) for t in (small, one))
    assert of_8 == pytest.approx(4 * of_32)


def test_profiling_changes_nothing_else():
    model = make_model(0.0, activation_density=0.5).train()
    gradient = torch.ones_like(model.classifier.weight)
    model.classifier.weight.grad = gradient.clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(4)
    state = torch.get_rng_state()
    one = profile(model, [labelled(0)], loss_of(model), seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.classifier.weight.grad, gradient)
    assert model.encoder.pooler.weight.grad is None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.dynaprop.profiler is None and model.training
    assert profile(model, [labelled(0)], loss_of(model), seed=1) == one
    assert profile(model, [labelled(0)], loss_of(model), seed=2) != one  # dropout


def test_without_a_loss_activations_alone():
    model = make_model(0.0, activation_density=0.5)
    table = profile(model, [batch(0)])
    assert {row.role for row in table.rows} == {OUTPUT}
    model.dynaprop.table = table
    model(**batch(0))
    with pytest.raises(ValueError, match="no thresholds of classifier in the role GRAD_OUTPUT"):
        table.threshold(None, "classifier", GRADIENT, 0.5)
    with pytest.raises(ValueError, match="nothing to profile"):
        profile(model, [])


def test_a_model_is_saved_with_its_table(tmp_path):
    model = make_model(0.0, activation_density=0.4, gradient_density=0.2)
    with pytest.raises(ValueError, match=r"density of 0\.4 of embedding .*profile the model"):
        model(**batch(0))
    model.dynaprop.table = profile(model, [labelled(0)], loss_of(model))
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert loaded.dynaprop.table == model.dynaprop.table
    assert torch.equal(loaded(**batch(5)).logits, model(**batch(5)).logits)
    table = ThresholdTable.load(tmp_path / "thresholds.json")
    assert table == model.dynaprop.table
    with pytest.raises(ValueError, match="thresholds are of design"):
        table.check(DESIGN.model_copy(update={"vocabulary": 7}))
    (tmp_path / "thresholds.json").unlink()
    with pytest.raises(ValueError, match="profile the model"):
        type(model).from_pretrained(tmp_path)(**batch(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"rows": [{**row([1.0]), "thresholds": [0.0]}]}, f"must have {len(LEVELS)} entries"),
        ({"rows": [{**row([1.0]), "thresholds": [1.0] * len(LEVELS)}]}, "must rise from 0"),
        ({"batch": 3}, "did you mean batch_size"),
    ],
)
def test_a_damaged_table_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ThresholdTable.load({"design_hash": "0", "batch_size": 1, "rows": [], **change})


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "t.json").write_text("{")
    with pytest.raises(ValueError, match="not a table of thresholds"):
        ThresholdTable.load(tmp_path / "t.json")
    table = ThresholdTable(design_hash="0", batch_size=1, rows=(row([1.0]),))
    for density in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            table.threshold(0, "query", OUTPUT, density)


def test_the_ramp_rises_to_the_target_and_the_table_is_refreshed():
    policy = {
        "activation_density": 0.5, "gradient_threshold": 1e-3, "refresh_steps": 4,
        "ramp": {"start": 2, "steps": 8},
    }  # fmt: skip
    model = make_model(0.0, **policy)
    refresh = ThresholdRefresh(model, [labelled(0)], loss_of(model), 32)
    made, fractions = [], []
    for step in range(13):
        if refresh.before_step(step):
            made.append(step)
        fraction = min(1.0, max(0.0, (step - 2) / 8))
        fractions.append(fraction)
        table = model.dynaprop.table
        assert model.dynaprop.threshold(0, "query", GRADIENT) == 1e-3 * fraction
        assert model.dynaprop.threshold(0, "query", OUTPUT) == table.threshold(
            0, "query", OUTPUT, 1 - fraction * 0.5
        )
        assert table.step == made[-1]
    assert made == [0, 4, 8, 12] and fractions[2] == 0 and fractions[-1] == 1
    model.train()
    refresh.after_training(13)
    assert model.dynaprop.step is None and model.dynaprop.table.step is None and model.training
    assert model.dynaprop.threshold(0, "query", GRADIENT) == 1e-3


def test_hardware_arithmetic_has_the_tables_thresholds():
    model = make_model(0.0, activation_density=0.5)
    model.dynaprop.table = profile(model, [batch(0)])
    calibration = calibrate(model, [batch(0)])
    quantized = QuantizedModel(model, calibration, EDGE)
    name = "0.feed_forward_0"
    found = quantized.thresholds[name] * 2.0 ** calibration.exponents[name]
    wanted = model.dynaprop.table.threshold(0, "feed_forward_0", OUTPUT, 0.5)
    assert found == pytest.approx(wanted, rel=1e-3)
    model.set_policy({"selection": "top_k_row", "activation_density": 0.5})
    with pytest.raises(ValueError, match="pruned by top-k of each row, which has no threshold"):
        QuantizedModel(model, calibration, EDGE)


def test_policies_say_one_thing_a_tensor():
    policy = PruningPolicy.load(
        {
            "activation_density": 0.5,
            "gradient_threshold": 0.1,
            "overrides": [
                {"density": 0.25, "layer": 1},
                {"threshold": 0.3, "operation": "key"},
                {"density": 0.05, "role": "GRAD_OUTPUT", "operation": "key"},
            ],
        }
    )
    assert policy.target(0, "query", OUTPUT).density == 0.5
    assert policy.target(1, "query", OUTPUT).density == 0.25
    assert policy.target(1, "key", OUTPUT) == (0.3, None)
    assert policy.target(1, "key", GRADIENT).density == 0.05
    assert policy.target(1, "score", OUTPUT) == (0.0, None)
    assert policy.gradient(0, "query") == 0.1 and policy.needs_table
    with pytest.raises(ValueError, match=r"density 0\.5; ask the model"):
        policy.activation(0, "query")
    assert PruningPolicy.load(policy.model_dump(mode="json")) == policy


def test_what_was_saved_before_targets_came_is_still_the_same():
    old = {
        "activation_threshold": 0.1, "gradient_threshold": 0.01, "activations_off": ["score"],
        "gradients_off": [], "prune_residual": True,
        "overrides": [{"threshold": 0.2, "layer": 1, "operation": None, "role": "OUTPUT"}],
    }  # fmt: skip
    assert PruningPolicy.load(old).model_dump(mode="json") == old


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"activation_threshold": 0.1, "activation_density": 0.5}, "give either activation_thr"),
        ({"gradient_threshold": 0.1, "gradient_density": 0.5}, "give either gradient_threshold"),
        ({"gradient_density": 0.0}, "gradient_density.*greater than 0, not 0.0"),
        ({"activation_density": 1.5}, "activation_density.*less than or equal to 1, not 1.5"),
        ({"overrides": [{"layer": 1}]}, "either a threshold or a density, not None and None"),
        ({"overrides": [{"threshold": 0.1, "density": 0.5}]}, "not 0.1 and 0.5"),
        ({"selection": "top_k_row", "gradient_threshold": 0.1}, "knows no threshold, not 0.1"),
        ({"selection": "top_k"}, "selection.*top_k_row"),
        ({"ramp": {"steps": 0}}, "ramp.steps.*greater than or equal to 1, not 0"),
        ({"refresh_steps": 0}, "refresh_steps.*not 0"),
        ({"movement": {"density": 0.0, "steps": 5}}, "movement.density.*not 0.0"),
    ],
)
def test_policies_that_contradict_themselves_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PruningPolicy.load(fields)
