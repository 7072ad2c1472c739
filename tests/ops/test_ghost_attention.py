"""ELSA's attention in C; that it is the definition, tests/layers/test_elsa.py checks as well."""

import pytest
import torch

from hybrid_mm.ops import native
from hybrid_mm.ops.ghost_attention import fused, ghost_attention, tiled

KERNEL = fused
pytestmark = pytest.mark.skipif(
    native.load('ghost_attention', torch.float64) is None, reason='no C compiler here'
)


def inputs(size, hidden=4, channels=6, heads=2, kernel=3, images=2, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = (images, hidden, *size), (images, channels, *size), (heads * kernel**2, hidden)
    return [torch.randn(shape, dtype=dtype) for shape in (*shapes, (heads * kernel**2,))]


def with_gradients(tensors, **options):
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = ghost_attention(*leaves, **options)
    return out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), leaves)


def check(tensors, **options):
    found = with_gradients(tensors, **options)
    expected = with_gradients(tensors, impl='reference', **options)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('size', [(41, 9), (1, 1), (17, 40), (8, 16)])
def test_bands_side_by_side(size, dilation, threads, called):
    """Several threads work on a map; gradients of values that two bands see are sums of both."""
    check(inputs(size, kernel=5, images=1), heads=2, kernel_size=5, dilation=dilation)
    assert called == ['forward', 'backward']


@pytest.mark.parametrize('channels', [1, 11, 12, 13, 25])
@pytest.mark.parametrize(('hidden', 'kernel'), [(1, 1), (16, 3), (17, 5), (40, 7)])
def test_any_number_of_channels(channels, hidden, kernel, called):
    """Up to 12 channels of a head are done at once."""
    for heads in (1, 3):
        tensors = inputs((5, 19), hidden, channels * heads, heads, kernel)
        check(tensors, heads=heads, kernel_size=kernel)
    assert len(called) == 4


def test_results_are_the_same_from_run_to_run(threads):
    tensors = inputs((30, 21), 8, 24, 3, 7, dtype=torch.float32)
    first = with_gradients(tensors, heads=3, kernel_size=7)
    for _ in range(5):
        again = with_gradients(tensors, heads=3, kernel_size=7)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize('scale', [0.3, 30.0])
def test_single_precision(scale, called):
    """The exponential function is our own there."""
    tensors = inputs((12, 20), 16, 32, 2, 7, dtype=torch.float32)
    tensors[2] *= scale
    found = with_gradients(tensors, heads=2, kernel_size=7)
    exact = [x.double() for x in tensors]
    expected = with_gradients(exact, impl='reference', heads=2, kernel_size=7)
    assert called == ['forward', 'backward']
    for a, b in zip(found, expected, strict=True):
        assert (a - b).norm() < max(1e-6, 1e-6 * scale) * b.norm()


def test_strides_and_half_precision(called):
    """Maps of tokens, as the layer has them, and planes; the output has its channels last."""
    tensors = inputs((9, 18), 8, 24, 2, 5, dtype=torch.float32)
    expected = with_gradients(tensors, heads=2, kernel_size=5)
    tokens = [x.contiguous(memory_format=torch.channels_last) for x in tensors[:2]]
    leaves = [x.requires_grad_() for x in (*tokens, *tensors[2:])]
    out = ghost_attention(*leaves, heads=2, kernel_size=5)
    assert out.is_contiguous(memory_format=torch.channels_last)
    grads = torch.autograd.grad((out * out.detach().cos()).sum(), leaves)
    for a, b in zip((out.detach(), *grads), expected, strict=True):
        torch.testing.assert_close(a, b)
    low = [x.detach().half() for x in tensors]
    found = ghost_attention(*low, heads=2, kernel_size=5)
    assert found.dtype == torch.float16
    assert (found - expected[0]).norm() < 2e-3 * expected[0].norm()
    assert called == ['forward', 'backward'] * 2 + ['forward']


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_what_is_no_number_is_seen(value):
    hidden, v, weight, bias = inputs((6, 20), dtype=torch.float32)
    plain = ghost_attention(hidden, v, weight, bias, heads=2, kernel_size=3)
    hidden[0, 1, 2, 3] = value
    out = ghost_attention(hidden, v, weight, bias, heads=2, kernel_size=3)
    assert out[0, :, 2, 3].isnan().all()
    out[0, :, 2, 3] = plain[0, :, 2, 3]
    torch.testing.assert_close(out, plain)


def test_without_a_compiler(called, monkeypatch):
    tensors = inputs((6, 9))
    expected = ghost_attention(*tensors, heads=2, kernel_size=3)
    monkeypatch.setenv('HYBRID_MM_NATIVE', '0')
    native.load.cache_clear()
    torch.testing.assert_close(ghost_attention(*tensors, heads=2, kernel_size=3), expected)
    native.load.cache_clear()
    assert called == ['forward']


def test_memory_that_is_missing(monkeypatch):
    class Library:
        lanes = staticmethod(lambda: 16)
        forward = backward = staticmethod(lambda *_: 0)

    hidden, v, weight, bias = inputs((3, 3))
    monkeypatch.setattr(native, 'load', lambda *_: Library)
    arguments = hidden, v, weight, bias, 2, 3, 1
    with pytest.raises(MemoryError, match='no memory for the working space'):
        tiled.attend_softmax(*arguments)
    with pytest.raises(MemoryError, match='no memory for the working space'):
        fused.backward(v, *arguments)
