"""SLaK (arXiv 2207.03620), and the ConvNeXt trunk that it shares with PeLK."""

from collections.abc import Callable, Sequence

from case import Weights
from torch import Tensor

from plain.parts import convnext_downsample, mlp, nchw, nhwc

EPS = 1e-6


def frame(
    p: Weights, x: Tensor, depths: Sequence[int], channels: Sequence[int], mixer: Callable
) -> list[Tensor]:
    """Stem, stages and output norms around ``mixer(x, name of the block, stage)``."""
    maps = []
    for stage, (depth, width) in enumerate(zip(depths, channels, strict=True)):
        x = convnext_downsample(p, x, stage, width, EPS)
        for block in range(depth):
            name = f'stages.{stage}.{block}'
            y = p.layer_norm(nhwc(mixer(x, name, stage)), f'{name}.norm', EPS)
            y = mlp(p, y, f'{name}.pwconv1', f'{name}.pwconv2', 4 * width, width)
            x = x + nchw(p.uniform(f'{name}.gamma', width, low=0.05, high=0.3) * y)
        maps.append(p.layer_norm_2d(x, f'norm{stage}', EPS))
    return maps


def stripes(p: Weights, x: Tensor, name: str, kernel: int, small: int) -> Tensor:
    """Two stripes and a small kernel, each with a batch norm."""
    channels, name = x.shape[1], f'{name}.large_kernel'
    out = 0
    for part, sides in (
        ('LoRA1', (kernel, small)),
        ('LoRA2', (small, kernel)),
        ('small_conv', (small, small)),
    ):
        y = p.conv(x, f'{name}.{part}.conv', channels, sides, groups=channels, bias=False, gain=3)
        out = out + p.batch_norm(y, f'{name}.{part}.bn')
    return out


def forward(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    dims: Sequence[int],
    kernels: Sequence[int] = (51, 49, 47, 13),
    small: int = 5,
    width_factor: float = 1.3,
) -> list[Tensor]:
    """Dense SLaK."""
    channels = [int(dim * width_factor) for dim in dims]
    return frame(p, x, depths, channels, lambda y, n, s: stripes(p, y, n, kernels[s], small))


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    *kernels, small = config['kernel_size']
    return forward(p, x, config['depths'], config['dims'], kernels, small, config['width_factor'])


KNOWN = {'backbone_decom_a': _known}
_NET = dict(depths=[1, 1, 2, 1], dims=[4, 6, 8, 12])
CASES = {
    'net': dict(
        network='SLaK',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 49, 90),
        seed=4,
    )
}
