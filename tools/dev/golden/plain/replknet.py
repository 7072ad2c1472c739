"""RepLKNet (arXiv 2203.06717)."""

from collections.abc import Sequence

import torch.nn.functional as F
from case import Weights
from torch import Tensor


def _conv_norm(p: Weights, x: Tensor, name: str, channels: int, *arguments, **kwargs) -> Tensor:
    x = p.conv(x, f'{name}.conv', channels, *arguments, bias=False, **kwargs)
    return p.batch_norm(x, f'{name}.bn')


def forward(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    channels: Sequence[int],
    kernel_sizes: Sequence[int] = (31, 29, 27, 13),
    small_kernel: int = 5,
    dw_ratio: float = 1,
) -> list[Tensor]:
    """Dense RepLKNet before re-parameterisation, without output norms."""
    width = channels[0]
    x = F.relu(_conv_norm(p, x, 'stem.0', width, 3, 2))
    x = F.relu(_conv_norm(p, x, 'stem.1', width, 3, 1, groups=width))
    x = F.relu(_conv_norm(p, x, 'stem.2', width, 1))
    x = F.relu(_conv_norm(p, x, 'stem.3', width, 3, 2, groups=width))
    maps = []
    for stage, width in enumerate(channels):
        inner = int(width * dw_ratio)
        for block in range(depths[stage]):
            name = f'stages.{stage}.blocks.{2 * block}'
            y = p.batch_norm(x, f'{name}.prelkb_bn')
            y = F.relu(_conv_norm(p, y, f'{name}.pw1', inner, 1))
            large = f'{name}.large_kernel'
            size = kernel_sizes[stage]
            z = _conv_norm(p, y, f'{large}.lkb_origin', inner, size, groups=inner, gain=3)
            small = _conv_norm(p, y, f'{large}.small_conv', inner, small_kernel, groups=inner)
            x = x + _conv_norm(p, F.relu(z + small), f'{name}.pw2', width, 1)
            name = f'stages.{stage}.blocks.{2 * block + 1}'
            y = p.batch_norm(x, f'{name}.preffn_bn')
            y = F.gelu(_conv_norm(p, y, f'{name}.pw1', 4 * width, 1))
            x = x + _conv_norm(p, y, f'{name}.pw2', width, 1)
        maps.append(x)
        if stage < len(channels) - 1:
            width = channels[stage + 1]
            x = F.relu(_conv_norm(p, x, f'transitions.{stage}.0', width, 1))
            x = F.relu(_conv_norm(p, x, f'transitions.{stage}.1', width, 3, 2, groups=width))
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    names = 'layers', 'channels', 'large_kernel_sizes', 'small_kernel', 'dw_ratio'
    return forward(p, x, *(config[name] for name in names))


KNOWN = {'backbone_31_train': _known}
_NET = dict(depths=[1, 1, 2, 1], channels=[4, 8, 8, 16])
CASES = {
    'net': dict(
        network='RepLKNet',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 49, 90),
        seed=21,
    )
}
