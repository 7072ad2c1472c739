"""ACmix: the engine's forms against the published formulation, step by step."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.compat.torch_api import as_if_exporting
from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention
from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.ops import budget
from hybrid_mm.ops.mixed_shift import fused

KERNEL = fused


def agree(module, x, *arguments, impl='tiled'):
    """Output and all gradients of an algorithm and of the reference."""
    x = x.double().requires_grad_()
    module = module.double()
    for p in module.parameters():  # shifts, rates and biases must not hide a mistake
        torch.nn.init.normal_(p, std=0.2)  # large logits would see through a mask of -100
    found = []
    for module.impl, module.mix.impl in ((impl, 'tiled'), ('reference', 'reference')):
        out = module(x, *arguments)
        cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        found.append([out, *torch.autograd.grad(out, [x, *module.parameters()], cotangent)])
        with torch.no_grad():
            torch.testing.assert_close(module(x, *arguments), out)
    names = ['out', 'x', *(name for name, _ in module.named_parameters())]
    for name, a, b in zip(names, *found, strict=True):
        size = 1 if name == 'position.bias' else b.abs().max()  # softmax cancels that one
        assert (a - b).abs().max() < 1e-11 * size, name
    return out.shape


@pytest.mark.parametrize(
    ('channels', 'size', 'arguments', 'expected'),
    [
        ((6, 8), (9, 11), dict(), (2, 8, 9, 11)),
        ((6, 12), (7, 10), dict(kernel_att=5, heads=3, stride=2), (2, 12, 4, 5)),
        ((8, 8), (3, 2), dict(heads=2), (2, 8, 3, 2)),  # smaller than the mirrored border
        ((4, 8), (9, 8), dict(kernel_att=3, kernel_conv=5, stride=2, dilation=2), (2, 8, 5, 4)),
        ((4, 32), (9, 8), dict(kernel_att=3, heads=8), (2, 32, 9, 8)),  # two layers, not fused
    ],
)
def test_resnet_form(channels, size, arguments, expected, language):
    torch.manual_seed(0)
    assert agree(ACmix2d(*channels, **arguments), torch.randn(2, channels[0], *size)) == expected


def test_exported_form_of_tokens():
    torch.manual_seed(0)
    module = ACmixWindowAttention(24, 4, 3).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.2)
    x = torch.randn(2, 8, 12, 24, dtype=torch.float64)
    expected = module(x, 1)
    with as_if_exporting():
        torch.testing.assert_close(module(x, 1), expected)


@pytest.mark.parametrize('impl', ['tiled', 'windows', 'auto'])
@pytest.mark.parametrize(
    ('dim', 'window', 'heads', 'size', 'shift'),
    [
        (24, 4, 3, (8, 12), 0),
        (24, 4, 3, (8, 12), 2),
        (16, 7, 2, (7, 14), 3),
        (48, 4, 12, (8, 8), 1),
    ],
)
def test_window_form(dim, window, heads, size, shift, impl):
    torch.manual_seed(0)
    module = ACmixWindowAttention(dim, window, heads)
    assert agree(module, torch.randn(2, *size, dim), shift, impl=impl) == (2, *size, dim)


def test_shifts_are_a_convolution_at_the_start():
    torch.manual_seed(0)
    mix = MixedShift(maps=6, dim=3, out_per_group=2)
    x = torch.randn(1, 6, 3, 5, 7)
    kernel = mix.fc.weight.flatten(1).t().reshape(1, 6, 3, 3)
    out = mix(x).unflatten(1, (3, 2))
    for j in range(3):
        expected = F.conv2d(x[:, :, j], kernel, padding=1)
        for n in range(2):
            torch.testing.assert_close(out[:, j, n], expected[:, 0])


@pytest.mark.parametrize('outputs', [2, 9])
@pytest.mark.parametrize(('kernel', 'numbers'), [(3, 1), (5, 3000)])
def test_convolution_path_in_bands(outputs, kernel, numbers, language):
    """Bands of one row and of several."""
    torch.manual_seed(0)
    mix = MixedShift(6, 3, outputs, kernel, bias=True).double()
    for parameter in mix.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 7, 9, 6, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for impl in ('tiled', 'convolution', 'reference'):
        mix.impl = impl
        with budget.limited(numbers):
            out = mix(x.permute(0, 3, 4, 1, 2), 0.7)  # tokens, as Swin has them
            grads = torch.autograd.grad(out.pow(2).sum(), [x, *mix.parameters()])
        found.append([out, *grads])
    for a, b, c in zip(*found, strict=True):
        torch.testing.assert_close(a, c, rtol=1e-11, atol=1e-9)
        torch.testing.assert_close(b, c, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize(('device', 'convolutions'), [('cuda', 1), ('cpu', 0)])
def test_convolution_path_is_a_convolution_on_gpus(device, convolutions):
    """One, with the product of both weights, where a CPU has products of a few rows."""
    names = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.append(func.name())
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), torch.device(device), Names():
        MixedShift(6, 3, 2)(torch.empty(2, 6, 3, 7, 9))
    assert names.count('aten::convolution') == convolutions
    assert ('hybrid_mm::mix_and_shift' in names) == (device == 'cpu')


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('maps', [6, 40])
def test_bias_of_the_convolution_path(maps, stride, language):
    """With and without a gradient, for any stride: shifted with the maps, zero beyond them."""
    torch.manual_seed(0)
    mix = MixedShift(maps, 3, 2, stride=stride, bias=True).double()
    for parameter in mix.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, maps, 3, 7, 8, dtype=torch.float64)
    taps = torch.einsum('pm,nmjyx->njpyx', mix.fc.weight.flatten(1), x) + mix.fc.bias[:, None, None]
    expected = F.conv2d(taps.flatten(1, 2), 0.6 * mix.dep_conv.weight, None, stride, 1, 1, 3)
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.testing.assert_close(mix(x, 0.6), expected)


def test_keeps_few_maps():
    x = torch.randn(1, 16, 20, 24, requires_grad=True)
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        ACmix2d(16, 16)(x)
    assert sum(kept.values()) < 8 * x.numel() * 4


def test_errors():
    with pytest.raises(ValueError, match='heads must divide the 10 output channels, got 4'):
        ACmix2d(10, 10)
    with pytest.raises(ValueError, match='kernel_att must be odd, got 6'):
        ACmix2d(8, 8, kernel_att=6)
    with pytest.raises(ValueError, match='convolution path must be odd, got 2'):
        ACmix2d(8, 8, kernel_conv=2)
    with pytest.raises(
        ValueError,
        match="tiled for local_attention and mixed_shift, got 'fast'",
    ):
        ACmix2d(8, 8, impl='fast')
    with pytest.raises(ValueError, match='multiples of the window 4, got 6 x 8'):
        ACmixWindowAttention(8, 4, 2)(torch.randn(1, 6, 8, 8))
