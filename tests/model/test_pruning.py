"""Pruning of one tensor against its definition."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.pruning import prune


@given(arrays(np.float32, 20, elements=st.floats(-2, 2, width=32)), st.floats(0, 1, width=32))
def test_prune_is_its_definition(values, threshold):
    pruned = prune(torch.from_numpy(values), threshold).numpy()
    np.testing.assert_array_equal(pruned, np.where(np.abs(values) < threshold, 0, values))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.1, 0.7, 0.25, 1e-3])
def test_what_equals_the_threshold_stays(dtype, threshold):
    at = torch.tensor(threshold, dtype=dtype)
    inside = torch.nextafter(at, torch.zeros((), dtype=dtype))
    values = torch.stack([at, -at, inside, -inside])
    assert prune(values, threshold).tolist() == [at.item(), -at.item(), 0, 0]


def test_gradient_passes_only_what_was_kept():
    values = torch.tensor([0.5, -0.5, 0.4, -0.6, 0.0, 0.3], requires_grad=True)
    valid = torch.tensor([True, True, True, True, True, False])
    out = prune(values, 0.5, valid)
    assert out.tolist() == pytest.approx([0.5, -0.5, 0, -0.6, 0, 0.3])
    out.backward(torch.arange(1.0, 7.0))
    assert values.grad.tolist() == [1, 2, 0, 4, 0, 6]
