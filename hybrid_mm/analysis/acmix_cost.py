"""Cost of projection and aggregation in convolution, attention and ACmix.

The analysis of "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556, section
3.3 and table 1), counted on this project's modules. Stage I projects pixels by 1x1 convolutions
(k^2 of them for a k x k convolution); stage II shifts and sums their results, or attends.
"""

from typing import NamedTuple

import torch
from torch import nn

from hybrid_mm.analysis.complexity import count
from hybrid_mm.layers.attention.acmix import ACmix2d

RESNET50 = [(64, 56, 56)] * 3 + [(128, 28, 28)] * 4 + [(256, 14, 14)] * 6 + [(512, 7, 7)] * 3


class Cost(NamedTuple):
    """Multiply-adds (additions for shifts) and weights without biases of a part of an operator."""

    operator: str
    stage: str
    part: str
    macs: int
    params: int


def layer_cost(
    channels: int,
    height: int,
    width: int,
    kernel_conv: int = 3,
    kernel_att: int = 7,
    heads: int = 4,
) -> list[Cost]:
    """Costs of the three operators with ``channels`` inputs and outputs on a map, stride 1.

    Args:
        channels: Number of channels.
        height: Rows of the map.
        width: Columns of the map.
        kernel_conv: Kernel of the convolution and of ACmix's convolution path.
        kernel_att: Window of the attention.
        heads: Number of heads.

    Raises:
        ValueError: See :class:`~hybrid_mm.layers.attention.acmix.ACmix2d`.
    """
    with torch.device('meta'):
        conv = nn.Conv2d(channels, channels, kernel_conv, padding=kernel_conv // 2, bias=False)
        acmix = ACmix2d(channels, channels, kernel_att, heads, kernel_conv)
    shape = (channels, height, width)
    plain = count(conv, shape)[0].macs
    macs = {row.name: row.macs for row in count(acmix, shape)}
    weights = {name: p.numel() for name, p in acmix.named_parameters() if name.endswith('weight')}
    attention = macs[''] - macs['qkv'] - macs['mix']
    light = weights['mix.fc.weight'] * channels // heads * height * width
    projection = 'I', 'queries, keys, values', macs['qkv'], weights['qkv.weight']
    window = 'II', f'attention to {kernel_att} x {kernel_att}', attention, 0
    taps = kernel_conv**2
    return [
        Cost('convolution', 'I', f'{taps} 1x1 convolutions', plain, conv.weight.numel()),
        Cost('convolution', 'II', 'shift and sum', taps * channels * height * width, 0),
        Cost('self-attention', *projection),
        Cost('self-attention', *window),
        Cost('ACmix', *projection),
        Cost('ACmix', *window),
        Cost('ACmix', 'II', 'light FC', light, weights['mix.fc.weight']),
        Cost(
            'ACmix',
            'II',
            'grouped convolution',
            macs['mix'] - light,
            weights['mix.dep_conv.weight'],
        ),
    ]


def network_cost(layers: list[tuple[int, int, int]] = RESNET50, **settings: int) -> list[Cost]:
    """Sum of :func:`layer_cost` over layers (channels, height, width).

    The defaults are the 3x3 convolutions of a ResNet-50 at 224 x 224, each with stride 1 at the
    size of its output, as in the paper.
    """
    costs = [layer_cost(*layer, **settings) for layer in layers]
    return [
        parts[0]._replace(macs=sum(p.macs for p in parts), params=sum(p.params for p in parts))
        for parts in zip(*costs, strict=True)
    ]


def first_stage_share(costs: list[Cost], operator: str) -> float:
    """Share of stage I in the multiply-adds of an operator."""
    own = [cost for cost in costs if cost.operator == operator]
    return sum(c.macs for c in own if c.stage == 'I') / sum(c.macs for c in own)
