"""ACmix: the tiled algorithm against the published formulation.

Layers of ResNet: window 7, 4 heads, at strides 4, 8 and 16 of an 800 x 1216 image. Layers of Swin:
the four stages of Swin-T on that image, padded to whole windows of 7 and rolled. All weights are
differentiated.
"""

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hybrid_mm.benchmarks.core import Case, case_of_modules
from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention

PACKAGES = ()
NAMES = {'reference': 'published'}
WINDOW, HEADS = 7, 4


# (N, C, H, W)
SHAPES = ((1, 64, 200, 304), (2, 128, 100, 152), (2, 256, 50, 76))


# C, heads, H, W; H and W are padded to multiples of the window
STAGES = ((96, 3, 203, 308), (192, 6, 105, 154), (384, 12, 56, 77), (768, 24, 28, 42))


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    torch.manual_seed(0)
    for n, channels, height, width in ((1, 16, 12, 13),) if quick else SHAPES:
        for stride in (1, 2):
            make = functools.partial(ACmix2d, channels, channels, WINDOW, HEADS, stride=stride)
            name = f'convolution form, {n}x{channels}x{height}x{width}, stride {stride}'
            yield _case(name, make, torch.randn(n, channels, height, width), device, dtype)
    for dim, heads, height, width in ((12, 3, 14, 21),) if quick else STAGES:
        make = functools.partial(ACmixWindowAttention, dim, WINDOW, heads)
        name = f'window form, 1x{dim}x{height}x{width}'
        yield _case(name, make, torch.randn(1, height, width, dim), device, dtype, WINDOW // 2)


def _case(
    name: str,
    make: Callable[..., nn.Module],
    x: Tensor,
    device: torch.device,
    dtype: torch.dtype,
    *arguments: int,
) -> Case:
    modules = {NAMES.get(impl, impl): make(impl=impl) for impl in ('tiled', 'reference')}
    # the softmax cancels this bias: its gradient is rounding noise
    constant = ('position.bias',)
    return case_of_modules(name, modules, x.to(device, dtype), *arguments, constant=constant)
