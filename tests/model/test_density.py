"""Densities and effectual pairs against counts written out in NumPy."""

import numpy as np
import pytest
import torch
from recorded import LENGTHS, record

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


def setup(policy, batches=2):
    config = FlexiBertConfig.of(DESIGN, policy, initializer_range=0.4)
    torch.manual_seed(0)
    model = FlexiBertForSequenceClassification(config).eval()
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(9)[None] < torch.tensor(LENGTHS)[:, None]).long()
    data = [torch.randint(1, 40, (3, 9), generator=generator) for _ in range(batches)]
    return model, data, mask


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
