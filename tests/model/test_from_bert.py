"""A Hugging Face BERT taken over: exactly at its own shape, and by projection at others."""

import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
)

from model.from_bert import _of_rank, from_bert
from model.space import TransformerDesign

torch.set_num_threads(1)

SHAPE = {
    "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3,
    "intermediate_size": 40, "max_position_embeddings": 16, "initializer_range": 0.3,
}  # fmt: skip
LAYER = {"hidden": 24, "heads": ["sa_sdp"] * 3, "feed_forward": [40]}
REST = {"vocabulary": 60, "max_positions": 16}


def bert(kind=BertForSequenceClassification, **fields):
    torch.manual_seed(4)
    config = BertConfig(**{**SHAPE, **fields}, attn_implementation="eager")
    model = kind(config).eval()
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name or name.endswith("bias"):
            torch.nn.init.normal_(parameter, mean=float("weight" in name), std=0.2)
    return model


def inputs():
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(9)[None] < torch.tensor([9, 5, 2])[:, None]).long()
    ids = torch.randint(1, 60, (3, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
def differ(donor, model):
    """Largest difference of two classifiers' logits in float64, over the donor's deviation."""
    theirs = deepcopy(donor).double()(**inputs()).logits
    ours = deepcopy(model).eval().double()(**inputs()).logits
    return float((theirs - ours).abs().max() / theirs.std())


def test_at_its_own_shape_every_weight_is_copied(tmp_path):
    donor = bert(num_labels=3, hidden_act="relu")
    before = torch.get_rng_state()
    model = from_bert(donor)
    assert torch.equal(before, torch.get_rng_state())
    assert model.config.num_labels == 3 and model.design.activation == "relu"
    total = sum(p.sum().item() for p in donor.parameters())
    assert sum(p.numel() for p in donor.parameters()) == model.num_parameters()
    assert sum(p.sum().item() for p in model.parameters()) == pytest.approx(total, rel=1e-5)
    query = donor.bert.encoder.layer[1].attention.self.query
    assert torch.equal(model.encoder.layers[1].query.weight, query.weight)
    assert torch.equal(model.encoder.layers[1].query.bias, query.bias)
    donor.save_pretrained(tmp_path)
    loaded = from_bert(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True)
    )
    assert differ(donor, model) < 1e-12


def test_an_encoder_gets_a_new_classifier_from_the_seed():
    donor = bert(BertModel)
    one, same, other = (from_bert(donor, seed=seed).classifier.weight for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    ours = from_bert(donor).eval().encoder(**inputs())
    theirs = donor(**inputs())
    torch.testing.assert_close(ours.pooler_output, theirs.pooler_output, atol=1e-5, rtol=0)


def test_operations_that_begin_as_attention_change_nothing():
    donor = bert()
    design = {"layers": [{**LAYER, "heads": ["sa_wma", "sa_sdp", "sa_wma"]}, LAYER], **REST}
    assert differ(donor, from_bert(donor, design)) < 1e-12


def test_larger_widths_lose_nothing():
    """More neurons, wider heads: what is new is written or read with weight 0."""
    donor = bert()
    design = {"layers": [{**LAYER, "feed_forward": [56]}, LAYER], **REST}
    assert differ(donor, from_bert(donor, design)) < 1e-12
    assert differ(donor, from_bert(donor, {"layers": [LAYER] * 3, **REST})) > 0.01

    # A head size of 40 / 3 = 13 instead of 8, in layers of 40 whose new entries are all but zero.
    wide = {"layers": [{**LAYER, "hidden": 40}] * 2, **REST}
    model = from_bert(donor, wide)
    for module in [*model.products().values(), *model.norms().values()]:
        if module.weight.shape[0] == 40:
            module.weight.data[24:] = 0
    layer, source = model.encoder.layers[0], donor.bert.encoder.layer[0]
    hidden = torch.randn((2, 5, 24))
    padded = torch.nn.functional.pad(hidden, (0, 16))
    valid = torch.ones((2, 5), dtype=torch.bool)
    with torch.no_grad():
        theirs = source.attention.output.dense(source.attention.self(hidden)[0])
        ours = layer.attention_output(layer.attend(padded, valid))
    torch.testing.assert_close(ours[..., :24], theirs, atol=1e-5, rtol=1e-5)
    assert not layer.projection and theirs.std() > 0.5


def test_more_heads_share_the_donors():
    """Twice the heads, each of half the width: the first two share the first of the donor."""
    donor = bert(num_attention_heads=2)
    design = {"layers": [{**LAYER, "heads": ["sa_sdp"] * 2}, LAYER], **REST}
    assert differ(donor, from_bert(donor, design)) > 1e-3  # heads of 8 instead of 12 in layer 1
    four = from_bert(donor, {"layers": [{**LAYER, "heads": ["sa_sdp"] * 4}] * 2, **REST})
    layer = four.encoder.layers[0]
    output = layer.attention_output.weight
    torch.testing.assert_close(output[:, :6], output[:, 6:12])
    # One head of 6 that writes all and one that is cut from the donor's 12 by SVD: half each.
    value = layer.value.weight
    source = donor.bert.encoder.layer[0].attention
    theirs = source.output.dense.weight[:, :12].double() @ source.self.value.weight[:12].double()
    u, s, v = torch.linalg.svd(theirs)
    joined = (output[:, :6] @ value[:6]).double()
    near = u[:, :6] @ torch.diag(s[:6]) @ v[:6]
    # biases take part in the approximation, so that it is not exactly the weights' own
    assert (2 * joined - near).norm() < 0.5 * (theirs - near).norm()


def test_truncation_is_the_nearest_of_its_rank():
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 6, 9, dtype=torch.float64, generator=generator)
    whole = left.T @ right
    one, other = _of_rank(left, right, 4)
    assert one.shape == other.shape == (4, 9)
    values = torch.linalg.svdvals(whole)
    error = torch.linalg.matrix_norm(whole - one.T @ other)
    torch.testing.assert_close(error, values[4:].norm())
    assert _of_rank(left, right, 6)[0] is left


def test_scores_of_narrower_heads_keep_their_scale():
    """Q·Kᵀ / √d of a head is the donor's best approximation of rank d, biases included."""
    donor = bert(BertModel)
    design = {"layers": [{**LAYER, "heads": ["sa_sdp"] * 6}] * 2, **REST}  # heads of 4, not 8
    layer = from_bert(donor, design).encoder.layers[1]
    source = donor.encoder.layer[1].attention.self
    hidden = torch.randn((50, 24))
    with torch.no_grad():
        ours = layer.query(hidden)[:, :4] @ layer.key(hidden)[:, :4].T / 2
        theirs = source.query(hidden)[:, :8] @ source.key(hidden)[:, :8].T / 8**0.5
    correlation = torch.corrcoef(torch.stack((ours.flatten(), theirs.flatten())))[0, 1]
    slope = (ours * theirs).sum() / theirs.square().sum()
    assert correlation > 0.8 and 0.6 < slope < 1.1


def test_projection_keeps_what_lies_in_the_axes():
    """A donor whose words fill 8 dimensions loses none of them in layers of 12."""
    donor = bert(BertModel)
    with torch.no_grad():
        embeddings = donor.embeddings
        embeddings.LayerNorm.weight.fill_(1)
        embeddings.LayerNorm.bias.zero_()
        embeddings.position_embeddings.weight.zero_()
        embeddings.token_type_embeddings.weight.zero_()
        basis = torch.linalg.qr(torch.randn(24, 8)).Q
        basis = basis - basis.mean(0)  # so that the layer norm finds no mean
        embeddings.word_embeddings.weight.copy_(torch.randn(60, 8) @ basis.T)
    design = {"layers": [{**LAYER, "hidden": 12}, {**LAYER, "hidden": 24}], **REST}
    model = from_bert(donor, design)
    words, theirs = model.encoder.embeddings.word.weight, embeddings.word_embeddings.weight
    torch.testing.assert_close(words @ words.T, theirs @ theirs.T, atol=1e-4, rtol=1e-4)
    back = torch.nn.functional.linear(words, model.encoder.layers[0].projection.weight)
    torch.testing.assert_close(back, theirs, atol=1e-4, rtol=1e-4)


def test_layers_come_from_the_nearest_depth_and_neurons_by_strength():
    donor = bert(BertModel, num_hidden_layers=6)
    design = {"layers": [{**LAYER, "feed_forward": [10, 30]}] * 2, **REST}
    model = from_bert(donor, design)
    for ours, index in zip(model.encoder.layers, (1, 4), strict=True):
        theirs = donor.encoder.layer[index]
        assert torch.equal(ours.value.weight, theirs.attention.self.value.weight)
        reading, writing = theirs.intermediate.dense.weight, theirs.output.dense.weight
        strength = reading.norm(dim=1) * writing.norm(dim=0)
        kept = strength.topk(10).indices.sort().values
        assert torch.equal(ours.feed_forward[0].weight, reading[kept])
        assert torch.equal(ours.feed_forward[1].weight[:10], torch.eye(10))
        assert torch.equal(ours.feed_forward[2].weight[:, :10], writing[:, kept])
        assert not ours.feed_forward[2].weight[:, 10:].any()
        assert ours.feed_forward[1].weight[10:].any()


def test_every_operation_and_width_is_taken_over_and_runs():
    donor = bert()
    heads = ["c_5", "sa_wma", "l_dft", "sa_sdp", "l_dct", "c_13"]
    design = {
        "layers": [
            {"hidden": 16, "heads": heads, "feed_forward": [48]},
            {"hidden": 32, "heads": ["l_dct"], "feed_forward": [8, 8, 8]},
            {"hidden": 24, "heads": ["c_9"] * 3, "feed_forward": [40]},
        ],
        **REST,
        "max_positions": 12,
    }  # fmt: skip
    model = from_bert(donor, design, {"activation_threshold": 0.01})
    made = model(**inputs(), labels=torch.tensor([0, 1, 0]))
    made.loss.backward()
    assert torch.isfinite(made.logits).all() and model.design == TransformerDesign.load(design)
    assert model.dynaprop.policy.activation_threshold == 0.01
    value = donor.bert.encoder.layer[1].attention.self.value
    assert torch.equal(model.encoder.layers[2].value.weight, value.weight)
    assert torch.equal(model.classifier.weight, donor.classifier.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocabulary": 61}, "vocabulary must be the BERT's, 60, not 61"),
        ({"activation": "relu"}, "activation must be the BERT's, 'gelu', not 'relu'"),
        ({"max_positions": 17}, "max_positions must be at most the BERT's, 16, not 17"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        from_bert(bert(), {"layers": [LAYER], **REST, **change})


def test_refuses_what_has_no_place_in_the_space():
    with pytest.raises(ValueError, match="layer_norm_eps must be 1e-12"):
        from_bert(bert(layer_norm_eps=1e-5))


def test_the_documentations_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "heads.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "docs/heads.md", "exec"), {})
    loaded = AutoModelForSequenceClassification.from_pretrained("started")
    assert loaded.design.layers[1].heads == ("c_9", "l_dft")
    assert (tmp_path / "started" / "README.md").is_file()
