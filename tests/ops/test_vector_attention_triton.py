"""Kernels of vector attention in Triton's interpreter, against the sum tap by tap in float64."""

import copy
import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.layers import PairwiseAttention2d, PatchwiseAttention2d
from hybrid_mm.ops.vector_attention import Window, product, tiled, triton
from hybrid_mm.ops.vector_attention import activated_product as plain_product
from hybrid_mm.ops.vector_attention.product import activated_product

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAYOUTS = 'contiguous', 'channels_last', 'tokens', 'view'


def laid_out(x, layout):
    """The same numbers with other strides."""
    if layout == 'channels_last':
        return x.contiguous(memory_format=torch.channels_last)
    if layout == 'tokens':  # (N, H, W, 2, C), as a projection to keys and values has them
        n, c, h, w = x.shape
        tokens = x.new_zeros(n, h, w, 2, c)
        tokens[..., 1, :] = x.permute(0, 2, 3, 1)
        return tokens[..., 1, :].permute(0, 3, 1, 2)
    if layout == 'view':
        padded = x.new_zeros(x.shape[0], x.shape[1] + 1, x.shape[2] + 3, x.shape[3] * 2)
        view = padded[:, 1:, 2:-1, ::2]
        view.copy_(x)
        return view
    return x.contiguous()


def with_gradients(function, inputs, cotangent, *arguments):
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, *arguments)
    return out, *torch.autograd.grad(out, inputs, cotangent.to(out.dtype))


def check(n, groups, share, size, window, dtype, layout):
    kernel, stride, dilation = window
    torch.manual_seed(0)
    reach = dilation * (kernel - 1)
    padded = [(s - 1) * stride + 1 + reach + extra for s, extra in zip(size, (1, 0), strict=True)]
    weights = torch.randn(n, groups, kernel**2, *size).to(dtype)
    values = laid_out(torch.randn(n, groups * share, *padded).to(dtype), layout)
    cotangent = laid_out(torch.randn(n, groups * share, *size).to(dtype), layout)
    if layout == 'view':
        weights = weights.transpose(1, 2).contiguous().transpose(1, 2)
    found = with_gradients(triton.aggregate_taps, (weights, values), cotangent, *window)
    exact = (x.double() for x in (weights, values))
    expected = with_gradients(tiled.aggregate_taps, exact, cotangent, *window)
    for name, a, b in zip(('out', 'weights', 'values'), found, expected, strict=True):
        assert a.dtype == dtype
        error = (a.double() - b).abs().max() / b.abs().max()
        assert error < TOLERANCE[dtype], f'{name}: {error:.1e}'


@pytest.mark.parametrize(
    ('n', 'groups', 'share', 'size', 'window', 'dtype', 'layout'),
    [
        (2, 2, 3, (5, 7), (3, 1, 1), torch.float32, 'contiguous'),
        (1, 3, 4, (4, 3), (5, 2, 1), torch.float32, 'channels_last'),
        (1, 1, 1, (1, 2), (3, 2, 3), torch.float32, 'view'),
        (2, 3, 2, (3, 5), (3, 1, 2), torch.float32, 'tokens'),
        (1, 33, 1, (2, 2), (1, 1, 1), torch.float32, 'channels_last'),
        (1, 2, 8, (11, 13), (3, 1, 1), torch.float16, 'contiguous'),
        (1, 2, 2, (3, 4), (3, 2, 1), torch.bfloat16, 'channels_last'),
    ],
)
def test_aggregation(interpreter, n, groups, share, size, window, dtype, layout):
    check(n, groups, share, size, window, dtype, layout)


def drawn(seed):
    draw = random.Random(seed)
    window = draw.choice((1, 3, 5)), draw.choice((1, 2, 3)), draw.choice((1, 2))
    size = draw.randint(1, 9), draw.randint(1, 9)
    dtype = draw.choice(list(TOLERANCE))
    channels = draw.randint(1, 5), draw.randint(1, 5)
    check(draw.randint(1, 2), *channels, size, window, dtype, draw.choice(LAYOUTS))


@pytest.mark.parametrize('seed', range(4))
def test_drawn_cases(interpreter, seed):
    drawn(seed)


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(4, 100))
def test_more_drawn_cases(interpreter, seed):
    drawn(seed)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_fake_results_have_the_strides_of_real_ones(interpreter, layout, opcheck):
    weights = torch.randn(2, 2, 9, 3, 4).requires_grad_()
    values = laid_out(torch.randn(2, 6, 5, 6), layout).requires_grad_()
    checks = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    for operator in (triton.aggregate_taps, tiled.aggregate_taps):
        opcheck(operator, (weights, values, 3, 1, 1), test_utils=checks)
        out = operator(weights, values, 3, 1, 1)
        grads = torch.autograd.grad(out, (weights, values), torch.ones_like(out))
        with FakeTensorMode() as mode:
            fake = [mode.from_tensor(x) for x in (weights, values)]
            fake_out = operator(*fake, 3, 1, 1)
            fake_grads = torch.autograd.grad(fake_out, fake, torch.ones_like(fake_out))
        for a, b in zip((out, *grads), (fake_out, *fake_grads), strict=True):
            assert a.stride() == b.stride()


