"""Fused attention against FlexiBERT's own, forward and backward.

Without a GPU they run in Triton's interpreter: TRITON_INTERPRET=1, where triton is installed.
"""

import os
from functools import partial

import pytest
import torch
from test_dynaprop import small_layer

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()), reason="needs a GPU, or TRITON_INTERPRET=1"
    ),
]


def operands(length, size, heads=2):
    generator = torch.Generator().manual_seed(3)
    shape = (3, heads, length, size)
    drawn = [torch.randn(shape, generator=generator).to(DEVICE) for _ in range(4)]
    valid = torch.ones((3, length), dtype=torch.bool)
    valid[1, length // 2 :] = False
    valid[2] = False
    return drawn, valid.to(DEVICE)


@pytest.mark.parametrize("threshold", [0.0, 0.03])
@pytest.mark.parametrize("length, size", [(7, 3), (16, 16), (33, 20), (128, 64)])
def test_like_the_layer(length, size, threshold):
    from model.attention_triton import attention

    policy = {"activation_threshold": threshold, "gradient_threshold": threshold}
    layer = small_layer(policy, hidden=2 * size).float().to(DEVICE)
    (*tensors, entering), valid = operands(length, size)
    results = []
    for mix in (layer.mix, partial(attention, pruner=layer.pruner, layer=0)):
        leaves = [item.clone().requires_grad_() for item in tensors]
        context = mix(*leaves, valid)
        context.backward(entering)
        results.append([context.detach(), *(item.grad for item in leaves)])
    expected, got = results
    if threshold:
        assert 0 < (expected[0][0] == 0).float().mean() < 0.9
    for one, other in zip(expected, got, strict=True):
        # A number within rounding of a threshold may fall on its other side.
        close = torch.isclose(one, other, rtol=1e-4, atol=1e-5)
        assert close.float().mean() > (0.98 if threshold else 0.99999)
        assert (one - other).norm() <= (5e-3 if threshold else 1e-5) * one.norm()


def test_what_is_refused():
    from model.attention_triton import attention

    layer = small_layer({"activation_threshold": 0.1, "activations_off": []})
    (*tensors, _), valid = operands(8, 4)
    with pytest.raises(ValueError, match="put score into activations_off"):
        attention(*tensors, valid, layer.pruner, 0)
    (*tensors, _), valid = operands(129, 4)
    with pytest.raises(ValueError, match="at most 128 long, not 129"):
        attention(*tensors, valid, layer.pruner, 0)
