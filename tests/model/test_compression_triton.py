"""The kernels that pack on a GPU give what the CPU packs."""

import itertools

import pytest
import torch
from test_compression import Keep, identical
from triton_device import DEVICE, MARKS, needs_gpu

from model.compression import BITS_TYPES, SavedTensorCompression, Stretch

pytestmark = MARKS


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
@pytest.mark.parametrize("aligned", [True, False])
def test_group(dtype, aligned):
    from model.compression_triton import BLOCK, WORD, Group

    counts = (1, 31, 33, BLOCK, BLOCK + 1, 20 * BLOCK + 7)
    whole = [
        numbers(elements + (not aligned), dtype, share, seed)
        for seed, (elements, share) in enumerate(itertools.product(counts, (0.0, 0.5, 0.99)))
    ]
    whole += [torch.zeros(5000, dtype=dtype, device=DEVICE)]
    bits = [item[not aligned :].view(BITS_TYPES[item.itemsize]) for item in whole]
    stretches = [Stretch(item) for item in bits]
    group = Group(stretches, bits)
    assert group.aligned == aligned
    nonzero = [(item != 0).cpu() for item in bits]
    blocks = [part for item in nonzero for part in item.split(BLOCK)]
    assert group.offsets.tolist() == [0, *itertools.accumulate(int(part.sum()) for part in blocks)]
    read = (group.mask.cpu().view(-1, BLOCK // WORD, 1) >> torch.arange(WORD)) & 1
    for found, part in zip(read.flatten(1), blocks, strict=True):
        assert torch.equal(found[: len(part)].bool(), part) and not found[len(part) :].any()
    originals = [item.clone() for item in bits]
    made = group.gather()
    assert len(made) > 3
    packed = dict(made)
    for index, (stretch, item) in enumerate(zip(stretches, bits, strict=True)):
        kept = item[item != 0]
        size = group.blocks[index] * (BLOCK // 8 + 12) + kept.nbytes
        assert (stretch in packed) == (size < item.nbytes)
        if stretch in packed:
            assert torch.equal(packed[stretch].kept, kept) and packed[stretch].nbytes == size
            stretch.values, stretch.packed = None, packed[stretch]
    first = made[0][0]
    first.packed.bring_back(first)
    for stretch, original in zip(stretches, originals, strict=True):
        assert stretch.packed is None and torch.equal(stretch.values, original)


def test_a_group_leaves_what_has_gone_or_changed():
    from model.compression_triton import Group

    bits = [numbers(5000, torch.bfloat16, 0.9, seed).view(torch.int16) for seed in range(4)]
    stretches = [Stretch(item) for item in bits]
    group = Group(stretches, bits)
    bits[1].add_(1)
    gone = stretches.pop(0)
    del gone
    made = group.gather()
    assert [stretch for stretch, _ in made] == stretches[1:]
    for stretch, part in made:
        stretch.values, stretch.packed = None, part
    del stretch, part
    del made[0], stretches[1]
    (kept,) = [stretch for stretch, _ in made]
    kept.packed.bring_back(kept)
    assert torch.equal(kept.values, bits[3])


@needs_gpu
@pytest.mark.parametrize("waiting_bytes", [0, 2**29])
def test_context(waiting_bytes):
    saved = [numbers(50_000, torch.bfloat16, share, seed) for seed, share in enumerate((0, 0.5, 1))]
    returned = []
    anchor = torch.zeros((), requires_grad=True, device=DEVICE)
    with SavedTensorCompression(waiting_bytes=waiting_bytes) as context:
        out = Keep.apply(anchor, returned, *saved, saved[1].view(100, 500).T)
    report = context.report
    assert (report.tensors, report.shared, report.packed) == (4, 1, 2)
    assert report.synchronisations == (1 if waiting_bytes else 3)
    assert waiting_bytes == 0 or report.packed_bytes < 0.35 * report.packed_dense_bytes
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
