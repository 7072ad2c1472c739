"""Peripheral convolution at the sizes of PeLK, against torch's dense depthwise convolution.

Three groups of cases: 32 channels at 56 x 56 with kernels from 13 to 151, the kernel of 51 on maps
from 14 x 14 to 200 x 304, and the stages of PeLK-T and PeLK-T-101 for images of 224 x 224 (batch 4)
and 800 x 1216. Dense passes that take up to a minute are left out.
"""

import functools
from collections.abc import Iterator

import torch

from hybrid_mm.benchmarks.core import Case
from hybrid_mm.layers.convolution.peripheral_convolution import sharing_grid
from hybrid_mm.ops import kernels
from hybrid_mm.ops.grid_convolution import fused, grid_convolution

PACKAGES = ()
_MOST = 2**30  # largest number of multiplications of a dense pass that is measured
KERNELS = (13, 31, 51, 69, 101, 151)
MAPS = ((14, 14), (28, 28), (56, 56), (112, 112), (200, 304))


# kernel, center, channels, and maps (N, H, W)
STAGES = (
    (51, 5, 46, ((4, 56, 56), (1, 200, 304))),
    (49, 5, 93, ((4, 28, 28), (1, 100, 152))),
    (47, 5, 187, ((4, 14, 14), (1, 50, 76))),
    (13, 5, 374, ((4, 7, 7), (1, 25, 38))),
    (101, 7, 46, ((4, 56, 56), (1, 200, 304))),
    (69, 7, 93, ((4, 28, 28), (1, 100, 152))),
    (67, 7, 187, ((4, 14, 14), (1, 50, 76))),
)


def cases(device: torch.device, dtype: torch.dtype, quick: bool) -> Iterator[Case]:
    """Yield the cases; ``quick`` ones are small, to test the benchmark itself."""
    generator = torch.Generator().manual_seed(0)

    def make(kernel: int, center: int, channels: int, shape: tuple, **curve) -> Case:
        n, height, width = shape
        grid = sharing_grid(kernel, center)
        x = torch.randn(n, channels, height, width, generator=generator)
        weight = torch.randn(channels, len(grid), len(grid), generator=generator) / len(grid)
        inputs = {
            name: tensor.to(device, dtype).requires_grad_()
            for name, tensor in dict(x=x, weight=weight).items()
        }
        names, unavailable = ['reference', 'bmm', 'fft', 'fused', 'triton', 'auto'], {}
        if kernel**2 * x.numel() > _MOST or kernel > 51:
            unavailable['dense'] = 'a pass takes up to a minute'
            names.remove('reference')
        if not fused.is_available(inputs['x']):
            unavailable['fused'] = 'a CPU and a C compiler are needed'
            names.remove('fused')
        if not kernels.available('grid_convolution', inputs['x']):
            unavailable['triton'] = 'a GPU and Triton are needed'
            names.remove('triton')
        candidates = {
            'dense' if name == 'reference' else name: functools.partial(
                grid_convolution, rows=grid, impl=name
            )
            for name in names
        }
        name = f'K {kernel}, {n}x{channels}x{height}x{width}'
        return Case(name, inputs, candidates, unavailable, **curve)

    if quick:
        yield make(13, 5, 3, (1, 9, 9), kernel_size=13)
        yield make(31, 5, 3, (1, 9, 9))
        return
    for kernel in KERNELS:
        yield make(kernel, 5 if kernel <= 51 else 7, 32, (1, 56, 56), kernel_size=kernel)
    for height, width in MAPS:
        if (height, width) != (56, 56):
            yield make(51, 5, 32, (1, height, width), pixels=height * width)
    for kernel, center, channels, shapes in STAGES:
        for shape in shapes:
            yield make(kernel, center, channels, shape)
