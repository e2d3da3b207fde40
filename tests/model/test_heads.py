"""Every head operation against its formula in NumPy, forward and backward, with thresholds."""

import numpy as np
import pytest
import scipy.fft
import torch
from transformers import ConvBertConfig
from transformers.models.convbert.modeling_convbert import ConvBertSelfAttention

from model.dynaprop import DynaProp
from model.formats import HEAD_OPERATIONS
from model.heads import OPERATIONS, DynamicConvolution, Place, windows
from model.policy import PruningPolicy

torch.set_num_threads(1)

HEADS, SIZE, LENGTHS = 2, 4, (7, 5)
VALID = torch.arange(7)[None] < torch.tensor(LENGTHS)[:, None]


def make(operation, **policy):
    """Heads of one operation in float64, with random weights."""
    pruner = DynaProp(PruningPolicy.load(policy))
    module = OPERATIONS[operation](Place(operation, 0, (), HEADS, SIZE), 0.0, pruner).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.7, generator=generator)
    return module.eval()


def operands(operation, seed=0):
    """What the heads read: queries, keys and values, or values alone."""
    generator = torch.Generator().manual_seed(seed)
    count = 1 if operation.startswith("l_") else 3
    shape = (len(LENGTHS), HEADS, 7, SIZE)
    return [
        torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(count)
    ]


def cut(values, threshold):
    return np.where(np.abs(values) < threshold, 0, values)


def softmax(values):
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def softmax_backward(made, gradient):
    return made * (gradient - (gradient * made).sum(-1, keepdims=True))


