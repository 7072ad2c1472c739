"""Bottlenecks with a convolution or attention in the middle, by timm's names."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor


def _conv_norm(p: Weights, x: Tensor, name: str, *arguments) -> Tensor:
    return p.batch_norm(p.conv(x, f'{name}.conv', *arguments, bias=False), f'{name}.bn')


def network(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    channels: Sequence[int],
    stem: int,
    ratio: float,
    attends: Callable[[int, int], bool],
    attend: Callable,
    act: Callable = F.relu,
    tiered: bool = False,
    excite: bool = False,
) -> list[Tensor]:
    """Maps of four stages.

    Args:
        p: Weights.
        x: Image.
        depths: Blocks per stage.
        channels: Channels of the maps.
        stem: Channels after the stem.
        ratio: Width of the middle of a block.
        attends: Whether a block of a stage has attention.
        attend: ``attend(x, name, stage, stride)``.
        act: Activation.
        tiered: Three convolutions in the stem instead of one.
        excite: Squeeze and excitation with a sixteenth of the channels after the last norm.
    """
    if tiered:
        x = act(_conv_norm(p, x, 'stem.conv1', 3 * stem // 8, 3, 2))
        x = act(_conv_norm(p, x, 'stem.conv2', stem // 2, 3))
        x = act(_conv_norm(p, x, 'stem.conv3', stem, 3))
    else:
        x = act(_conv_norm(p, x, 'stem.conv1', stem, 7, 2))
    x, maps = F.max_pool2d(x, 3, 2, 1), []
    for stage, (depth, width) in enumerate(zip(depths, channels, strict=True)):
        for block in range(depth):
            name, stride = f'stages.{stage}.{block}', 2 if stage and not block else 1
            middle = max(8, int(width * ratio + 4) // 8 * 8)
            y = act(_conv_norm(p, x, f'{name}.conv1_1x1', middle, 1))
            if attends(stage, block):
                y = attend(y, f'{name}.self_attn', stage, block, stride)
                y = act(p.batch_norm(y, f'{name}.post_attn'))
            else:
                y = act(_conv_norm(p, y, f'{name}.conv2_kxk', middle, 3, stride))
            y = _conv_norm(p, y, f'{name}.conv3_1x1', width, 1)
            if excite:
                hidden = max(8, int(width / 16 + 4) // 8 * 8)
                z = F.relu(p.conv(y.mean((2, 3), keepdim=True), f'{name}.attn.fc1', hidden, 1))
                y = y * torch.sigmoid(p.conv(z, f'{name}.attn.fc2', width, 1, gain=3))
            if stride > 1 or x.shape[1] != width:
                x = _conv_norm(p, x, f'{name}.shortcut', width, 1, stride)
            x = act(x + y)
        maps.append(x)
    return maps
