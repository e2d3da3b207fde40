"""Densities and effectual pairs against counts written out in NumPy."""

import numpy as np
import pytest
import torch

from model.configuration import FlexiBertConfig
from model.density import DensityRecorder
from model.flexibert import FlexiBertForSequenceClassification
from model.space import TransformerDesign, operations
from model.trace import SparsityTrace

torch.set_num_threads(1)

DESIGN = TransformerDesign.load(
    {
        "layers": [
            {"hidden": 16, "heads": ["sa_sdp"] * 2, "feed_forward": [24]},
            {"hidden": 12, "heads": ["sa_sdp"] * 3, "feed_forward": [8, 20]},
        ],
        "vocabulary": 40,
        "max_positions": 12,
    }
)
LENGTHS = (7, 3, 5)


def setup(policy, batches=2):
    config = FlexiBertConfig.of(DESIGN, policy, initializer_range=0.4)
    torch.manual_seed(0)
    model = FlexiBertForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(9)[None] < torch.tensor(LENGTHS)[:, None]).long()
    data = [torch.randint(1, 40, (3, 9), generator=generator) for _ in range(batches)]
    return model, data, mask


def record(model, data, mask, train=False):
    recorder = DensityRecorder(model.design)
    model.dynaprop.recorder = recorder
    for ids in data:
        made = model(ids, mask, labels=torch.tensor([0, 1, 0]))
        if train:
            made.loss.backward()
    model.dynaprop.recorder = None
    weights = {name: module.weight for name, module in model.products().items()}
    return recorder.trace(
        weights,
        model.dynaprop.policy,
        weights_hash=model.weights_hash(),
        task="test",
        split="validation",
        stage="training" if train else "inference",
    )


def stored_tensors(model, ids, mask):
    """Every stored tensor, caught where it is stored."""
    caught = {}
    original = model.dynaprop.store

    def catch(values, layer, operation, valid_mask, members=()):
        caught[layer, operation] = original(values, layer, operation, valid_mask, members)
        return caught[layer, operation]

    model.dynaprop.store = catch
    with torch.no_grad():
        model(ids, mask)
    del model.dynaprop.store
    return {key: value.numpy() for key, value in caught.items()}


@pytest.fixture(scope="module")
def recorded():
    model, data, mask = setup({"activation_threshold": 0.2})
    return model, data, mask, record(model, data, mask)


def test_counts_real_positions_only(recorded):
    model, data, mask, trace = recorded
    rows = sum(LENGTHS) * len(data)
    squares = sum(n * n for n in LENGTHS) * len(data)
    tensors = [stored_tensors(model, ids, mask) for ids in data]
    for item in operations(DESIGN):
        if item.name == "classifier":
            continue
        records = [
            r
            for r in trace.records
            if (r.layer, r.operation, r.role) == (item.layer, item.name, "OUTPUT")
        ]
        assert len(records) == (
            1
            if tensors[0][item.layer, item.name].ndim == 3
            else len(DESIGN.layers[item.layer].heads)
        )
        elements = sum(r.elements for r in records)
        if item.outer == "sequence":
            assert elements == squares * item.heads
        elif item.rows == "one":
            assert elements == 3 * len(data) * item.outer
        else:
            assert elements == rows * item.outer * item.heads
        nonzeros = 0
        for caught in tensors:
            values = caught[item.layer, item.name]
            for b, n in enumerate(LENGTHS):
                n = min(n, values.shape[-2])
                part = values[b, ..., :n, :n] if item.outer == "sequence" else values[b, ..., :n, :]
                nonzeros += np.count_nonzero(part)
        assert sum(r.nonzeros for r in records) == nonzeros
        assert trace.density(item.layer, item.name, "OUTPUT") == nonzeros / elements


def test_padding_is_not_sparsity():
    model, data, mask = setup({"activation_threshold": 0.2})
    wide = torch.nn.functional.pad(mask, (0, 3))
    short = record(model, data, mask)
    padded = record(model, [torch.nn.functional.pad(ids, (0, 3), value=5) for ids in data], wide)
    assert padded.sequence_length == 12 and short.sequence_length == 9
    assert [r.model_copy(update={"mean": 0.0}) for r in padded.records] == [
        r.model_copy(update={"mean": 0.0}) for r in short.records
    ]
    assert padded.products == short.products
    assert short.lengths == {3: 2, 5: 2, 7: 2}


def test_readers_see_what_was_stored(recorded):
    _, _, _, trace = recorded
    for item in operations(DESIGN):
        for role, tensor in item.roles.items():
            if role == "WEIGHT":
                assert trace.density(item.layer, item.name, role) == 1
            elif tensor not in ("word_rows", "position_rows") and item.name != "pooler":
                layer, _, name = tensor.rpartition(".")
                written = trace.density(int(layer) if layer else None, name, "OUTPUT")
                assert trace.density(item.layer, item.name, role) == written


def test_pooler_reads_the_first_position(recorded):
    model, data, mask, trace = recorded
    first = [stored_tensors(model, ids, mask)[1, "feed_forward_norm"][:, 0] for ids in data]
    assert trace.density(None, "pooler", "INPUT") == np.mean(np.stack(first) != 0)


