"""Densities and effectual pairs of every kind of head against counts written out in NumPy."""

import numpy as np
import pytest
import torch
from recorded import LENGTHS, record

from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertForSequenceClassification
from model.space import TransformerDesign
from model.trace import SparsityTrace

torch.set_num_threads(1)

MIXED = TransformerDesign.load(
    {
        "layers": [
            {
                "hidden": 30,
                "heads": ["c_5", "sa_sdp", "l_dft", "sa_wma", "c_9", "sa_wma", "l_dct", "c_5"],
                "feed_forward": [24],
            },
            {"hidden": 12, "heads": ["l_dct", "l_dct"], "feed_forward": [8]},
        ],
        "vocabulary": 40,
        "max_positions": 12,
    }
)
SPANS = {"c_5": 5, "c_9": 9}


def noted(model, ids, mask):
    """Every stored tensor and every gradient that enters a product, by place and head."""
    stored, entering = {}, {}
    pruner = model.dynaprop
    store, product = pruner.store, pruner.product

    def keep(into, values, layer, operation, members):
        values = values.detach()
        if values.dim() == 4:
            numbers = members or range(values.shape[1])
            into.update(
                ((layer, operation, h), values[:, i].numpy() != 0) for i, h in enumerate(numbers)
            )
        else:
            into[layer, operation, None] = values.numpy() != 0

    def catch_store(values, layer, operation, valid_mask, members=()):
        made = store(values, layer, operation, valid_mask, members)
        keep(stored, made, layer, operation, members)
        return made

    def catch_product(values, layer, operation, valid_mask, members=()):
        made = product(values, layer, operation, valid_mask, members)
        # What leaves the pruning: the hook stands on what it reads.
        values.register_hook(lambda g: keep(entering, g, layer, operation, members))
        return made

    pruner.store, pruner.product = catch_store, catch_product
    model(ids, mask, labels=torch.tensor([0, 1, 0])).loss.backward()
    del pruner.store, pruner.product
    return stored, entering


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(2)
    policy = {"activation_threshold": 0.15, "gradient_threshold": 2e-3}
    config = FlexiBertConfig.of(
        MIXED, policy, initializer_range=0.4, hidden_dropout=0.0, attention_dropout=0.0
    )
    model = FlexiBertForSequenceClassification(config)
    with torch.no_grad():  # some weights are zero, too
        for module in model.products().values():
            module.weight[module.weight.abs() < 0.1] = 0
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 40, (3, 9), generator=generator)
    mask = (torch.arange(9)[None] < torch.tensor(LENGTHS)[:, None]).long()
    trace = record(model, [ids], mask, train=True)
    return model, trace, *noted(model, ids, mask)


def test_every_head_has_its_own_records(mixed):
    model, trace, stored, entering = mixed
    for role, caught in (("OUTPUT", stored), ("GRAD_OUTPUT", entering)):
        records = {(r.layer, r.operation, r.head): r for r in trace.records if r.role == role}
        assert set(records) == {key for key in caught if role != "OUTPUT" or key[1] != "none"}
        for key, values in caught.items():
            if key[0] is None:
                continue
            elements = nonzeros = 0
            for b, n in enumerate(LENGTHS):
                square = key[1] in ("score", "attention_softmax")
                real = values[b, :n, :n] if square else values[b, :n]
                elements += real.size
                nonzeros += real.sum()
            assert (records[key].elements, records[key].nonzeros) == (elements, nonzeros), key
    heads = MIXED.layers[0].heads
    for r in trace.records:
        if r.layer == 0 and r.operation.startswith("k") and r.operation != "key":
            assert heads[r.head].startswith("c_")
        if r.operation == "query_weighted":
            assert heads[r.head] == "sa_wma"
    wma = [r.head for r in trace.records if r.operation == "query_weighted" and r.role == "INPUT"]
    assert wma == [3, 5]
    assert trace.density(0, "score", "LEFT", 1) == trace.density(0, "query", "OUTPUT", 1)
    assert trace.density(0, "score", "LEFT", 5) == trace.density(0, "query_weighted", "OUTPUT", 5)
    assert trace.density(0, "kernel_query", "LEFT", 4) == trace.density(0, "query", "OUTPUT", 4)
    assert trace.density(0, "attention_output", "INPUT", 6) == trace.density(
        0, "context", "OUTPUT", 6
    )
    assert {r.operation for r in trace.records if r.layer == 1}.isdisjoint({"query", "key"})


