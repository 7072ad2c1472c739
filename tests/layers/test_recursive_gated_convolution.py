"""HorNet's operators by their definitions."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hybrid_mm.layers import DepthwiseConv2d, GlobalLocalFilter, RecursiveGatedConv
from hybrid_mm.layers.convolution.recursive_gated_convolution import pointwise


def drawn(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module.double()


@pytest.mark.parametrize('size', [(7, 12), (8, 9)])
def test_global_and_local_filter(size):
    """One half by a kernel, the other by a filter, and then channel by channel in turn."""
    height, width = size
    layer = drawn(GlobalLocalFilter(6, (height, width // 2 + 1)))
    x = torch.randn(2, 6, height, width, dtype=torch.float64)

    def normed(norm, x):
        mean, var = x.mean(1, keepdim=True), x.var(1, unbiased=False, keepdim=True)
        scaled = (x - mean) / (var + 1e-6).sqrt()
        return scaled * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)

    local, spectral = normed(layer.norm1, x).split(3, 1)
    local = F.conv2d(local, layer.conv.weight, None, 1, 1, 1, 3)
    weight = torch.complex(*layer.spectrum.unbind(-1))
    spectral = torch.fft.irfft2(torch.fft.rfft2(spectral) * weight, s=size)
    both = [part for pair in zip(local.unbind(1), spectral.unbind(1), strict=True) for part in pair]
    torch.testing.assert_close(layer(x), normed(layer.norm2, torch.stack(both, 1)))


@pytest.mark.parametrize('out', [None, 5])
def test_recursion(out):
    """Every order reads its part of the context, and all of them are scaled."""
    layer = drawn(RecursiveGatedConv(3, 8, out, 3, 5, scale=0.3))
    x = torch.randn(2, 3, 6, 9, dtype=torch.float64)
    first, context = layer.proj_in(x).split([2, 14], 1)
    context = 0.3 * F.conv2d(context, layer.dwconv.weight, layer.dwconv.bias, 1, 2, 1, 14)
    a, b, c = context.split([2, 4, 8], 1)
    y = layer.gates[1](layer.gates[0](first * a) * b) * c
    torch.testing.assert_close(layer(x), y if out is None else layer.proj_out(y))


def test_pointwise_is_a_convolution():
    conv = nn.Conv2d(4, 6, 1).double()
    x = torch.randn(2, 5, 7, 4, dtype=torch.float64).permute(0, 3, 1, 2)
    for last in (False, True):
        found = pointwise(x, conv, last)
        torch.testing.assert_close(found, conv(x))
        layout = torch.channels_last if last else torch.contiguous_format
        assert found.is_contiguous(memory_format=layout)


@pytest.mark.parametrize(
    'layer',
    [DepthwiseConv2d(6, 3), DepthwiseConv2d(6, 3, bias=False), GlobalLocalFilter(6, (4, 3))],
)
def test_factor_of_the_result(layer):
    layer, x = drawn(layer), torch.randn(2, 6, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x, 0.3), 0.3 * layer(x))