def test_effectual_pairs_of_the_forward_pass(recorded):
    model, data, mask, trace = recorded
    pairs = {(p.layer, p.operation): p for p in trace.products if p.product == "forward"}
    assert len(pairs) == sum(item.kind == "product" for item in operations(DESIGN))
    expected = dict.fromkeys(pairs, 0)
    for ids in data:
        caught = stored_tensors(model, ids, mask)
        for b, n in enumerate(LENGTHS):
            for layer in (0, 1):
                q, k, v = (caught[layer, name][b, :, :n] != 0 for name in ("query", "key", "value"))
                p = caught[layer, "attention_softmax"][b, :, :n, :n] != 0
                expected[layer, "score"] += (q[:, :, None] & k[:, None]).sum()
                expected[layer, "context"] += (p[..., None] & v[:, None]).sum()
                context = caught[layer, "context"][b, :, :n]
                expected[layer, "attention_output"] += (
                    np.count_nonzero(context) * DESIGN.layers[layer].hidden
                )
                ff = caught[layer, "feed_forward_0"][b, :n]
                expected[layer, "feed_forward_1"] += np.count_nonzero(ff) * (16, 20)[layer]
            expected[None, "pooler"] += np.count_nonzero(caught[1, "feed_forward_norm"][b, 0]) * 12
    for key, effectual in expected.items():
        if effectual:
            assert pairs[key].effectual == effectual, key
    assert pairs[0, "score"].pairs == 2 * 2 * 8 * sum(n * n for n in LENGTHS)
    assert pairs[0, "feed_forward_0"].pairs == 2 * sum(LENGTHS) * 16 * 24


def test_gradients(recorded):
    threshold = 2e-3
    model, data, mask = setup({"activation_threshold": 0.1, "gradient_threshold": threshold})
    inputs, gradients = {}, {}
    layer = model.encoder.layers[0]

    def watch(module, args, output):
        inputs[module] = args[0].detach()
        output.register_hook(
            lambda g: gradients.__setitem__(module, g)
        )  # pruned: it is what enters

    handles = [
        m.register_forward_hook(watch) for m in (layer.attention_output, layer.feed_forward[0])
    ]
    trace = record(model, data[:1], mask, train=True)
    for handle in handles:
        handle.remove()
    assert trace.stage == "training" and trace.gradient_threshold == threshold
    real = mask.bool()
    for module, name in (
        (layer.attention_output, "attention_output"),
        (layer.feed_forward[0], "feed_forward_0"),
    ):
        gradient = gradients[module][real].numpy() != 0
        source = inputs[module][real].numpy() != 0
        item = next(
            r for r in trace.records if (r.layer, r.operation, r.role) == (0, name, "GRAD_OUTPUT")
        )
        assert item.nonzeros == gradient.sum() and item.elements == gradient.size
        assert item.zeros_before + item.nonzeros < item.elements  # the threshold took some
        assert 0 < item.pruned < 1
        pairs = {p.product: p for p in trace.products if (p.layer, p.operation) == (0, name)}
        assert pairs["weight_gradient"].effectual == (source.sum(1) * gradient.sum(1)).sum()
        assert pairs["input_gradient"].effectual == gradient.sum() * module.in_features
    for name in ("score", "context"):
        kinds = {p.product for p in trace.products if (p.layer, p.operation) == (1, name)}
        assert kinds == {"forward", "left_gradient", "right_gradient"}


def test_effectual_pairs_of_attention_backward():
    """dP = dC·Vᵀ, dV = Pᵀ·dC, dQ = dS·K and dK = dSᵀ·Q, pair by pair."""
    generator = torch.Generator().manual_seed(3)
    recorder = DensityRecorder(DESIGN)
    seen = recorder.start(torch.ones((2, 5), dtype=torch.bool))

    def draw(*shape):
        return (torch.rand(shape, generator=generator) < 0.4).float()

    q, k, v, dc = (draw(2, 2, 5, 8) for _ in range(4))
    p, ds = draw(2, 2, 5, 5), draw(2, 2, 5, 5)
    valid = torch.ones((), dtype=torch.bool)
    for name, value in (("query", q), ("key", k), ("value", v), ("attention_softmax", p)):
        seen.note_activation(value, value, 0, name, valid)
    seen.gradient_note(0, "score", valid)(ds, ds)
    seen.gradient_note(0, "context", valid)(dc, dc)
    found = {(place[1], product): int(n) for (place, product), (_, n) in recorder.pairs.items()}
    assert found == {
        ("score", "left_gradient"): torch.einsum("bhij,bhjd->", ds, k),
        ("score", "right_gradient"): torch.einsum("bhij,bhid->", ds, q),
        ("context", "left_gradient"): torch.einsum("bhid,bhjd->", dc, v),
        ("context", "right_gradient"): torch.einsum("bhij,bhid->", p, dc),
    }


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


def test_rows_and_quantiles(recorded):
    model, data, mask, trace = recorded
    rows = np.concatenate(
        [
            (stored_tensors(model, ids, mask)[0, "attention_norm"] != 0).mean(-1)[
                mask.bool().numpy()
            ]
            for ids in data
        ]
    )
    item = next(
        r
        for r in trace.records
        if (r.layer, r.operation, r.role) == (0, "attention_norm", "OUTPUT")
    )
    assert item.mean == pytest.approx(rows.mean())
    assert item.quantiles[0] == pytest.approx(rows.min(), abs=1e-3)
    assert item.quantiles[3] == pytest.approx(np.quantile(rows, 0.5, method="nearest"), abs=1e-3)
    assert item.quantiles[-1] == pytest.approx(rows.max(), abs=1e-3)


def test_trace_saves_and_loads(recorded, tmp_path):
    *_, trace = recorded
    trace.save(tmp_path / "trace.json")
    assert SparsityTrace.load(tmp_path / "trace.json") == trace
    trace.check(DESIGN)


def test_nothing_recorded():
    with pytest.raises(ValueError, match="nothing was recorded"):
        DensityRecorder(DESIGN).trace(
            {}, None, weights_hash="", task="", split="", stage="inference"
        )
