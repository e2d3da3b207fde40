"""What autograd saves comes back bit for bit, and takes the memory that it should."""

import gc
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import batch, make_model
from torch import nn

from model.compression import BITS_TYPES, SavedTensorCompression, pack

torch.set_num_threads(1)

TYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.float8_e4m3fn)


class Keep(torch.autograd.Function):
    """Saves tensors, and gives them back in the backward pass."""

    @staticmethod
    def forward(ctx, anchor, returned, *tensors):
        ctx.returned = returned
        ctx.save_for_backward(*tensors)
        return anchor.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.returned.extend(ctx.saved_tensors)
        return gradient, None, *[None] * len(ctx.saved_tensors)


def keep(*tensors, **options):
    """Save tensors compressed; those that come back, and the report."""
    returned = []
    with SavedTensorCompression(**{"minimum_elements": 1, **options}) as saved:
        out = Keep.apply(torch.zeros((), requires_grad=True), returned, *tensors)
    out.backward()
    return returned, saved.report


def identical(one, two):
    """Equal in type, size, strides and every bit."""
    bits = BITS_TYPES[one.itemsize]
    return (
        (one.dtype, one.shape, one.stride()) == (two.dtype, two.shape, two.stride())
        and one.device == two.device
        and torch.equal(one.contiguous().view(bits), two.contiguous().view(bits))
    )


