"""Exponents of every stored tensor, from calibration batches."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small import DESIGN, EDGE, batch, make_model

from hwgen.fixed_point import FixedPoint
from model.calibration import Calibration, calibrate, exponent_of
from model.flexibert import FlexiBertForSequenceClassification
from model.quantized import QuantizedModel
from model.space import operations


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.integers(4, 24))
def test_exponent_is_the_smallest_that_does_not_saturate(a, b, bits):
    low, high = min(a, b), max(a, b)
    exponent = exponent_of(low, high, bits)

    def saturates(exponent):
        wide = FixedPoint(62, exponent).quantize(np.array([low, high]))
        number = FixedPoint(bits, exponent)
        return wide[0] < number.minimum or wide[1] > number.maximum

    assert not saturates(exponent)
    if max(abs(low), abs(high)) > 1e-30:
        assert saturates(exponent - 1)


def test_exponents(pruned):
    model, calibration, _ = pruned
    exponents = calibration.exponents
    for item in operations(DESIGN):
        if item.kind == "product":
            names = list(item.roles.values())
            rounded = exponents[f"{item.writes}.rounded" if item.activation else item.writes]
            assert rounded >= exponents[names[0]] + exponents[names[1]]
            if item.activation:
                assert exponents[item.writes] >= rounded - 4
    assert exponents["0.attention_softmax"] == exponents["pooler_tanh"] == -19
    largest = max(
        model(**batch(seed), output_hidden_states=True)
        .hidden_states[0][batch(seed)["attention_mask"].bool()]
        .abs()
        .max()
        .item()
        for seed in range(4)
    )
    assert 2**17 < largest * 2.0 ** -exponents["embedding"] < 2**19
    weight = model.encoder.layers[0].query.weight / DESIGN.layers[0].head_size ** 0.5
    assert 2**18 <= weight.abs().max() * 2.0 ** -exponents["0.query.weight"] < 2**19


def test_zeros_have_an_exponent():
    assert exponent_of(0.0, 0.0, 20) == -19
    assert exponent_of(0.0, 5e-324, 20) == -128


def test_gelu_of_negative_sums_is_not_finer_than_the_unit_allows():
    model = make_model(0.0)
    layer = model.encoder.layers[0].feed_forward[0]
    torch.nn.init.constant_(layer.bias, -30.0)
    with torch.no_grad():
        layer.weight *= 0.1
    calibration = calibrate(model, [batch(0)])
    exponents = calibration.exponents
    assert exponents["0.feed_forward_0"] == exponents["0.feed_forward_0.rounded"] - 4
    assert torch.isfinite(QuantizedModel(model, calibration, EDGE).logits(**batch(1))).all()


def test_small_products_are_not_finer_than_their_accumulator():
    model = make_model(0.0)
    module = model.encoder.layers[0].feed_forward[1]
    torch.nn.init.zeros_(module.bias)
    with torch.no_grad():  # results far smaller than the operands
        module.weight[:, 1::2] = -module.weight[:, ::2]
        layer = model.encoder.layers[0].feed_forward[0]
        layer.weight[1::2], layer.bias[1::2] = layer.weight[::2], layer.bias[::2]
    calibration = calibrate(model, [batch(0)])
    exponents = calibration.exponents
    limit = exponents["0.feed_forward_0"] + exponents["0.feed_forward_1.weight"]
    assert exponents["0.feed_forward_1"] == limit
    assert torch.isfinite(QuantizedModel(model, calibration, EDGE).logits(**batch(1))).all()


def test_calibration_file(pruned, tmp_path):
    model, calibration, _ = pruned
    model.save_pretrained(tmp_path)
    calibration.save(tmp_path)
    assert Calibration.load(tmp_path) == calibration
    assert Calibration.load(tmp_path / "calibration.json") == calibration
    Calibration.load(tmp_path).check(FlexiBertForSequenceClassification.from_pretrained(tmp_path))
    text = (tmp_path / "calibration.json").read_text()
    (tmp_path / "short.json").write_text(text[:50])
    with pytest.raises(ValueError, match="short.json: not a calibration in JSON"):
        Calibration.load(tmp_path / "short.json")
    (tmp_path / "other.json").write_text(json.dumps({**json.loads(text), "bit": 3}))
    with pytest.raises(ValueError, match="unknown key 'bit' in Calibration; did you mean bits"):
        Calibration.load(tmp_path / "other.json")
