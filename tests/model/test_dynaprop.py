"""Pruning of activations and gradients against the definition, written out in NumPy."""

import numpy as np
import pytest
import torch
from numpy_classifier import NumpyClassifier
from small import small_layer

from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertForSequenceClassification
from model.policy import ACTIVATION_PLACES, GRADIENT_PLACES

torch.set_num_threads(1)


def test_gradcheck_without_gradient_pruning():
    # Away from the threshold the pruned layer is differentiable, and its gradient is the true one.
    layer = small_layer({"activation_threshold": 0.05})
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn((2, 3, 6), dtype=torch.float64, generator=generator, requires_grad=True)
    valid = torch.tensor([[True, True, True], [True, True, False]])

    def run(hidden):
        return layer(hidden, hidden, valid)[0][valid]

    assert (run(hidden) == 0).any()
    assert distance_to_threshold(layer.pruner, 0.05, lambda: run(hidden)) > 1e-5
    assert torch.autograd.gradcheck(run, (hidden,), eps=1e-8, atol=1e-5)


def distance_to_threshold(pruner, threshold, run):
    """Least distance of any magnitude from the threshold that it is compared with."""
    distances = []
    original = pruner.store

    def watch(values, layer, operation, valid_mask, *rest):
        if pruner.policy.activation(layer, operation) > 0:
            distances.append(float((values.detach().abs() - threshold).abs().min()))
        return original(values, layer, operation, valid_mask, *rest)

    pruner.store = watch
    run()
    del pruner.store
    return min(distances)


def cut(values, threshold):
    return np.where(np.abs(values) < threshold, 0, values)


def gelu_slope(x):
    x = torch.from_numpy(x)
    normal = torch.distributions.Normal(torch.zeros_like(x), torch.ones_like(x))
    return (normal.cdf(x) + x * normal.log_prob(x).exp()).numpy()


def test_feed_forward_backward():
    """Two linear layers with GELU between: prune on storing, prune each entering gradient once."""
    tau_i, tau_t = 0.3, 0.4
    policy = {"activation_threshold": tau_i, "gradient_threshold": tau_t}
    layer = small_layer(policy)
    first, second = layer.feed_forward
    generator = torch.Generator().manual_seed(2)
    x = torch.randn((2, 3, 6), dtype=torch.float64, generator=generator)
    entering = torch.randn((2, 3, 6), dtype=torch.float64, generator=generator)
    x.requires_grad_()
    rows = torch.ones((2, 3, 1), dtype=torch.bool)
    made = layer._linear(first, x, "feed_forward_0", rows)
    made = layer._store(layer.activation(made), "feed_forward_0", rows)
    made = layer._store(layer._linear(second, made, "feed_forward_1", rows), "feed_forward_1", rows)
    made.backward(entering)

    w0, b0, w1, b1 = (
        p.detach().numpy() for p in (first.weight, first.bias, second.weight, second.bias)
    )
    xn = x.detach().numpy()
    z0 = xn @ w0.T + b0
    raw = torch.nn.functional.gelu(torch.from_numpy(z0)).numpy()
    a0 = cut(raw, tau_i)
    z1 = a0 @ w1.T + b1
    np.testing.assert_allclose(made.detach().numpy(), cut(z1, tau_i), atol=1e-14)
    g1 = cut(entering.numpy() * (np.abs(z1) >= tau_i), tau_t)
    g0 = cut((g1 @ w1) * (np.abs(raw) >= tau_i) * gelu_slope(z0), tau_t)
    assert 0.2 < (g1 == 0).mean() < 0.9 and 0.2 < (g0 == 0).mean() < 1
    np.testing.assert_allclose(second.weight.grad, np.einsum("bij,bik->jk", g1, a0), atol=1e-13)
    np.testing.assert_allclose(second.bias.grad, g1.sum((0, 1)), atol=1e-13)
    np.testing.assert_allclose(first.weight.grad, np.einsum("bij,bik->jk", g0, xn), atol=1e-13)
    np.testing.assert_allclose(first.bias.grad, g0.sum((0, 1)), atol=1e-13)
    np.testing.assert_allclose(x.grad, g0 @ w0, atol=1e-13)


