"""A split in both arithmetics, and what rounding did to each tensor."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small import DESIGN, EDGE, batch, make_model

import model.evaluation
from model.calibration import calibrate
from model.data import Split
from model.evaluation import evaluate
from model.quantized import QuantizedModel
from model.tokens import Tokens

COUNT = 150


@pytest.fixture
def split(monkeypatch):
    """Sentences of numbers for the small model's vocabulary, in three batches."""
    data = batch(11, COUNT)
    lengths = data["attention_mask"].sum(1).numpy()
    tokens = Tokens((data["input_ids"] * data["attention_mask"]).numpy(), lengths)
    monkeypatch.setattr(model.evaluation, "tokenize", lambda texts, length: tokens)
    labels = np.random.default_rng(0).integers(2, size=COUNT)
    return Split("validation", ("",) * COUNT, labels), data


def with_bits(bits):
    return EDGE.model_copy(update={"integer_bits": 4, "fraction_bits": bits - 4})


def quantized_at(bits, model, **options):
    calibration = calibrate(model, [batch(0)], bits=bits, **options)
    return QuantizedModel(model, calibration, with_bits(bits))


def test_accuracies_are_those_of_both_models_on_the_same_examples(split):
    examples, data = split
    float_model = make_model(0.05)
    quantized = quantized_at(5, float_model)
    shares = []
    made = evaluate(float_model, quantized, examples, 24, shares.append)
    with torch.no_grad():
        plain = float_model(**data).logits.argmax(-1).numpy()
    mine = quantized.logits(**data).argmax(-1).numpy()
    assert (made.split, made.n, made.bits, made.method) == ("validation", COUNT, 5, "max")
    assert made.float_accuracy == (plain == examples.labels).mean()
    assert made.accuracy == (mine == examples.labels).mean()
    assert made.agreement == (plain == mine).mean() < 1
    assert made.lost == ((plain == examples.labels) & (mine != examples.labels)).sum() > 0
    assert made.gained - made.lost == round((made.accuracy - made.float_accuracy) * COUNT)
    assert shares[-1] == 1 and shares == sorted(shares) and len(shares) == 2
    assert made.runs_in_rtl and "why_not_in_rtl" not in made.to_dict()


def test_underflow_is_zero_in_integers_and_not_in_float(split):
    """Counted again from recorded tensors; thresholds of 0 leave what was computed."""
    examples, data = split
    float_model = make_model(0.0)
    quantized = quantized_at(5, float_model)
    made = {item.tensor: item for item in evaluate(float_model, quantized, examples, 24).tensors}
    recording = quantized.record(**data)
    valid = data["attention_mask"].bool().numpy()
    for name, values in recording.tensors.items():
        if values.ndim == 3 and values.shape[:2] == valid.shape:
            zeros = int((values[valid] == 0).sum())
            # In float nothing is 0 but GELU far below 0.
            close = 0.999 * zeros if name.endswith(("forward_0", "1.feed_forward_1")) else zeros
            assert close <= made[name].underflowed <= zeros, name
            assert made[name].values == values[valid].size
            ends = (values[valid] == 15) | (values[valid] == -16)
            assert made[name].saturated == int(ends.sum())
    pairs = valid[:, :, None] & valid[:, None]
    probabilities = recording.tensors["1.attention_softmax"].reshape(2, COUNT, 20, 20)
    found = made["1.attention_softmax"]
    assert (found.values, found.saturated) == (2 * pairs.sum(), 0)
    # exp(−distance) of far scores is 0 in float32, too, never here.
    assert found.underflowed == (probabilities[:, pairs] == 0).sum() > 0
    weight = quantized.integers["0.query.weight"]
    assert made["0.query.weight"].underflowed == int((weight == 0).sum()) > 0
    assert made["0.query.weight"].exponent == quantized.exponents["0.query.weight"]


def test_saturation_counts_what_is_beyond_the_range(split):
    examples, data = split
    float_model = make_model(0.0)
    widest = quantized_at(20, float_model)
    exponents = dict(widest.exponents)
    for name in ("0.value", "0.feed_forward_0.rounded", "1.attention_norm.sum"):
        exponents[name] -= 3
    coarse = widest.calibration.model_copy(update={"exponents": exponents})
    quantized = QuantizedModel(float_model, coarse, EDGE)
    made = {item.tensor: item for item in evaluate(float_model, quantized, examples, 24).tensors}
    kept = data["attention_mask"].bool()
    with torch.no_grad():
        stored = float_model.encoder.embeddings(data["input_ids"], None, kept)[0]
        value = float_model.encoder.layers[0].value(stored)[kept]
    beyond = (value.abs() > 2.0 ** (19 + exponents["0.value"])).double().mean().item()
    found = made["0.value"].saturated / made["0.value"].values
    assert 0.001 < beyond == pytest.approx(found, rel=0.02)
    for name in ("0.feed_forward_0.rounded", "1.attention_norm.sum"):
        assert made[name].saturated > 0
    assert made["0.key"].saturated == 0


def test_layers_sum_up_their_tensors(split):
    examples, _ = split
    float_model = make_model(0.05)
    made = evaluate(float_model, quantized_at(6, float_model), examples, 24)
    assert [layer.layer for layer in made.layers] == ["embedding", "0", "1", "classifier"]
    layer = made.layers[1]
    items = [item for item in made.tensors if item.tensor.startswith("0.")]
    assert layer.values == sum(item.values for item in items)
    assert layer.underflowed == sum(item.underflowed for item in items) / layer.values
    assert layer.saturated == sum(item.saturated for item in items) / layer.values
    assert layer.most_underflowed == max(items, key=lambda i: i.underflowed / i.values).tensor
    assert {item.tensor for item in items} == {
        name for name in calibrate(float_model, [batch(0)]).exponents if name.startswith("0.")
    }
    plain = made.to_dict()
    assert len(plain["tensors"]) == len(made.tensors) and plain["layers"][1]["layer"] == "0"


def test_exponents_by_channel_are_reported_as_no_rtl(split):
    examples, _ = split
    float_model = make_model(0.05)
    made = evaluate(float_model, quantized_at(6, float_model, channels=True), examples, 24)
    assert made.channels and not made.runs_in_rtl
    assert "one shift for a whole product" in made.to_dict()["why_not_in_rtl"]


def test_an_empty_split_is_refused(split):
    float_model = make_model(0.0)
    empty = replace(split[0], texts=(), labels=np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="validation split is empty"):
        evaluate(float_model, quantized_at(8, float_model), empty, 24)
    assert DESIGN.labels == 2
