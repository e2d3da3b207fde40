"""Traces and recordings as files."""

import json

import numpy as np
import pytest

from model.recording import RecordedProduct, RecordedRows, Recording
from model.space import TransformerDesign
from model.trace import SparsityTrace

RECORD = {
    "layer": 0,
    "operation": "query",
    "role": "OUTPUT",
    "elements": 10,
    "nonzeros": 4,
    "zeros_before": 1,
    "mean": 0.4,
    "quantiles": [0.0] * 7,
}
TRACE = {
    "design_hash": TransformerDesign.load("bert-tiny").design_hash,
    "weights_hash": "0",
    "activation_threshold": 0.1,
    "gradient_threshold": 0.0,
    "task": "t",
    "split": "validation",
    "stage": "inference",
    "sequence_length": 8,
    "lengths": {"5": 2},
    "batch": 2,
    "records": [
        RECORD,
        {**RECORD, "head": 1, "nonzeros": 2},
        {**RECORD, "layer": None, "operation": "pooler"},
    ],
}


def test_density_and_totals():
    trace = SparsityTrace.load(TRACE)
    assert trace.density(0, "query", "OUTPUT") == 6 / 20
    assert trace.density(0, "query", "OUTPUT", head=1) == 2 / 10
    assert trace.density(None, "pooler", "OUTPUT") == 4 / 10
    assert trace.by_role() == {"OUTPUT": 10 / 30}
    assert trace.records[0].density == 0.4
    assert trace.records[0].pruned == pytest.approx(0.5)
    assert trace.lengths == {5: 2}
    with pytest.raises(ValueError, match="no record of key of layer 0 in the role OUTPUT"):
        trace.density(0, "key", "OUTPUT")


def test_refuses_another_model():
    trace = SparsityTrace.load(TRACE)
    trace.check(TransformerDesign.load("bert-tiny"))
    with pytest.raises(ValueError, match="the trace is of design"):
        trace.check(TransformerDesign.load("bert-mini"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"stagee": 1}, "unknown key 'stagee'.*did you mean stage"),
        ({"records": [{**RECORD, "nonzeros": 10}]}, "must be at most elements = 10, not 10 . 1"),
        ({"records": [{**RECORD, "mean": float("nan")}]}, "mean"),
        ({"records": [{**RECORD, "role": "INPT"}]}, "role"),
        ({"records": [{**RECORD, "quantiles": [0.5]}]}, "7 entries"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        SparsityTrace.load({**TRACE, **change})


def test_refuses_what_is_no_trace(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(TRACE)[:100])
    with pytest.raises(ValueError, match="not a sparsity trace in JSON"):
        SparsityTrace.load(path)
    path.write_text(json.dumps([TRACE]))
    with pytest.raises(ValueError, match=f"sparsity trace {path}: must be a mapping of .* list"):
        SparsityTrace.load(path)
    path.write_text(json.dumps({**TRACE, "schema_version": 2}))
    with pytest.raises(ValueError, match=f"sparsity trace {path}: schema_version: .* not 2"):
        SparsityTrace.load(path)
    with pytest.raises(FileNotFoundError):
        SparsityTrace.load(tmp_path / "absent.json")


def test_recording_saves_and_loads(tmp_path):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.integers(-9, 9, shape)

    recording = Recording(
        "a",
        "b",
        20,
        52,
        draw(2, 3) > 0,
        (
            RecordedProduct(
                0,
                "query",
                draw(2, 3, 4),
                draw(4, 5),
                draw(5),
                7,
                False,
                {"left": -3, "right": -4, "rounded": 0, "output": 0},
                2,
            ),
            RecordedProduct(
                None,
                "pooler",
                draw(2, 1, 4),
                draw(2, 4, 5),
                None,
                0,
                True,
                {"left": 1},
                0,
                draw(2, 1, 5) > 0,
            ),
        ),
        (
            RecordedRows(
                0, "attention_softmax", "softmax", draw(6, 3), draw(6, 3) > 0, {"rows": -9}, 4
            ),
        ),
        {"0.query": draw(2, 3, 5)},
    )
    recording.save(tmp_path / "recording.npz")
    loaded = Recording.load(tmp_path / "recording.npz")
    np.testing.assert_equal(loaded.valid_mask, recording.valid_mask)
    np.testing.assert_equal(dict(loaded.tensors), dict(recording.tensors))
    for mine, theirs in zip(
        (*loaded.products, *loaded.rows), (*recording.products, *recording.rows), strict=True
    ):
        for name in theirs.__dataclass_fields__:
            np.testing.assert_equal(getattr(mine, name), getattr(theirs, name))
    (tmp_path / "foreign.npz").write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="foreign.npz: not a recording"):
        Recording.load(tmp_path / "foreign.npz")
