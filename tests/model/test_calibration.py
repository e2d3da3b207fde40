"""Exponents of every stored tensor, from calibration batches."""

import json

import pytest
import torch
from small import DESIGN, EDGE, batch, make_model

from model.calibration import Calibration, calibrate
from model.exponents import Distribution, exponent_of
from model.flexibert import FlexiBertForSequenceClassification
from model.quantized import QuantizedModel
from model.space import operations


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


@pytest.mark.parametrize("method", ["mse", 99.0])
def test_every_tensor_gets_the_exponent_of_its_method(method):
    """Of weights, which are at hand, and of the embedding's result, which is computed again."""
    model = make_model(0.1)
    data = batch(7)
    calibration = calibrate(model, [data], bits=6, method=method)
    widest = calibrate(model, [data], bits=6)
    assert calibration.method == str(method) and widest.method == "max"
    weight = model.encoder.layers[0].query.weight.detach().double()
    kept = data["attention_mask"].bool()
    with torch.no_grad():
        rows = model.encoder.embeddings
        hidden = rows.norm(rows.word(data["input_ids"]) + rows.position.weight[:20]
                           + rows.token_type.weight[0])[kept]  # fmt: skip
    for name, values in (
        ("0.query.weight", weight / DESIGN.layers[0].head_size ** 0.5),
        ("embedding", hidden.double()),
    ):
        seen = Distribution(6)
        seen.add(values)
        assert calibration.exponents[name] == seen.exponent(method)
    lower = [n for n, e in calibration.exponents.items() if e < widest.exponents[n]]
    assert len(lower) > 3 and "0.attention_softmax" not in lower
    for item in operations(DESIGN):
        if item.kind == "product":
            rounded = f"{item.writes}.rounded" if item.activation else item.writes
            operands = (calibration.exponents[name] for name in item.roles.values())
            assert calibration.exponents[rounded] >= sum(operands)


def test_channels_have_the_exponents_of_their_own_weights():
    model = make_model(0.0)
    module = model.encoder.layers[0].feed_forward[0]
    with torch.no_grad():
        module.weight *= 2.0 ** -torch.arange(48.0)[:, None].clamp(max=12)
        module.weight[1], module.bias[1] = 0.0, 0.0
        module.bias[2] = 1000.0  # what an accumulator holds sets the exponent
    calibration = calibrate(model, [batch(0)], bits=8, channels=True)
    name = "0.feed_forward_0.weight"
    exponents, tensor = calibration.channel_exponents[name], calibration.exponents[name]
    assert set(calibration.channel_exponents) == {
        f"{item.writes}.weight" for item in operations(DESIGN) if item.has_weight
    }
    assert exponents[0] == exponents[2] == tensor and min(exponents) < tensor - 3
    left = calibration.exponents["0.attention_norm"]
    shift = calibration.exponents["0.feed_forward_0.rounded"] - left - tensor
    width = 16 + 5  # of an accumulator for sums of 32 products

    def fits(channel, exponent):
        bias = module.bias[channel].abs().item() * 2.0 ** -(left + exponent)
        return shift + tensor - exponent < width and round(bias) < 2 ** (width - 2)

    for channel, exponent in enumerate(exponents):
        largest = module.weight[channel].abs().max().item()
        own = exponent_of(-largest, largest, 8)
        assert exponent <= tensor and (exponent == tensor or fits(channel, exponent))
        assert exponent == min(own, tensor) or not fits(channel, exponent - 1)


def test_channel_exponents_are_saved(tmp_path):
    model = make_model(0.0)
    made = calibrate(model, [batch(0)], bits=8, channels=True, method=99.9)
    made.save(tmp_path / "channels.json")
    assert Calibration.load(tmp_path / "channels.json") == made
    assert made.method == "99.9"