@pytest.mark.parametrize('impl', ['tiled', 'triton'])
def test_compiles_with_channels_last_values(interpreter, impl):
    """Memory that is laid out otherwise than a graph expects is an error there."""
    operator = dict(tiled=tiled, triton=triton)[impl].aggregate_taps
    weights = torch.randn(1, 2, 9, 4, 5)
    values = laid_out(torch.randn(1, 4, 6, 7), 'channels_last')

    def function(weights, values):
        return operator(weights * 2, values + 1, 3, 1, 1) * 2

    cotangent = torch.randn(1, 4, 4, 5)
    found = with_gradients(
        torch.compile(function, fullgraph=True, backend='aot_eager'), (weights, values), cotangent
    )
    expected = with_gradients(function, (weights, values), cotangent)
    torch.testing.assert_close(found, expected)


def test_where_kernels_fail_the_rest_does_not(monkeypatch, interpreter):
    monkeypatch.setattr(triton, 'launched', lambda operator, run, otherwise: otherwise())
    check(1, 2, 3, (3, 4), (3, 1, 1), torch.float32, 'channels_last')
    monkeypatch.setattr(product, 'launched', lambda operator, run, otherwise: otherwise())
    check_product(2, 5, 3, 2, 4, torch.float32, True)


def check_product(n, channels, outputs, taps, count, dtype, bias):
    torch.manual_seed(0)
    x = torch.randn(n, channels, taps, count).to(dtype)
    scale, shift = torch.randn(2, channels)
    inputs = [x, scale, shift, torch.randn(outputs, channels, 1, 1)]
    inputs += [torch.randn(outputs)] if bias else []
    cotangent = torch.randn(n, outputs, taps, count).to(dtype)
    found = with_gradients(activated_product, inputs, cotangent)
    exact = [x.double() for x in inputs]
    expected = with_gradients(plain_product, exact, cotangent)
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.dtype == (dtype if i < 2 else torch.float32)
        error = (a.double() - b).abs().max() / b.abs().max()
        assert error < 2 * TOLERANCE[dtype], f'{i}: {error:.1e}'


@pytest.mark.parametrize(
    ('n', 'channels', 'outputs', 'taps', 'count', 'dtype', 'bias'),
    [
        (2, 5, 3, 9, 4, torch.float32, True),
        (1, 35, 20, 1, 67, torch.float32, False),
        (1, 40, 66, 3, 7, torch.float16, True),
        (2, 3, 2, 1, 9, torch.bfloat16, False),
    ],
)
def test_activated_products(interpreter, n, channels, outputs, taps, count, dtype, bias):
    check_product(n, channels, outputs, taps, count, dtype, bias)


def test_activated_products_have_the_type_of_autocast(interpreter):
    torch.manual_seed(0)
    x, weight = torch.randn(1, 3, 2, 5), torch.randn(4, 3, 1, 1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = activated_product(x, torch.ones(3), torch.zeros(3), weight)
        expected = plain_product(x, torch.ones(3), torch.zeros(3), weight)
    assert out.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(out, expected, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize('kind', [PairwiseAttention2d, PatchwiseAttention2d])
@pytest.mark.parametrize(
    'options', [dict(), pytest.param(dict(dilation=2), marks=pytest.mark.slow), dict(stride=2)]
)
def test_layers_agree_with_the_reference(interpreter, kind, options):
    """In training, with the statistics of both norms."""
    torch.manual_seed(0)
    module = kind(6, 3, 8, share=4, kernel_size=3, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, found = torch.randn(2, 6, 5, 7), []
    for impl, dtype in (('triton', torch.float32), ('reference', torch.float64)):
        one = copy.deepcopy(module).to(dtype)
        one.impl = impl
        inputs = [x.to(dtype).requires_grad_(), *one.parameters()]
        out = one(inputs[0])
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=dtype).view_as(out)
        grads = torch.autograd.grad(out, inputs, cotangent)
        buffers = [b for b in one.buffers() if b.is_floating_point()]
        found.append([out, *grads, *buffers])
    for a, b in zip(*found, strict=True):
        assert (a - b).abs().max() < 2e-4 * b.abs().max().clamp(min=0.1)


class Names(TorchDispatchMode):
    """Names of the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_layers_are_reproducible_on_gpus(monkeypatch):
    """Torch's reflection padding has no deterministic gradient there, and says so by an error."""
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    with FakeTensorMode(), Names() as called:
        Window(7, 1, 1).pad(torch.empty(1, 4, 9, 9, device='cuda'))
    assert 'aten::index_select' in called.names
    assert 'aten::reflection_pad2d' not in called.names


@pytest.mark.parametrize('kind', [PairwiseAttention2d, PatchwiseAttention2d])
def test_layers_take_the_kernels_on_gpus(kind):
    with FakeTensorMode(), Names() as called, torch.device('cuda'):
        kind(12, 4, 16)(torch.empty(1, 12, 9, 11))
    assert 'hybrid_mm::aggregate_taps_triton' in called.names
    assert 'hybrid_mm::aggregate_taps' not in called.names