def pairs_of_head(model, stored, entering, head, b, n):
    """Effectual pairs of one head and sequence, product by product, entry by entry."""
    operation = MIXED.layers[0].heads[head]

    def at(name, caught=stored):
        return caught[0, name, head][b, :n].astype(np.int64)

    def linear(name, source):
        members = [h for h, found in enumerate(MIXED.layers[0].heads) if found == operation]
        module = model.products()[f"0.{operation}.{name}"]
        w = (module.weight[members.index(head)].detach().numpy() != 0).astype(np.int64)
        g = at(name, entering)
        return {
            (name, "forward"): (source @ w.T).sum(),
            (name, "input_gradient"): (g @ w).sum(),
            (name, "weight_gradient"): (g.T @ source).sum(),
        }

    found = {}
    if operation in SPANS:
        span, key, value, p = SPANS[operation], at("key"), at("value"), at("kernel")
        found |= linear("key_convolution", at("key_depthwise"))
        found |= linear("kernel_logits", at("kernel_query"))
        members = [h for h, found in enumerate(MIXED.layers[0].heads) if found == operation]
        weight = model.products()[f"0.{operation}.key_depthwise"].weight[members.index(head)]
        w = weight.detach().numpy() != 0
        g, gd = at("context", entering), at("key_depthwise", entering)
        names = [
            ("key_depthwise", kind) for kind in ("forward", "input_gradient", "weight_gradient")
        ]
        names += [("context", kind) for kind in ("forward", "left_gradient", "right_gradient")]
        found |= dict.fromkeys(names, 0)
        for i in range(n):
            for j in range(span):
                s = i + j - span // 2
                if 0 <= s < n:
                    counts = (
                        (w[:, j] * key[s]).sum(), (gd[i] * w[:, j]).sum(), (gd[i] * key[s]).sum(),
                        p[i, j] * value[s].sum(), (g[i] * value[s]).sum(), p[i, j] * g[i].sum(),
                    )  # fmt: skip
                    for name, count in zip(names, counts, strict=True):
                        found[name] += count
        return found
    g = at("context", entering)
    if operation.startswith("l_"):
        made, gm, halves = at("transform"), at("transform", entering), 1 + (operation == "l_dft")
        size = MIXED.layers[0].head_size
        return {
            ("transform", "forward"): at("value").sum() * size * halves,
            ("transform", "input_gradient"): gm.sum() * size,
            ("context", "forward"): made.sum() * n,
            ("context", "input_gradient"): g.sum() * n * halves,
        }
    left, key, value = at("query"), at("key"), at("value")
    if operation == "sa_wma":
        found |= linear("query_weighted", left)
        left = at("query_weighted")
    p, ds = at("attention_softmax")[:, :n], at("score", entering)[:, :n]
    return found | {
        ("score", "forward"): (left @ key.T).sum(),
        ("score", "left_gradient"): (ds @ key).sum(),
        ("score", "right_gradient"): (ds.T @ left).sum(),
        ("context", "forward"): (p @ value).sum(),
        ("context", "left_gradient"): (g @ value.T).sum(),
        ("context", "right_gradient"): (p.T @ g).sum(),
    }


def test_effectual_pairs_of_every_head(mixed):
    model, trace, stored, entering = mixed
    heads = MIXED.layers[0].heads
    expected = {}
    for head, operation in enumerate(heads):
        members = tuple(h for h, found in enumerate(heads) if found == operation)
        for b, n in enumerate(LENGTHS):
            for (name, product), count in pairs_of_head(
                model, stored, entering, head, b, n
            ).items():
                key = (name, product, members)
                expected[key] = expected.get(key, 0) + count
    of_heads = ("query", "key", "value")
    found = {
        (p.operation, p.product, p.members): p.effectual
        for p in trace.products
        if p.layer == 0 and p.members and p.operation not in of_heads
    }
    assert found == expected
    assert all(found.values())


def test_possible_pairs_of_every_head(mixed):
    """With nothing pruned and no weight zero, every pair but those with fixed zeros counts."""
    _, trace, _, _ = mixed
    possible = {
        (p.operation, p.product, p.members): p.pairs for p in trace.products if p.layer == 0
    }
    size, squares = MIXED.layers[0].head_size, sum(n * n for n in LENGTHS)
    inside = {
        span: sum(
            0 <= i + j - span // 2 < n for n in LENGTHS for i in range(n) for j in range(span)
        )
        for span in SPANS.values()
    }
    assert possible["key_depthwise", "forward", (0, 7)] == 2 * inside[5] * size
    assert possible["context", "left_gradient", (4,)] == inside[9] * size
    assert possible["context", "forward", (2,)] == 2 * squares * size
    assert possible["context", "forward", (6,)] == squares * size
    assert possible["transform", "forward", (2,)] == 2 * sum(LENGTHS) * size**2
    assert possible["query_weighted", "weight_gradient", (3, 5)] == 2 * sum(LENGTHS) * size**2
    assert possible["kernel_logits", "input_gradient", (4,)] == sum(LENGTHS) * 9 * size
    asking = (0, 1, 3, 4, 5, 7)
    assert possible["query", "forward", asking] == sum(LENGTHS) * 30 * 6 * size
    assert possible["attention_output", "forward", ()] == sum(LENGTHS) * 30 * 8 * size


def test_padding_is_no_sparsity_of_any_head(mixed):
    model, trace, _, _ = mixed
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, 40, (3, 9), generator=generator)
    mask = (torch.arange(9)[None] < torch.tensor(LENGTHS)[:, None]).long()
    padded = [torch.nn.functional.pad(ids, (0, 3), value=5)]
    wide = record(model, padded, torch.nn.functional.pad(mask, (0, 3)), train=True)
    assert wide.products == trace.products
    assert SparsityTrace.load(wide.model_dump(mode="json")).products == trace.products
