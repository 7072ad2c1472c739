"""Trunk of the ResNets: bottlenecks whose 3x3 convolution and norm are an operator."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from case import Weights
from torch import Tensor


def trunk(
    p: Weights,
    x: Tensor,
    stem: int,
    depths: Sequence[int],
    widths: Sequence[int],
    out_channels: Sequence[int],
    operator: Callable,
    strides: Sequence[int] = (1, 2, 2, 2),
) -> list[Tensor]:
    """Maps of all stages.

    Args:
        p: Weights.
        x: Image.
        stem: Channels after the stem.
        depths: Blocks per stage.
        widths: Channels of the operators.
        out_channels: Channels of the maps.
        operator: ``operator(x, name of the block, width, stride, stage, block)``, including the
            norm before the next activation.
        strides: Stride of each stage.
    """
    x = F.relu(p.batch_norm(p.conv(x, 'conv1', stem, 7, 2, bias=False), 'bn1'))
    x = F.max_pool2d(x, 3, 2, 1)
    maps = []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            name, stride = f'layer{stage + 1}.{block}', 1 if block else strides[stage]
            y = p.conv(x, f'{name}.conv1', widths[stage], 1, bias=False)
            y = F.relu(p.batch_norm(y, f'{name}.bn1'))
            y = F.relu(operator(y, name, widths[stage], stride, stage, block))
            y = p.conv(y, f'{name}.conv3', out_channels[stage], 1, bias=False)
            y = p.batch_norm(y, f'{name}.bn3')
            if stride != 1 or x.shape[1] != out_channels[stage]:
                x = p.conv(x, f'{name}.downsample.0', out_channels[stage], 1, stride, bias=False)
                x = p.batch_norm(x, f'{name}.downsample.1')
            x = F.relu(x + y)
        maps.append(x)
    return maps
