"""The kernels that pack on a GPU give what the CPU packs.

Without a GPU they run in Triton's interpreter: TRITON_INTERPRET=1, where triton is installed.
"""

import os

import pytest
import torch
from test_compression import Keep, identical

from model.compression import BITS_TYPES, SavedTensorCompression

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (INTERPRETED or torch.cuda.is_available()), reason="needs a GPU, or TRITON_INTERPRET=1"
    ),
]
needs_gpu = pytest.mark.skipif(INTERPRETED, reason="needs a GPU")


def numbers(elements, dtype, share, seed=0):
    """Random bits, some numbers zero, with a negative zero and a NaN."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.empty((), dtype=dtype).itemsize
    bits = torch.randint(-128, 128, (elements, size), dtype=torch.int8, generator=generator)
    bits[torch.rand(elements, generator=generator) < share] = 0
    values = bits.flatten().view(dtype)
    values[-2:] = torch.tensor([-0.0, torch.nan]).to(dtype)[-min(2, elements) :]
    return values.to(DEVICE)


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("elements", [1, 31, 33, 4096, 4097, 20000])
def test_kernels(elements, share, dtype):
    from model.compression_triton import BLOCK, WORD, find, gather

    values = numbers(elements, dtype, share)
    bits = values.view(BITS_TYPES[values.itemsize])
    mask, offsets = find(bits)
    blocks = -(-elements // BLOCK)
    assert len(offsets) == blocks + 1 and len(mask) == blocks * BLOCK // WORD
    nonzero = (bits != 0).cpu()
    for block in range(blocks + 1):
        assert offsets[block] == nonzero[: block * BLOCK].sum()
    read = (mask.cpu()[:, None] >> torch.arange(WORD)) & 1
    assert torch.equal(read.flatten()[:elements].bool(), nonzero)
    packed = gather(bits, mask, offsets, int(offsets[-1]))
    assert torch.equal(packed.kept, bits[bits != 0])
    assert torch.equal(packed.expand(), bits)
    assert packed.nbytes == 4 * len(mask) + 8 * len(offsets) + packed.kept.nbytes


@needs_gpu
@pytest.mark.parametrize("waiting_bytes", [0, 2**30])
def test_context(waiting_bytes):
    saved = [numbers(50_000, torch.bfloat16, share, seed) for seed, share in enumerate((0, 0.5, 1))]
    returned = []
    anchor = torch.zeros((), requires_grad=True, device=DEVICE)
    with SavedTensorCompression(waiting_bytes=waiting_bytes) as context:
        out = Keep.apply(anchor, returned, *saved, saved[1].view(100, 500).T)
    report = context.report
    assert (report.tensors, report.shared, report.packed) == (4, 1, 2)
    assert report.synchronisations == (1 if waiting_bytes else 3)
    assert report.stored_bytes < 0.6 * report.dense_bytes
    out.backward()
    assert all(map(identical, [*saved, saved[1].view(100, 500).T], returned))


@needs_gpu
def test_a_change_before_the_gathering():
    values = numbers(50_000, torch.bfloat16, 0.9).requires_grad_()
    with SavedTensorCompression():
        out = values.exp()
        out.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        out.sum().backward()


@needs_gpu
def test_what_the_backward_pass_has_used_is_not_gathered():
    values = numbers(50_000, torch.bfloat16, 0.9).requires_grad_()
    with SavedTensorCompression() as context:
        (values**2).sum().backward()
    assert (context.report.packed, context.report.synchronisations) == (0, 0)
    torch.testing.assert_close(values.grad, 2 * values.detach(), equal_nan=True)