def of_windows(kernel, values):
    """Σ_j kernel[i, j] · values[i + j − reach], position by position."""
    n, span = kernel.shape
    made = np.zeros_like(values)
    for i in range(n):
        for j in range(span):
            if 0 <= i + j - span // 2 < n:
                made[i] += kernel[i, j] * values[i + j - span // 2]
    return made


def depthwise(weight, values):
    """Σ_j weight[c, j] · values[i + j − reach, c]."""
    size, span = weight.shape
    padded = np.pad(values, ((span // 2, span // 2), (0, 0)))
    return np.stack(
        [np.correlate(padded[:, c], weight[c], mode="valid") for c in range(size)], axis=1
    )


def attention(q, k, v, gradient, tau_i, tau_t):
    """Context of scaled dot products, and the gradients of its operands."""
    raw = softmax(q @ k.T / np.sqrt(SIZE))
    p = cut(raw, tau_i)
    context = p @ v
    g = cut(gradient * (np.abs(context) >= tau_i), tau_t)
    ds = cut(softmax_backward(raw, (g @ v.T) * (raw >= tau_i)), tau_t)
    return cut(context, tau_i), (ds @ k / np.sqrt(SIZE), ds.T @ q / np.sqrt(SIZE), p.T @ g)


def weighted(weights, q, k, v, gradient, tau_i, tau_t):
    (w,) = weights.values()
    raw = q @ w.T
    context, (dqw, dk, dv) = attention(cut(raw, tau_i), k, v, gradient, tau_i, tau_t)
    dqw = cut(dqw * (np.abs(raw) >= tau_i), tau_t)
    return context, (dqw @ w, dk, dv), {"query_weighted.weight": dqw.T @ q}


def fourier(weights, v, gradient, tau_i, tau_t):
    """Re(F_n·V·F_d) by NumPy's FFT, the gradient by the same transform, its own transpose."""
    n = len(v)
    scale_d, scale_n = np.sqrt(SIZE), np.sqrt(n)
    f_d = np.fft.fft(np.eye(SIZE)) / scale_d
    f_n = np.fft.fft(np.eye(n)) / scale_n
    raw = np.fft.fft(v, axis=1) / scale_d  # its real part, and −1 times its imaginary part
    kept = cut(raw.real, tau_i) + 1j * cut(raw.imag, tau_i)
    context = (np.fft.fft(kept, axis=0) / scale_n).real
    g = cut(gradient * (np.abs(context) >= tau_i), tau_t)
    cosines = cut((f_n.real.T @ g) * (np.abs(raw.real) >= tau_i), tau_t)
    sines = cut((f_n.imag.T @ g) * (np.abs(raw.imag) >= tau_i), tau_t)
    return cut(context, tau_i), (cosines @ f_d.real.T - sines @ f_d.imag.T,), {}


def cosine(weights, v, gradient, tau_i, tau_t):
    raw = scipy.fft.dct(v, axis=1, norm="ortho")
    context = scipy.fft.dct(cut(raw, tau_i), axis=0, norm="ortho")
    g = cut(gradient * (np.abs(context) >= tau_i), tau_t)
    inner = scipy.fft.idct(g, axis=0, norm="ortho") * (np.abs(raw) >= tau_i)
    return cut(context, tau_i), (scipy.fft.idct(cut(inner, tau_t), axis=1, norm="ortho"),), {}


def convolution(weights, q, k, v, gradient, tau_i, tau_t):
    w_d, w_p, b_p, w_k, b_k = (
        weights[name]
        for name in (
            "key_depthwise.weight",
            "key_convolution.weight",
            "key_convolution.bias",
            "kernel_logits.weight",
            "kernel_logits.bias",
        )
    )
    raw_d = depthwise(w_d, k)
    d = cut(raw_d, tau_i)
    raw_p = d @ w_p.T + b_p
    p = cut(raw_p, tau_i)
    raw_m = q * p
    m = cut(raw_m, tau_i)
    kernel = softmax(m @ w_k.T + b_k)
    kept = cut(kernel, tau_i)
    context = of_windows(kept, v)

    n, span = kept.shape
    g = cut(gradient * (np.abs(context) >= tau_i), tau_t)
    dkernel, dv, dk = np.zeros_like(kept), np.zeros_like(v), np.zeros_like(k)
    dw_d = np.zeros_like(w_d)
    pairs = [
        (i, j, i + j - span // 2)
        for i in range(n)
        for j in range(span)
        if 0 <= i + j - span // 2 < n
    ]
    for i, j, s in pairs:
        dkernel[i, j] = g[i] @ v[s]
        dv[s] += kept[i, j] * g[i]
    dl = cut(softmax_backward(kernel, dkernel * (kernel >= tau_i)), tau_t)
    dm = (dl @ w_k) * (np.abs(raw_m) >= tau_i)
    dp = cut(dm * q * (np.abs(raw_p) >= tau_i), tau_t)
    dd = cut((dp @ w_p) * (np.abs(raw_d) >= tau_i), tau_t)
    for i, j, s in pairs:
        dk[s] += dd[i] * w_d[:, j]
        dw_d[:, j] += dd[i] * k[s]
    found = {
        "key_depthwise.weight": dw_d,
        "key_convolution.weight": dp.T @ d,
        "key_convolution.bias": dp.sum(0),
        "kernel_logits.weight": dl.T @ m,
        "kernel_logits.bias": dl.sum(0),
    }
    return cut(context, tau_i), (dm * p, dk, dv), found


REFERENCES = {
    "sa_sdp": lambda weights, *rest: (*attention(*rest), {}),
    "sa_wma": weighted,
    "l_dft": fourier,
    "l_dct": cosine,
    "c_5": convolution,
    "c_9": convolution,
    "c_13": convolution,
}


def test_every_operation_has_a_module_and_a_reference():
    assert tuple(OPERATIONS) == tuple(REFERENCES) == HEAD_OPERATIONS


@pytest.mark.parametrize("operation", HEAD_OPERATIONS)
@pytest.mark.parametrize(("tau_i", "tau_t"), [(0.0, 0.0), (0.15, 0.2)])
def test_equals_its_formula_forward_and_backward(operation, tau_i, tau_t):
    module = make(operation, activation_threshold=tau_i, gradient_threshold=tau_t)
    inputs = operands(operation)
    generator = torch.Generator().manual_seed(9)
    entering = torch.randn(inputs[0].shape, dtype=torch.float64, generator=generator)
    made = module(*inputs, VALID)
    made.backward(entering * VALID[:, None, :, None])

    gradients = {name: np.zeros(p.shape) for name, p in module.named_parameters()}
    zeros = 0
    for b, n in enumerate(LENGTHS):
        for h in range(HEADS):
            own = {name: p.detach().numpy()[h] for name, p in module.named_parameters()}
            read = [x.detach().numpy()[b, h, :n] for x in inputs]
            context, into, weights = REFERENCES[operation](
                own, *read, entering.numpy()[b, h, :n], tau_i, tau_t
            )
            np.testing.assert_allclose(made.detach().numpy()[b, h, :n], context, atol=1e-12)
            zeros += (context == 0).sum()
            for x, gradient in zip(inputs, into, strict=True):
                np.testing.assert_allclose(x.grad.numpy()[b, h, :n], gradient, atol=1e-12)
            for name, gradient in weights.items():
                gradients[name][h] += gradient
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), gradients[name], atol=1e-12)
        assert np.abs(gradients[name]).max() > 0.1
    for x in inputs:
        assert not x.grad[~VALID[:, None, :].expand(-1, HEADS, -1)].any()
    assert (zeros > 0) == (tau_i > 0)
    if tau_t:  # τ_T matters to every operand
        dense = operands(operation)
        unpruned = make(operation, activation_threshold=tau_i)(*dense, VALID)
        unpruned.backward(entering * VALID[:, None, :, None])
        assert not any(torch.allclose(x.grad, y.grad) for x, y in zip(inputs, dense, strict=True))


@pytest.mark.parametrize("operation", HEAD_OPERATIONS)
def test_gradcheck(operation):
    """Away from thresholds the gradient is the true one, of operands and of weights."""
    module = make(operation, activation_threshold=0.02)
    names = [name for name, _ in module.named_parameters()]
    inputs = operands(operation)

    def run(*tensors):
        weights = dict(zip(names, tensors[len(inputs) :], strict=True))
        made = torch.func.functional_call(module, weights, (*tensors[: len(inputs)], VALID))
        return made.transpose(1, 2)[VALID]

    weights = [parameter.detach().requires_grad_() for parameter in module.parameters()]
    assert torch.autograd.gradcheck(run, (*inputs, *weights), eps=1e-8, atol=1e-5)


@pytest.mark.parametrize("operation", HEAD_OPERATIONS)
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_nothing(operation, side):
    module = make(operation, activation_threshold=0.1)
    inputs = operands(operation)
    before, after = (0, 4) if side == "right" else (4, 0)
    padded = [torch.nn.functional.pad(x.detach(), (0, 0, before, after), value=3.0) for x in inputs]
    wide = torch.nn.functional.pad(VALID, (before, after))
    with torch.no_grad():
        short = module(*inputs, VALID).transpose(1, 2)[VALID]
        long = module(*padded, wide).transpose(1, 2)[wide]
    torch.testing.assert_close(short, long, rtol=0, atol=1e-12)


@pytest.mark.parametrize("operation", ["l_dft", "l_dct"])
def test_transforms_keep_a_vectors_length_in_any_type(operation):
    """The cosine transform keeps it exactly; Fourier's real part and what is dropped make it up."""
    module = make(operation)
    (value,) = operands(operation)
    made = module(value, VALID).detach() * VALID[:, None, :, None]
    kept = value.detach() * VALID[:, None, :, None]
    share = (made.square().sum((2, 3)) / kept.square().sum((2, 3))).numpy()
    if operation == "l_dct":
        np.testing.assert_allclose(share, 1, atol=1e-12)
    else:
        assert (share > 0.2).all() and (share < 1).all()
    for dtype, tolerance in ((torch.float32, 5e-6), (torch.bfloat16, 0.05)):
        rough = module.to(dtype)(value.detach().to(dtype), VALID)
        assert rough.dtype == dtype
        difference = (rough.double() - module.double()(value.detach(), VALID)).abs()
        assert difference[VALID[:, None].expand(-1, HEADS, -1)].max() < tolerance


def test_weighted_heads_begin_as_scaled_dot_products():
    ours, theirs = make("sa_wma"), make("sa_sdp")
    inputs = operands("sa_wma")
    assert not torch.allclose(ours(*inputs, VALID), theirs(*inputs, VALID))
    with torch.no_grad():
        ours.query_weighted.weight.copy_(torch.eye(SIZE).expand(HEADS, SIZE, SIZE))
    torch.testing.assert_close(ours(*inputs, VALID), theirs(*inputs, VALID))


def test_windows_are_a_view_of_the_neighbours():
    values = torch.arange(1.0, 6.0).reshape(1, 1, 5, 1)
    made = windows(values, 3)[0, 0, :, 0]
    assert made.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 0]]


@pytest.mark.parametrize("span", [5, 9, 13])
def test_convolution_is_convberts(span):
    """One head as wide as the layer, whose key is the hidden state, is ConvBERT's own branch."""
    width = 6
    config = ConvBertConfig(
        hidden_size=width, num_attention_heads=1, head_ratio=1, conv_kernel_size=span,
        attn_implementation="eager", initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(2)
    theirs = ConvBertSelfAttention(config).double().eval()
    torch.nn.init.normal_(theirs.key_conv_attn_layer.bias)
    place = Place(f"c_{span}", 0, (), 1, width)
    ours = DynamicConvolution(place, 0.0, DynaProp(PruningPolicy())).double()
    half = width // 2  # ConvBERT gives its branch half of the layer's width
    hidden = torch.randn((2, 8, width), dtype=torch.float64)
    separable = theirs.key_conv_attn_layer
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
        ours.key_depthwise.weight[0].copy_(separable.depthwise.weight[:, 0])
        ours.key_convolution.weight[0, :half].copy_(separable.pointwise.weight[:, :, 0])
        ours.key_convolution.bias[0, :half].copy_(separable.bias[:, 0])
        ours.kernel_logits.weight[0, :, :half].copy_(theirs.conv_kernel_layer.weight)
        ours.kernel_logits.bias[0].copy_(theirs.conv_kernel_layer.bias)
        query, value = (
            torch.nn.functional.pad(module(hidden), (0, half))[:, None]
            for module in (theirs.query, theirs.conv_out_layer)
        )
        made = ours(query, hidden[:, None], value, torch.ones((2, 8), dtype=torch.bool))
        expected = theirs(hidden)[0][..., half:]
    assert expected.std() > 0.1
    torch.testing.assert_close(made[:, 0, :, :half], expected)


def test_fourier_is_fnets_but_for_its_scale():
    """FNet's mixing is the real part of an unscaled FFT over the sequence and the width."""
    from transformers import FNetConfig
    from transformers.models.fnet.modeling_fnet import FNetBasicFourierTransform

    hidden = torch.randn((2, 7, SIZE), dtype=torch.float64)
    theirs = FNetBasicFourierTransform(FNetConfig(hidden_size=SIZE))(hidden)[0]
    ours = make("l_dft")(hidden[:, None], torch.ones((2, 7), dtype=torch.bool))[:, 0]
    torch.testing.assert_close(ours, theirs / (7 * SIZE) ** 0.5)