@st.composite
def tensors(draw):
    """Any bits, many of them zero, in any order of dimensions."""
    dtype = draw(st.sampled_from(TYPES))
    shape = draw(st.lists(st.integers(0, 9), min_size=0, max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    count = math.prod(shape)
    size = torch.empty((), dtype=dtype).itemsize
    whole = torch.randint(-128, 128, (count, size), dtype=torch.int8, generator=generator)
    zero = torch.rand(count, generator=generator) < draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
    values = whole.masked_fill(zero[:, None], 0).flatten().view(dtype).reshape(shape)
    special = torch.tensor([-0.0, torch.nan, torch.inf, -torch.inf], dtype=torch.float32)
    if count >= 4 and draw(st.booleans()):
        values.view(-1)[:4] = special.to(dtype)
    return values.permute(draw(st.permutations(range(len(shape)))))


@given(st.lists(tensors(), min_size=1, max_size=3))
@settings(max_examples=200)
def test_every_bit_comes_back(saved):
    returned, report = keep(*saved)
    assert all(map(identical, saved, returned))
    assert report.stored_bytes <= report.dense_bytes == sum(item.nbytes for item in saved)


@given(tensors().filter(lambda values: values.ndim > 0), st.data())
def test_views_come_back(values, data):
    # Slices with gaps, and expanded tensors, whose elements overlap.
    step = data.draw(st.integers(1, 3))
    views = (values[::step], values[..., 1:], values[..., None].expand(*values.shape, 3))
    returned, _ = keep(*views)
    assert all(map(identical, views, returned))


@given(st.integers(1, 200), st.sampled_from(TYPES), st.data())
def test_bytes_and_break_even(elements, dtype, data):
    kept = data.draw(st.integers(0, elements))
    values = torch.zeros(elements)
    values[torch.randperm(elements, generator=torch.Generator().manual_seed(1))[:kept]] = -1.5
    values = values.to(dtype)
    packed = pack(values.view(BITS_TYPES[values.itemsize]))
    expected = (elements + 7) // 8 + kept * values.itemsize
    if expected < values.nbytes:
        assert packed.nbytes == expected
    else:
        assert packed is None
    _, report = keep(values)
    assert report.packed == (packed is not None)
    assert report.stored_bytes == min(expected, values.nbytes)


def test_floor_of_bfloat16():
    values = torch.tensor([0.0, 1.0]).bfloat16().repeat(4096)
    _, report = keep(values)
    assert report.packed_bytes == report.stored_bytes == 0.5625 * values.nbytes
    assert report.packed_dense_bytes == report.dense_bytes == values.nbytes


def test_a_negative_zero_is_kept_and_costs():
    zeros = torch.zeros(64)
    zeros[5] = -0.0
    (returned,), report = keep(zeros)
    assert returned.signbit().nonzero().tolist() == [[5]]
    assert report.stored_bytes == 64 // 8 + 4


def test_what_is_stored_as_it_is():
    zeros = torch.zeros(64)
    for values in (zeros.int(), zeros.bool(), zeros.cfloat(), torch.zeros(128)[::2]):
        (returned,), report = keep(values)
        assert returned.data_ptr() == values.data_ptr()
        assert report.packed == 0 and report.stored_bytes == report.dense_bytes
    assert keep(zeros, minimum_elements=65)[1].packed == 0
    assert keep(zeros, minimum_elements=64)[1].packed == 1


def test_saved_twice_packed_once():
    values = torch.zeros(8, 16)
    shapes = (values, values.flatten(), values.T, values.view(2, 4, 16).transpose(0, 1))
    returned, report = keep(*shapes, values[:4], values.clone())
    assert all(map(identical, (*shapes, values[:4], values), returned))
    assert (report.tensors, report.shared, report.packed) == (6, 3, 3)
    assert report.dense_bytes == 2.5 * values.nbytes


def test_changed_between_two_savings():
    values = torch.zeros(64)
    returned = []
    anchor = torch.zeros((), requires_grad=True)
    with SavedTensorCompression(minimum_elements=1) as saved:
        first = Keep.apply(anchor, returned, values)
        values[3] = 1
        second = Keep.apply(anchor, returned, values)
    assert saved.report.shared == 0
    first.backward()
    second.backward()
    assert [item.sum() for item in returned] == [0, 1]


def test_memory_that_is_used_again_is_not_shared():
    # The first tensor's memory is free when the second is saved, probably at the same address.
    returned, outs = [], []
    anchor = torch.zeros((), requires_grad=True)
    with SavedTensorCompression(minimum_elements=1) as saved:
        for number in range(20):
            values = torch.zeros(4096)
            values[number] = 1
            outs.append(Keep.apply(anchor, returned, values))
            del values
    assert saved.report.shared == 0
    sum(outs).backward()
    assert sorted(int(item.argmax()) for item in returned) == list(range(20))


def test_a_change_in_place_is_refused_where_values_are_stored_as_they_are():
    values = torch.ones(64, requires_grad=True)
    with SavedTensorCompression(minimum_elements=1):
        out = values.exp()
        out.mul_(2)
    with pytest.raises(RuntimeError, match=r"float32, \[64\], was changed in place"):
        out.sum().backward()


def test_a_parameter_is_left_alone():
    layer = nn.Linear(32, 32)
    nn.init.zeros_(layer.weight)
    values = torch.zeros(8, 32, requires_grad=True)
    with SavedTensorCompression(layer.parameters(), minimum_elements=1) as saved:
        out = layer(values)
    assert (saved.report.tensors, saved.report.packed) == (1, 1)
    assert saved.report.dense_bytes == values.nbytes
    with SavedTensorCompression(minimum_elements=1) as without:
        layer(values)
    assert without.report.dense_bytes == values.nbytes + layer.weight.nbytes
    with torch.no_grad():
        layer.weight.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        out.sum().backward()


def test_backward_inside_and_twice():
    values = torch.randn(64, 64).relu().requires_grad_()
    with SavedTensorCompression(minimum_elements=1):
        out = (values.relu() ** 3).sum()
        out.backward(retain_graph=True)
    first = values.grad.clone()
    out.backward()
    torch.testing.assert_close(values.grad, 2 * first, rtol=0, atol=0)
    torch.testing.assert_close(first, 3 * values.detach() ** 2)


def test_memory_is_given_back():
    layer = nn.Linear(16, 16)
    context = SavedTensorCompression(layer.parameters(), minimum_elements=1)
    with context:
        out = layer(torch.zeros(64, 16))
        assert len(context._stretches) == 1
        del out
        gc.collect()
        assert len(context._stretches) == 0


def test_an_exception_ends_the_context():
    context = SavedTensorCompression(minimum_elements=1)
    with pytest.raises(KeyError), context:
        raise KeyError
    torch.zeros(64, requires_grad=True).exp()
    assert context.report.tensors == 0
    with context, pytest.raises(RuntimeError, match="entered already"):
        context.__enter__()


@pytest.mark.parametrize("option", [{"minimum_elements": 0}, {"waiting_bytes": -1}])
def test_options_are_checked(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name} must be at least .* not {value}"):
        SavedTensorCompression(**option)


def test_a_model_trains_the_same_on_less_memory():
    inputs = batch(0, 8) | {"labels": torch.arange(8) % 2}
    gradients = {}
    for compressed in (False, True):
        model = make_model(0.5, gradient_threshold=1e-5)
        if compressed:
            with SavedTensorCompression(model.parameters(), minimum_elements=64) as saved:
                loss = model(**inputs).loss
        else:
            loss = model(**inputs).loss
        loss.backward()
        gradients[compressed] = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients[True]
    assert all(map(torch.equal, gradients[False], gradients[True]))
    report = saved.report
    assert report.shared > 0 and report.packed > 10 and report.synchronisations == 0
    assert report.packed_bytes < 0.8 * report.packed_dense_bytes
    difference = report.packed_dense_bytes - report.packed_bytes
    assert report.stored_bytes == report.dense_bytes - difference
