"""Fused attention against FlexiBERT's own, forward and backward."""

import pytest
import torch
from small import batch, small_layer
from triton_device import DEVICE, MARKS, needs_gpu

from model.configuration import FlexiBertConfig
from model.density import DensityRecorder
from model.flexibert import FlexiBertForSequenceClassification

pytestmark = MARKS


POLICIES = [
    {},
    {"activation_threshold": 0.03, "gradient_threshold": 0.02},
    {"overrides": [{"operation": "query", "threshold": 0.5}]},
    {"overrides": [{"operation": "key", "threshold": 0.5}]},
    {"overrides": [{"operation": "value", "threshold": 0.5}]},
    {"overrides": [{"operation": "attention_softmax", "threshold": 0.1}]},
    {"overrides": [{"operation": "context", "threshold": 0.3}]},
    *(
        {"overrides": [{"operation": name, "role": "GRAD_OUTPUT", "threshold": threshold}]}
        for name, threshold in (
            ("query", 0.1), ("key", 0.1), ("value", 0.3), ("score", 0.05), ("context", 0.5),
        )
    ),
]  # fmt: skip


def inputs(length, size, heads=2):
    """What the three products give, the gradient of the context, and real positions."""
    generator = torch.Generator().manual_seed(3)
    shape = (3, length, heads, size)
    drawn = [torch.randn(shape, generator=generator).to(DEVICE) for _ in range(4)]
    valid = torch.ones((3, length), dtype=torch.bool)
    valid[1, length // 2 :] = False
    valid[2] = False
    return drawn, valid.to(DEVICE)


class Given(torch.nn.Module):
    """Stands in for a product, with its result."""

    def __init__(self, result):
        super().__init__()
        self.result = result

    def forward(self, hidden):
        return self.result.flatten(2)


def of_layer(layer, tensors, valid):
    for name, result in zip(("query", "key", "value"), tensors, strict=True):
        setattr(layer, name, Given(result))
    return layer.attend(None, valid).unflatten(2, tensors[0].shape[2:])


def compare(policy, length, size):
    from model.attention_triton import attention

    layer = small_layer(policy, hidden=2 * size).float().to(DEVICE)
    (*tensors, entering), valid = inputs(length, size)
    results = []
    for context_of in (
        lambda leaves: of_layer(layer, leaves, valid),
        lambda leaves: attention(*leaves, valid, layer.pruner, 0),
    ):
        leaves = [item.clone().requires_grad_() for item in tensors]
        context = context_of(leaves)
        context.backward(entering)
        results.append([context.detach(), *(item.grad for item in leaves)])
    return results


@pytest.mark.parametrize("policy", POLICIES)
def test_like_the_layer(policy):
    dense, _ = compare({}, 16, 16)
    expected, got = compare(policy, 16, 16)
    if policy:
        assert any(not torch.equal(*pair) for pair in zip(dense, expected, strict=True))
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("threshold", [0.0, 0.03])
@pytest.mark.parametrize("length, size", [(7, 3), (33, 20), (128, 64)])
def test_sizes(length, size, threshold):
    policy = {"activation_threshold": threshold, "gradient_threshold": threshold}
    for one, other in zip(*compare(policy, length, size), strict=True):
        # A number within rounding of a threshold may fall on its other side.
        close = torch.isclose(one, other, rtol=1e-4, atol=1e-5)
        assert close.float().mean() > (0.98 if threshold else 0.99999)
        assert (one - other).norm() <= (5e-3 if threshold else 1e-5) * one.norm()


def test_what_is_refused():
    from model.attention_triton import attention

    layer = small_layer({"activation_threshold": 0.1, "activations_off": []})
    (*tensors, _), valid = inputs(8, 4)
    with pytest.raises(ValueError, match="put score into activations_off"):
        attention(*tensors, valid, layer.pruner, 0)
    (*tensors, _), valid = inputs(129, 4)
    with pytest.raises(ValueError, match="at most 128 long in fused attention, not 129"):
        attention(*tensors, valid, layer.pruner, 0)


def whole(policy, implementation):
    """Logits and every gradient of a step of a whole model, with padding."""
    design = {
        "layers": [
            {"hidden": 24, "heads": ["sa_sdp"] * 2, "feed_forward": [16]},
            {"hidden": 18, "heads": ["sa_sdp"] * 3, "feed_forward": [20]},
        ],
        "vocabulary": 200,
        "max_positions": 24,
    }
    config = FlexiBertConfig.of(
        design, policy, initializer_range=0.3, hidden_dropout=0.0, attention_dropout=0.0,
        attn_implementation=implementation,
    )  # fmt: skip
    torch.manual_seed(0)
    model = FlexiBertForSequenceClassification(config).to(DEVICE)
    inputs = {name: values.to(DEVICE) for name, values in batch(0, 8).items()}
    labels = (torch.arange(8) % 2).to(DEVICE)
    made = model(**inputs, labels=labels)
    made.loss.backward()
    gradients = [p.grad for p in model.parameters()]
    model.dynaprop.recorder = recorder = DensityRecorder(model.design)
    model(**inputs, labels=labels)
    return [made.logits.detach(), *gradients], recorder.counts()


def test_a_model_that_is_told_to(monkeypatch):
    from model import attention_triton

    calls = []
    original = attention_triton.attention
    monkeypatch.setattr(
        attention_triton, "attention", lambda *given: calls.append(given) or original(*given)
    )
    policy = {"activation_threshold": 0.05, "gradient_threshold": 1e-4}
    (dense, _), (expected, counts), (got, own) = (
        whole(*given) for given in (({}, "eager"), (policy, "eager"), (policy, "triton"))
    )
    assert len(calls) == 2  # once a layer; while a recorder looks on attention is eager
    assert any(not torch.equal(*pair) for pair in zip(dense, expected, strict=True))
    for one, other in zip(expected, got, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert counts.keys() == own.keys()
    assert all(torch.equal(counts[place], own[place]) for place in counts)


@needs_gpu
def test_compiles_without_a_graph_break():
    policy = {"activation_threshold": 0.05, "gradient_threshold": 1e-4}
    config = FlexiBertConfig.of(
        "bert-tiny", policy, hidden_dropout=0.0, attention_dropout=0.0, attn_implementation="triton"
    )
    model = FlexiBertForSequenceClassification(config).to(DEVICE)
    inputs = {name: values.to(DEVICE) for name, values in batch(0, 8).items()}
    expected = model(**inputs).logits
    model.encoder.compile(fullgraph=True)
    torch.testing.assert_close(model(**inputs).logits, expected, rtol=1e-3, atol=1e-4)