def test_attention_backward():
    """Q, K, V, scores and probabilities of two heads, the second sequence padded."""
    tau_i, tau_t, heads, size = 0.2, 0.05, 2, 3
    layer = small_layer({"activation_threshold": tau_i, "gradient_threshold": tau_t})
    generator = torch.Generator().manual_seed(4)
    x = torch.randn((2, 4, 6), dtype=torch.float64, generator=generator, requires_grad=True)
    entering = torch.randn((2, 4, 6), dtype=torch.float64, generator=generator)
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    entering = entering * valid[..., None]
    layer.attend(x, valid).backward(entering)

    grads = {name: np.zeros((6, 6)) for name in ("query", "key", "value")}
    xn, dx = x.detach().numpy(), np.zeros((2, 4, 6))
    for b, n in ((0, 4), (1, 2)):
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            raw, kept = {}, {}
            for name in grads:
                module = getattr(layer, name)
                weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
                raw[name] = xn[b, :n] @ weight[part].T + bias[part]
                kept[name] = cut(raw[name], tau_i)
            q, k, v = kept["query"], kept["key"], kept["value"]
            score = q @ k.T / np.sqrt(size)  # pruning of scores is off by default
            p = np.exp(score - score.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            p_kept = cut(p, tau_i)
            context = p_kept @ v
            g = cut(entering[b, :n, part].numpy() * (np.abs(context) >= tau_i), tau_t)
            dp = (g @ v.T) * (p >= tau_i)
            ds = cut(p * (dp - (dp * p).sum(-1, keepdims=True)), tau_t)
            into = {
                "query": ds @ k / np.sqrt(size),
                "key": ds.T @ q / np.sqrt(size),
                "value": p_kept.T @ g,
            }
            for name, gradient in into.items():
                gradient = cut(gradient * (np.abs(raw[name]) >= tau_i), tau_t)
                grads[name][part] += gradient.T @ xn[b, :n]
                dx[b, :n] += gradient @ getattr(layer, name).weight.detach().numpy()[part]
    for name, gradient in grads.items():
        np.testing.assert_allclose(getattr(layer, name).weight.grad, gradient, atol=1e-13)
    np.testing.assert_allclose(x.grad, dx, atol=1e-13)


def classifier(policy):
    design = {
        "layers": [{"hidden": 16, "heads": ["sa_sdp"] * 2, "feed_forward": [24]}] * 2,
        "vocabulary": 40,
        "max_positions": 12,
    }
    config = FlexiBertConfig.of(
        design, policy, hidden_dropout=0.0, attention_dropout=0.0, initializer_range=0.3
    )
    torch.manual_seed(0)
    return FlexiBertForSequenceClassification(config).double()


def one_layer(policy):
    design = {
        "layers": [{"hidden": 6, "heads": ["sa_sdp"] * 2, "feed_forward": [5]}],
        "vocabulary": 11,
        "max_positions": 8,
        "labels": 3,
    }
    config = FlexiBertConfig.of(design, policy, hidden_dropout=0.0, attention_dropout=0.0)
    torch.manual_seed(7)
    model = FlexiBertForSequenceClassification(config).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


IDS = torch.tensor([[1, 4, 2, 9, 3], [5, 6, 10, 0, 0], [8, 2, 2, 7, 0]])
LENGTHS, LABELS = [5, 3, 4], torch.tensor([2, 0, 1])
MASK = (torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]).long()


def test_gradcheck_of_all_parameters_of_a_classifier():
    """τ_T = 0, and no magnitude within a thousand steps of τ_I: the analytic gradient is true."""
    model = one_layer({"activation_threshold": 0.2, "activations_off": ()})
    parameters = dict(model.named_parameters())

    def run(*values):
        given = dict(zip(parameters, values, strict=True))
        return torch.func.functional_call(model, given, (IDS, MASK), {"labels": LABELS}).loss

    distance = distance_to_threshold(model.dynaprop, 0.2, lambda: run(*parameters.values()))
    assert distance > 1e-5
    assert torch.autograd.gradcheck(run, tuple(parameters.values()), eps=1e-8, atol=1e-6)


def compare_with_numpy(policy):
    """Loss and all gradients of a model against the explicit backward pass; what was pruned."""
    model = one_layer(policy)
    loss = model(IDS, MASK, labels=LABELS).loss
    loss.backward()
    loaded = model.dynaprop.policy
    weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
    reference = NumpyClassifier(
        weights,
        2,
        {name: loaded.activation(0, name) for name in ACTIVATION_PLACES},
        {name: loaded.gradient(0, name) for name in GRADIENT_PLACES},
    )
    assert loss.item() == pytest.approx(reference.run(IDS.numpy(), LENGTHS, LABELS), abs=1e-12)
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(
            parameter.grad, reference.gradients[name], rtol=0, atol=1e-12, err_msg=name
        )
    return reference.pruned


ALL = {"activation_threshold": 0.2, "activations_off": (), "gradient_threshold": 0.005}
STORED = [name for name in ACTIVATION_PLACES if name in {
    "embedding", "query", "key", "value", "score", "attention_softmax", "context",
    "attention_output", "attention_norm", "feed_forward_0", "feed_forward_1",
    "feed_forward_norm", "pooler", "pooler_tanh",
}]  # fmt: skip
ENTERED = [name for name in GRADIENT_PLACES if name in {*STORED, "classifier"}]


