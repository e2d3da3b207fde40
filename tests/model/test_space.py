"""Designs, the forms they come in, their operations, and spaces."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.operations import unmodelled_heads
from model.policy import ACTIVATION_PLACES, GRADIENT_PLACES
from model.space import (
    HEAD_OPERATIONS,
    LayerDesign,
    TransformerDesign,
    TransformerSpace,
    encoder_operations,
    operations,
    parameters,
)


@pytest.mark.golden
def test_named_designs():
    # Parameters of Google's published BERT miniatures with a classifier of two labels.
    published = {
        "bert-tiny": 4386178,
        "bert-mini": 11171074,
        "bert-small": 28764674,
        "bert-medium": 41374210,
        "bert-base": 109483778,
    }
    for name, count in published.items():
        assert parameters(TransformerDesign.load(name)) == count


def test_parameters_are_those_of_the_module():
    from model.configuration import FlexiBertConfig
    from model.flexibert import FlexiBertForSequenceClassification

    heads = ["c_5", "sa_sdp", "l_dft", "sa_wma", "c_13", "sa_wma", "l_dct", "c_9"]
    design = TransformerDesign.load(
        {
            "layers": [
                {"hidden": 10, "heads": ["sa_sdp"] * 3, "feed_forward": [7, 9]},
                {"hidden": 8, "heads": ["sa_sdp"], "feed_forward": [5]},
                {"hidden": 26, "heads": heads, "feed_forward": [5, 6, 7]},
                {"hidden": 8, "heads": ["l_dct"] * 2, "feed_forward": [5]},
            ],
            "vocabulary": 20,
            "max_positions": 6,
            "labels": 3,
        }
    )
    model = FlexiBertForSequenceClassification(FlexiBertConfig.of(design))
    assert parameters(design) == sum(p.numel() for p in model.parameters())
    products = model.products()
    for item in encoder_operations(design):
        if item.kind == "convolution" and item.has_weight:
            assert products[item.writes].weight.shape == (item.heads, item.outer, item.inner)
        elif item.has_weight:
            shape = products[item.writes].weight.shape
            assert shape[-2:] == (item.outer, item.inner)
            assert shape[:-2] in ((), (item.heads,))


def test_published_form_loads_and_saves(tmp_path):
    text = {
        "l": 2,
        "o": [["sa_sdp_64", "sa_sdp_64"], ["c_9_64", "l_dft_64"]],
        "h": [128, 128],
        "f": [[512], [512]],
    }
    design = TransformerDesign.load(text)
    assert design.layers[1].heads == ("c_9", "l_dft")
    assert design.to_published() == text
    design.save(tmp_path / "model.json")
    assert TransformerDesign.load(tmp_path / "model.json") == design
    (tmp_path / "published.json").write_text(json.dumps(text))
    assert TransformerDesign.load(tmp_path / "published.json") == design
    assert TransformerDesign.load(design) is design


def test_bert_config_maps_into_the_space():
    from transformers import BertConfig

    config = BertConfig(
        num_hidden_layers=2,
        hidden_size=128,
        num_attention_heads=2,
        intermediate_size=512,
        num_labels=2,
    )
    assert TransformerDesign.load(config) == TransformerDesign.load("bert-tiny")
    assert TransformerDesign.load(config.to_dict()) == TransformerDesign.load("bert-tiny")
    three = BertConfig(
        num_hidden_layers=1,
        hidden_size=8,
        num_attention_heads=2,
        intermediate_size=4,
        num_labels=3,
        vocab_size=9,
        hidden_act="relu",
    )
    made = TransformerDesign.load(three)
    assert (made.labels, made.vocabulary, made.activation) == (3, 9, "relu")


layers = st.builds(
    LayerDesign,
    hidden=st.integers(12, 64),
    heads=st.lists(
        st.sampled_from(["sa_sdp", "sa_wma", "l_dft", "c_13"]), min_size=1, max_size=12
    ).map(tuple),
    feed_forward=st.lists(st.integers(1, 99), min_size=1, max_size=3).map(tuple),
)
designs = st.builds(TransformerDesign, layers=st.lists(layers, min_size=1, max_size=4).map(tuple))


@given(designs)
def test_published_form_is_the_design(design):
    again = TransformerDesign.load(json.loads(json.dumps(design.to_published())))
    assert again == design and again.design_hash == design.design_hash


@given(designs, st.randoms())
def test_hash_ignores_the_order_of_heads_alone(design, random):
    data = design.model_dump(mode="json")
    for layer in data["layers"]:
        random.shuffle(layer["heads"])
    assert TransformerDesign.load(data).design_hash == design.design_hash
    data["layers"][0]["feed_forward"][0] += 1
    assert TransformerDesign.load(data).design_hash != design.design_hash


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bert-tinny", "unknown transformer 'bert-tinny'; did you mean bert-tiny"),
        ({"layer": []}, "unknown key 'layer' in TransformerDesign; did you mean layers"),
        ({"layers": []}, "at least one layer"),
        (
            {"layers": [{"hiden": 1}]},
            "layers.0: unknown key 'hiden' in LayerDesign; did you mean hidden",
        ),
        (
            {"layers": [{"hidden": 8, "heads": ["sa_sdb"], "feed_forward": [4]}]},
            "layers.0.heads: unknown operation 'sa_sdb'; did you mean sa_sdp",
        ),
        (
            {"layers": [{"hidden": 8, "heads": ["sa_sdp"], "feed_forward": [4] * 4}]},
            "1 to 3 widths, not 4",
        ),
        (
            {"layers": [{"hidden": 8, "heads": ["sa_sdp"], "feed_forward": [0]}]},
            "widths must be 1 to 65536, not 0",
        ),
        (
            {"layers": [{"hidden": 1, "heads": ["sa_sdp"] * 2, "feed_forward": [4]}]},
            "number of heads, 2, not 1",
        ),
        (
            {"layers": [{"hidden": "8", "heads": ["sa_sdp"], "feed_forward": [4]}]},
            "layers.0.hidden.*not '8'",
        ),
        (
            {"l": 1, "o": [["sa_sdp_32"] * 2], "h": [128], "f": [[512]]},
            r"o.0.0: the head size of 'sa_sdp_32' must be floor\(128 / 2\) = 64, not 32; write sa_",
        ),
        (
            {"l": 1, "o": [["sa_spd_64"] * 2], "h": [128], "f": [[512]]},
            "o.0.0: unknown operation 'sa_spd'",
        ),
        ({"l": 1, "o": [["c_9"]], "h": [128], "f": [[512]]}, "o.0.0 must end with the head size"),
        (
            {"l": 2, "o": [["sa_sdp_8"]], "h": [8], "f": [[8]]},
            "o must be a list with one entry .* l = 2",
        ),
        ({"l": 1, "o": [["sa_sdp_8"]], "h": [8]}, "key 'f' is missing"),
        ({"l": 1, "o": [["sa_sdp_8"]], "h": [8], "f": [[8]], "g": 1}, "unknown key 'g'"),
        ({"l": 1, "o": [["sa_sdp_8"]], "h": [8.0], "f": [[8]]}, "h.0 must be an integer, not 8.0"),
        (
            {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2},
            "intermediate_size must be",
        ),
        ({"model_type": "gpt2"}, "model_type must be 'bert'.*not 'gpt2'"),
        ({"model_type": "bert", "layer_norm_eps": 1e-5}, "layer_norm_eps must be 1e-12"),
        (3, "must be a mapping of keys, not int"),
    ],
)
def test_refuses(source, message):
    with pytest.raises(ValueError, match=message):
        TransformerDesign.load(source)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match="absent.json does not exist"):
        TransformerDesign.load("absent.json")


def test_operations_of_a_mixed_design():
    design = TransformerDesign.load(
        {
            "layers": [
                {"hidden": 10, "heads": ["sa_sdp"] * 3, "feed_forward": [7, 9]},
                {"hidden": 8, "heads": ["sa_sdp"], "feed_forward": [5]},
            ],
            "labels": 4,
        }
    )
    made = operations(design)
    attention = [
        "query",
        "key",
        "value",
        "score",
        "attention_softmax",
        "context",
        "attention_output",
        "attention_norm",
    ]
    assert [item.name for item in made] == [
        "embedding",
        *attention,
        "feed_forward_0",
        "feed_forward_1",
        "feed_forward_2",
        "feed_forward_norm",
        "projection",
        *attention,
        "feed_forward_0",
        "feed_forward_1",
        "feed_forward_norm",
        "pooler",
        "pooler_tanh",
        "classifier",
    ]
    extents = {item.writes: item.extents(4, 6) for item in made if item.kind == "product"}
    assert extents["0.query"] == (4, 6, 9, 10)
    assert extents["0.score"] == (12, 6, 6, 3)
    assert extents["0.context"] == (12, 6, 3, 6)
    assert extents["0.attention_output"] == (4, 6, 10, 9)
    assert extents["0.feed_forward_1"] == (4, 6, 9, 7)
    assert extents["0.projection"] == (4, 6, 8, 10)
    assert extents["pooler"] == (4, 1, 8, 8)
    assert extents["classifier"] == (4, 1, 4, 8)
    rows = {item.writes: item.row_shape(4, 6) for item in made if item.kind != "product"}
    assert rows["embedding"] == (24, 10)
    assert rows["0.attention_softmax"] == (72, 6)
    assert rows["1.attention_norm"] == (24, 8)
    assert rows["pooler_tanh"] == (32, 2)
    assert [item.writes for item in made if item.activation] == [
        "0.feed_forward_0",
        "0.feed_forward_1",
        "1.feed_forward_0",
    ]
    written = {"word_rows", "position_rows"}
    for item in made:
        assert set(item.reads) <= written
        written.add(item.writes)
    by_name = {item.writes: item for item in made}
    assert by_name["0.feed_forward_norm"].reads == ("0.feed_forward_2", "0.attention_norm")
    assert by_name["1.attention_norm"].reads == ("1.attention_output", "0.projection")
    assert by_name["0.score"].roles == {"LEFT": "0.query", "RIGHT": "0.key"}
    assert by_name["0.key"].roles == {"INPUT": "embedding", "WEIGHT": "0.key.weight"}
    assert by_name["0.score"].elements(4, 6) == 12 * 36
    with pytest.raises(ValueError, match="0.query is a product"):
        by_name["0.query"].row_shape(1, 1)
    with pytest.raises(ValueError, match="pooler_tanh is no product but tanh"):
        by_name["pooler_tanh"].extents(1, 1)


def test_other_operations_are_refused():
    design = TransformerDesign.load(
        {"l": 2, "o": [["sa_sdp_8"], ["c_5_8"]], "h": [8, 8], "f": [[8]] * 2}
    )
    with pytest.raises(ValueError, match="c_5 in layer 1 is not modelled yet; use sa_sdp.*train"):
        operations(design)
    assert unmodelled_heads(design) == ["c_5 in layer 1"]
    assert unmodelled_heads(TransformerDesign.load("bert-tiny")) == []


def test_what_a_model_of_every_operation_is_made_of():
    heads = ("sa_sdp", "c_5", "l_dft", "sa_wma", "sa_sdp")
    layer = LayerDesign(hidden=40, heads=heads, feed_forward=(8,))
    design = TransformerDesign(layers=(layer, layer.model_copy(update={"heads": ("l_dct",) * 2})))
    made = encoder_operations(design)
    written = {"word_rows", "position_rows"}
    for item in made:
        assert set(item.reads) <= written
        assert item.writes not in written
        written.add(item.writes)
    by_name = {item.writes: item for item in made}
    assert by_name["0.query"].members == by_name["0.key"].members == (0, 1, 3, 4)
    assert by_name["0.query"].outer == 32 and by_name["0.value"].outer == 40
    assert by_name["0.value"].members == by_name["1.value"].members == ()
    assert by_name["0.score"].members == (0, 4) and by_name["0.score"].heads == 2
    assert by_name["0.sa_wma.score"].roles == {"LEFT": "0.sa_wma.query_weighted", "RIGHT": "0.key"}
    assert by_name["0.l_dft.transform"].outer == 16 and by_name["0.l_dft.context"].sums == 2
    assert by_name["1.l_dct.transform"].outer == 20 and by_name["1.l_dct.context"].sums == 1
    assert by_name["0.c_5.context"].roles == {"LEFT": "0.c_5.kernel", "RIGHT": "0.value"}
    assert by_name["0.heads"].reads == (
        "0.context", "0.c_5.context", "0.l_dft.context", "0.sa_wma.context",
    )  # fmt: skip
    assert by_name["0.heads"].roles == {}
    assert by_name["0.attention_output"].reads == ("0.heads",)
    assert by_name["1.attention_output"].reads == ("1.l_dct.context",)
    assert "1.query" not in by_name and "1.heads" not in by_name


def test_documentation_names_what_each_head_stores():
    text = (Path(__file__).parents[2] / "docs" / "heads.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*) \| .* \|$", text, re.MULTILINE)
    stored = {name: re.sub(r" \(.*?\)", "", cell).split(", ") for name, cell in rows}
    for head in HEAD_OPERATIONS:
        layer = LayerDesign(hidden=8, heads=(head,), feed_forward=(8,))
        made = [item.name for item in encoder_operations(TransformerDesign(layers=(layer,)))]
        described = stored["c_k" if head.startswith("c_") else head]
        assert described == made[1 : made.index("attention_output")]
        kept = [name for name in described if name not in ACTIVATION_PLACES]
        assert kept == (["kernel_logits"] if head.startswith("c_") else [])
    assert len(stored) == 5


def test_places_are_what_operations_write():
    """Every product has a place for its gradient, every stored tensor one for its own pruning."""
    layer = LayerDesign(hidden=24, heads=HEAD_OPERATIONS, feed_forward=(8, 8, 8))
    other = LayerDesign(hidden=16, heads=("sa_sdp",), feed_forward=(8,))
    made = encoder_operations(TransformerDesign(layers=(layer, other)))
    products = {i.name for i in made if i.kind in ("product", "transform", "convolution")}
    assert set(GRADIENT_PLACES) == products
    stored = {item.name for item in made} - {"heads", "classifier", "kernel_logits"}
    assert set(ACTIVATION_PLACES) == stored


@pytest.mark.golden
def test_size_of_the_published_space():
    space = TransformerSpace.load("published")
    assert space.layer_choices == 22_502_760
    assert f"{space.size:.3e}" == "1.686e+88"


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_samples_lie_in_the_space(seed):
    for name in ("demo", "published"):
        space = TransformerSpace.load(name)
        design = space.sample(np.random.default_rng(seed), labels=3)
        space.check(design)
        assert design == space.sample(np.random.default_rng(seed), labels=3)
        assert design.labels == 3


def test_what_lies_outside_is_named():
    space = TransformerSpace.load("demo")
    with pytest.raises(ValueError, match=r"layers.0.hidden must be one of \[128, 256\].*not 512"):
        space.check(TransformerDesign.load("bert-small"))
    with pytest.raises(ValueError, match="operations.*at least 1|unknown operation 'sa'"):
        TransformerSpace.load({**space.model_dump(), "operations": ["sa"]})
    with pytest.raises(ValueError, match="unknown key 'depths'.*depth"):
        TransformerSpace.load({"depths": [2]})
    with pytest.raises(ValueError, match="depth must not repeat"):
        TransformerSpace.load({**space.model_dump(), "depth": [2, 2]})


def test_needs_no_torch():
    modules = "model.space, model.trace, model.recording, model.policy"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
