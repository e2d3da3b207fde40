"""How attention is computed: each choice like "eager", what is refused, and who looks on."""

import json
import os

import pytest
import torch
from small import batch
from transformers import AutoModelForSequenceClassification

from model.configuration import FlexiBertConfig
from model.density import DensityRecorder
from model.flexibert import FlexiBertForSequenceClassification
from model.observation import observed
from model.threshold_profiling import profile

torch.set_num_threads(1)

DESIGN = {
    "layers": [
        {"hidden": 24, "heads": ["sa_sdp"] * 2, "feed_forward": [16]},
        {"hidden": 18, "heads": ["sa_sdp"] * 3, "feed_forward": [20]},
    ],
    "vocabulary": 200,
    "max_positions": 24,
}
LINEAR = {
    "activation_threshold": 0.2,
    "gradient_threshold": 1e-3,
    "activations_off": ["score", "attention_softmax"],
    "gradients_off": ["score"],
}
"""Prunes what sdpa has: all but what lies between the two products."""


def make(policy=None, design=None, **options):
    options = {"hidden_dropout": 0.0, "attention_dropout": 0.0, **options}
    config = FlexiBertConfig.of(design or DESIGN, policy, initializer_range=0.3, **options)
    torch.manual_seed(0)
    return FlexiBertForSequenceClassification(config).double()


def step(model):
    """Logits and every gradient of a step with padding."""
    model.zero_grad()
    made = model(**batch(0, 8), labels=torch.arange(8) % 2)
    made.loss.backward()
    return [made.logits.detach(), *(p.grad.clone() for p in model.parameters())]


@pytest.mark.parametrize("policy", [{}, LINEAR])
def test_torch_like_eager(policy):
    eager, torchs = (make(policy, attn_implementation=name) for name in ("eager", "sdpa"))
    calls = []
    torchs.encoder.layers[0].heads.register_forward_hook(lambda *given: calls.append(given))
    for one, other in zip(step(eager), step(torchs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    assert not calls  # the heads by themselves took no part


def test_torch_compiles_without_a_graph_break():
    model = make(LINEAR, attn_implementation="sdpa")
    expected = step(model)
    model.encoder.compile(fullgraph=True, backend="aot_eager")
    for one, other in zip(expected, step(model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    torch.compiler.reset()


def test_torch_drops_what_the_configuration_says(monkeypatch):
    from model import attention

    given = []
    original = attention.functional.scaled_dot_product_attention

    def note(query, key, value, mask, dropout):
        given.append(dropout)
        return original(query, key, value, mask, dropout)

    monkeypatch.setattr(attention.functional, "scaled_dot_product_attention", note)
    model = make(attn_implementation="sdpa", attention_dropout=0.25)
    model(**batch(0, 4))
    model.train()(**batch(0, 4))
    model.eval()(**batch(0, 4))
    assert given == [0.25] * 4 + [0.0] * 2


def test_the_choice_is_made_when_a_model_is_made_loaded_or_later(tmp_path):
    model = make()
    assert model.config._attn_implementation == "eager"
    expected = step(model)
    model.save_pretrained(tmp_path / "m")
    model.set_attn_implementation("sdpa")
    assert model.encoder.layers[1].config._attn_implementation == "sdpa"
    got = step(model)
    assert any(not torch.equal(*pair) for pair in zip(expected, got, strict=True))
    model.save_pretrained(tmp_path / "sdpa")
    # It says how, not what: nothing of it is saved.
    saved = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("m", "sdpa")]
    assert saved[0] == saved[1] and "attn_implementation" not in str(saved[0])
    load = AutoModelForSequenceClassification.from_pretrained
    assert load(tmp_path / "sdpa").config._attn_implementation == "eager"
    chosen = load(tmp_path / "m", attn_implementation="sdpa")
    assert chosen.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    assert all(torch.equal(*pair) for pair in zip(expected, step(model), strict=True))


@pytest.mark.parametrize(
    ("places", "named"),
    [
        ({"activations_off": []}, r"no score \(OUTPUT\).*put score into activations_off"),
        (
            {"activations_off": ["score"]},
            r"no attention_softmax \(OUTPUT\).*put attention_softmax into activations_off",
        ),
        ({"gradients_off": []}, r"no score \(GRAD_OUTPUT\).* into gradients_off, or use eager"),
    ],
)
def test_torch_prunes_nothing_between_the_products(places, named):
    model = make({**LINEAR, **places}, attn_implementation="sdpa")
    with pytest.raises(ValueError, match=named):
        model(**batch(0, 4))
    if "gradients_off" in places:  # no gradient enters
        with torch.no_grad():
            model(**batch(0, 4))


def test_refuses(monkeypatch):
    with pytest.raises(ValueError, match="must be eager, sdpa or triton, not flex_attention"):
        make(attn_implementation="flex_attention")
    mixed = {**DESIGN, "layers": [{**DESIGN["layers"][0], "heads": ["sa_sdp", "l_dct"]}]}
    for name in ("sdpa", "triton"):
        with pytest.raises(ValueError, match=f"{name} is for sa_sdp heads, not l_dct; use eager"):
            make(design=mixed, attn_implementation=name)
    make(design=mixed)
    monkeypatch.setattr("model.attention.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs triton and a GPU: pip install triton, or use ea"):
        make().set_attn_implementation("triton")


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="kernels run on a CPU")
def test_triton_needs_a_gpu():
    pytest.importorskip("triton")
    model = make(attn_implementation="triton")
    with pytest.raises(ValueError, match="needs a GPU, not cpu: move the model there, or use attn"):
        model(**batch(0, 4))


def test_triton_has_no_dropout():
    pytest.importorskip("triton")
    model = make(attn_implementation="triton", attention_dropout=0.125).train()
    with pytest.raises(ValueError, match="attention_dropout must be 0 in training, not 0.125"):
        model(**batch(0, 4))


def test_who_looks_on_sees_every_tensor():
    """Recorders, calibration and profiles: the same as of a model that is eager."""
    policy = {"activation_density": 0.5, **{k: LINEAR[k] for k in ("activations_off",)}}
    models = [make(policy, attn_implementation=name) for name in ("eager", "sdpa")]
    tables = [profile(model, [batch(0, 8)]) for model in models]
    assert tables[0] == tables[1] and tables[0].row(0, "attention_softmax", "OUTPUT")
    counted, seen = [], []
    for model, table in zip(models, tables, strict=True):
        model.dynaprop.table = table
        recorder = model.dynaprop.recorder = DensityRecorder(model.design)
        with torch.no_grad():
            model(**batch(0, 8))
        model.dynaprop.recorder = None
        counted.append({place: count.tolist() for place, count in recorder.counts().items()})
        names = []
        with torch.no_grad(), observed(model, lambda name, *rest, names=names: names.append(name)):
            model(**batch(0, 8))
        seen.append(names)
    assert counted[0] == counted[1] and "0.attention_softmax" in seen[1]
    assert seen[0] == seen[1]