def test_every_gradient_of_a_classifier_is_that_of_the_explicit_backward_pass():
    pruned = compare_with_numpy(ALL)
    assert len(pruned) > 20  # of 14 + 11 places


@pytest.mark.parametrize("place", STORED)
def test_each_stored_tensor_can_be_switched_off_alone(place):
    assert place not in compare_with_numpy({**ALL, "activations_off": (place,)})


@pytest.mark.parametrize("place", STORED)
def test_each_stored_tensor_can_be_pruned_alone(place):
    override = {"threshold": 0.4, "operation": place}
    policy = {"activations_off": (), "overrides": [override]}
    assert compare_with_numpy(policy) == {place}


@pytest.mark.parametrize("place", ENTERED)
def test_each_entering_gradient_can_be_pruned_alone(place):
    override = {"threshold": 0.02, "operation": place, "role": "GRAD_OUTPUT"}
    assert compare_with_numpy({"overrides": [override]}) == {f"{place} gradient"}


@pytest.mark.parametrize("place", ENTERED)
def test_each_entering_gradient_can_be_switched_off_alone(place):
    policy = {**ALL, "gradient_threshold": 0.02, "gradients_off": (place,)}
    assert f"{place} gradient" not in compare_with_numpy(policy)


@pytest.mark.parametrize(
    "policy",
    [
        {"activation_threshold": 0.3, "activations_off": (), "gradient_threshold": 1e-3},
        {"selection": "top_k_row", "activation_density": 0.5, "gradient_density": 0.5},
        {"selection": "top_k_tensor", "activation_density": 0.5, "gradient_density": 0.5},
    ],
)
def test_masked_positions_are_neither_compared_nor_heard(policy):
    """What lies under the mask stays as computed, and changes neither logits nor gradients."""
    found = []
    for filling in (0, 6):
        model = one_layer(policy)
        seen = {}
        original = model.dynaprop.store

        def watch(values, layer, operation, valid_mask, *rest, original=original, seen=seen):
            made = original(values, layer, operation, valid_mask, *rest)
            if valid_mask is not None:
                under = ~valid_mask.expand(values.shape)
                assert torch.equal(made[under], values[under])
                seen[operation] = int((made[under] != 0).sum()) if under.any() else 0
            return made

        model.dynaprop.store = watch
        ids = torch.where(MASK == 1, IDS, filling)
        made = model(ids, MASK, labels=LABELS)
        made.loss.backward()
        del model.dynaprop.store
        assert seen["query"] > 0 and seen["score"] > 0
        found.append([made.logits.detach(), *gradients(model).values()])
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_one_batch_two_processes_and_accumulation_agree():
    """1 × 32 = 2 × 16 = 32 by accumulation, and a loss scale changes nothing."""
    policy = {"activation_threshold": 0.05, "gradient_threshold": 1e-3}
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 40, (32, 10), generator=generator)
    labels = torch.randint(0, 2, (32,), generator=generator)
    model = classifier(policy)
    model(ids, labels=labels).loss.backward()
    whole = gradients(model)

    model.zero_grad()
    for part in (slice(0, 16), slice(16, 32)):  # each step's loss is divided by the steps
        (model(ids[part], labels=labels[part]).loss / 2).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, whole[name])

    model.zero_grad()
    model.dynaprop.gradient_scale = 2 * 128.0  # two processes whose gradients are averaged
    for part in (slice(0, 16), slice(16, 32)):
        (model(ids[part], labels=labels[part]).loss * 128).backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient / 256, whole[name])

    model.zero_grad()
    model.dynaprop.gradient_scale = 1.0
    model.set_policy({**policy, "gradient_threshold": 0.0})
    model(ids, labels=labels).loss.backward()
    assert any(not torch.allclose(g, whole[name]) for name, g in gradients(model).items())


def test_residual_may_read_what_was_not_pruned():
    ids = torch.arange(1, 9)[None]
    seen = {}
    for prune_residual in (True, False):
        model = classifier({"activation_threshold": 0.4, "prune_residual": prune_residual})
        states = {}
        norm = model.encoder.layers[0].attention_norm
        handle = norm.register_forward_pre_hook(
            lambda _, args, into=states: into.update(sum=args[0])
        )
        hidden = model(ids, output_hidden_states=True).hidden_states[0]
        handle.remove()
        assert (hidden == 0).any()  # what products read is pruned either way
        seen[prune_residual] = states["sum"]
    zero = hidden == 0
    assert (seen[True][zero] != seen[False][zero]).all()
