"""The weighted sum of taps: in C and in torch's operators."""

import itertools

import pytest
import torch

from hybrid_mm.ops.native import load
from hybrid_mm.ops.vector_attention import fused, tiled

COMPILED = load('aggregate_taps', torch.float64) is not None


def defined(weights, values, kernel_size, stride, dilation):
    """From the definition, one tap after the other."""
    _, groups, _, height, width = weights.shape
    weights = weights.repeat(1, values.shape[1] // groups, 1, 1, 1)
    out = 0
    for tap, (a, b) in enumerate(itertools.product(range(kernel_size), repeat=2)):
        part = values[:, :, a * dilation :: stride, b * dilation :: stride]
        out = out + weights[:, :, tap] * part[:, :, :height, :width]
    return out


def results(function, weights, values, *window):
    weights, values = (x.detach().requires_grad_() for x in (weights, values))
    out = function(weights, values, *window)
    torch.manual_seed(1)
    grad = torch.randn(out.shape).half().to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, (weights, values), grad)


def case(groups, channels, height, width, window, dtype=torch.float64):
    kernel_size, stride, dilation = window
    torch.manual_seed(0)
    reach = dilation * (kernel_size - 1)
    weights = torch.randn(2, groups, kernel_size**2, height, width, dtype=dtype)
    # more than is seen, by one row and two columns
    size = (height - 1) * stride + 2 + reach, (width - 1) * stride + 3 + reach
    return weights, torch.randn(2, channels, *size, dtype=dtype)


@pytest.mark.parametrize('without', [False, True])
@pytest.mark.parametrize(
    ('groups', 'channels', 'height', 'width', 'window'),
    [
        (2, 22, 5, 19, (3, 1, 1)),  # 11 channels of a group: 8 and 3
        (1, 1, 9, 3, (5, 1, 2)),
        (3, 24, 4, 33, (7, 1, 1)),
        (4, 16, 1, 1, (3, 1, 3)),
        (2, 4, 5, 6, (3, 2, 1)),
    ],
)
def test_equals_the_definition(groups, channels, height, width, window, without, monkeypatch):
    if without:
        monkeypatch.setattr(fused, 'is_available', lambda *_: False)
    tensors = case(groups, channels, height, width, window)
    expected = results(defined, *tensors, *window)
    torch.testing.assert_close(results(tiled.aggregate_taps, *tensors, *window), expected)


@pytest.mark.skipif(not COMPILED, reason='no C compiler here')
def test_what_is_computed_in_c(monkeypatch):
    called = []
    call = fused._call
    monkeypatch.setattr(fused, '_call', lambda *args: called.append(args[0]) or call(*args))
    for window, expected in (
        ((3, 1, 1), ['forward', 'weight_gradient', 'value_gradient']),
        ((3, 2, 1), []),
    ):
        results(tiled.aggregate_taps, *case(2, 4, 5, 6, window), *window)
        assert called == expected
        called.clear()


def test_half_precision_and_strides():
    window = 3, 1, 1
    weights, values = case(2, 6, 8, 20, window, torch.float16)
    expected = results(defined, weights.double(), values.double(), *window)
    found = results(tiled.aggregate_taps, weights, values, *window)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float16
        assert (a.double() - b).norm() < 1e-3 * b.norm()
    strided = weights.transpose(1, 2).contiguous().transpose(1, 2)
    other = values.contiguous(memory_format=torch.channels_last)
    assert torch.equal(tiled.aggregate_taps(strided, other, *window), found[0])
