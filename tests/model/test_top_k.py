"""Top-k against its definition: sort each row, keep the first."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.configuration import FlexiBertConfig
from model.flexibert import FlexiBertForSequenceClassification
from model.top_k import TopK, keep_top_k, largest, top_k_mask

torch.set_num_threads(1)


def kept_by_sorting(row: np.ndarray, count: int) -> np.ndarray:
    """The first `count` of a stable sort from the largest magnitude on."""
    kept = np.zeros(len(row), dtype=bool)
    kept[np.argsort(-np.abs(row), kind="stable")[:count]] = True
    return kept


# Few different magnitudes, so that most rows have ties.
TIED = st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])


@given(arrays(np.float32, (4, 9), elements=TIED), st.lists(st.integers(0, 9), min_size=4))
def test_largest_is_a_stable_sort(values, counts):
    made = largest(torch.from_numpy(np.abs(values)), torch.tensor(counts[:4])).numpy()
    for row, count, marked in zip(values, counts, made, strict=False):
        np.testing.assert_array_equal(marked, kept_by_sorting(row, count))


@given(
    arrays(np.float32, (2, 3, 8), elements=TIED),
    arrays(bool, (2, 1, 8)),
    st.sampled_from([0.1, 0.25, 0.5, 0.9, 1.0]),
)
def test_rows_keep_their_share_of_real_entries(values, valid, density):
    mask = torch.from_numpy(valid)
    pruned = keep_top_k(torch.from_numpy(values), TopK(density, "row"), mask).numpy()
    for b in range(2):
        real = valid[b, 0]
        for i in range(3):
            row = values[b, i]
            count = round(density * real.sum())
            wanted = row.copy()
            wanted[real] = np.where(kept_by_sorting(row[real], count), row[real], 0)
            np.testing.assert_array_equal(pruned[b, i], wanted)


def test_a_tensor_keeps_its_share_over_all_rows():
    values = torch.tensor([[5.0, -4.0, 9.0], [1.0, 3.0, -2.0]])
    valid = torch.tensor([[True, True, False], [True, True, True]])
    pruned = keep_top_k(values, TopK(0.4, "tensor"), valid)  # 2 of 5; 9 is masked and stays
    assert pruned.tolist() == [[5, -4, 9], [0, 0, 0]]
    by_row = keep_top_k(values, TopK(0.4, "row"), valid)  # 0.8 and 1.2: one each
    assert by_row.tolist() == [[5, 0, 9], [0, 3, 0]]


def test_no_gradient_passes_what_was_not_kept():
    values = torch.tensor([0.5, -3.0, 1.0, 7.0], requires_grad=True)
    valid = torch.tensor([True, True, True, False])
    keep_top_k(values, TopK(1 / 3, "row"), valid).backward(torch.arange(1.0, 5.0))
    assert values.grad.tolist() == [0, 2, 0, 4]


def classifier(policy):
    design = {
        "layers": [{"hidden": 16, "heads": ["sa_sdp"] * 2, "feed_forward": [24]}] * 2,
        "vocabulary": 40,
        "max_positions": 12,
    }
    torch.manual_seed(0)
    config = FlexiBertConfig.of(design, policy, hidden_dropout=0.0, attention_dropout=0.0)
    return FlexiBertForSequenceClassification(config)


@pytest.mark.parametrize("per", ["row", "tensor"])
def test_it_stands_where_thresholds_stand_forward_and_backward(per):
    """Every place of the model is pruned by top-k, over real entries; none needs a table."""
    policy = {"selection": f"top_k_{per}", "activation_density": 0.5, "gradient_density": 0.25}
    model = classifier(policy)
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    seen = {}

    class Watcher:
        def start(self, valid_mask):
            return self

        def note_activation(self, before, after, layer, operation, valid_mask, *_):
            seen[layer, operation, 0] = (before.detach(), after.detach(), valid_mask, 0.5)

        def note_operand(self, *_):
            pass

        note_product = note_operand

        def gradient_note(self, layer, operation, valid_mask, *_):
            def note(before, after):
                seen[layer, operation, 1] = (before, after, valid_mask, 0.25)

            return note

    model.dynaprop.recorder = Watcher()
    ids = torch.arange(1, 17).reshape(2, 8)
    model(ids, mask, labels=torch.tensor([0, 1])).loss.backward()
    checked = 0
    for name, (before, after, valid, density) in seen.items():
        if name[1:] in (("score", 0), ("classifier", 0)):  # switched off, and not stored
            assert torch.equal(before, after)
            continue
        kept = top_k_mask(before, TopK(density, per), valid)
        assert torch.equal(after, before * kept), name
        checked += not torch.equal(before, after)
    assert checked > 20
