"""LeViT (arXiv 2104.01136)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor


def _linear(p: Weights, x: Tensor, name: str, channels: int) -> Tensor:
    """Linear layer without bias and batch norm, on the last axis."""
    y = p.linear(x, f'{name}.c', channels, bias=False)
    shape = y.shape
    return p.batch_norm(y.reshape(-1, channels), f'{name}.bn').view(shape)


def _attention(
    p: Weights,
    x: Tensor,
    name: str,
    channels: int,
    key_dim: int,
    heads: int,
    ratio: int,
    side: int,
    shrink: bool,
) -> Tensor:
    """Attention on maps (N, H, W, C); biases by distance are made for a square of ``side``."""
    value_dim, (height, width) = ratio * key_dim, x.shape[1:3]
    if shrink:
        q = _linear(p, x[:, ::2, ::2], f'{name}.q.1', heads * key_dim).unflatten(-1, (heads, -1))
        kv = _linear(p, x, f'{name}.kv', heads * (key_dim + value_dim)).unflatten(-1, (heads, -1))
        k, v = kv.split([key_dim, value_dim], -1)
    else:
        qkv = _linear(p, x, f'{name}.qkv', heads * (2 * key_dim + value_dim))
        q, k, v = qkv.unflatten(-1, (heads, -1)).split([key_dim, key_dim, value_dim], -1)
    table = p.normal(f'{name}.attention_biases', heads, side**2, std=0.5)
    table = table.unflatten(1, (side, side))
    if (side, side) != (height, width):
        table = F.interpolate(table[None], (height, width), mode='bilinear', align_corners=True)[0]
    step = 2 if shrink else 1
    dy = (torch.arange(0, height, step)[:, None] - torch.arange(height)).abs()
    dx = (torch.arange(0, width, step)[:, None] - torch.arange(width)).abs()
    logits = torch.einsum('nyxhd,nuvhd->nhyxuv', q, k) * key_dim**-0.5
    logits = logits + table[:, dy[:, None, :, None], dx[None, :, None, :]]
    share = logits.flatten(4).softmax(-1).view_as(logits)
    out = torch.einsum('nhyxuv,nuvhd->nyxhd', share, v).flatten(3)
    return _linear(p, F.hardswish(out), f'{name}.proj.1', channels)


def forward(
    p: Weights,
    x: Tensor,
    embed_dims: Sequence[int],
    key_dims: Sequence[int],
    heads: Sequence[int],
    depths: Sequence[int],
    ratios: Sequence[int] = (2, 2, 2),
    side: int = 14,
) -> list[Tensor]:
    """Two maps of the stem, then those of the attention stages."""
    maps, index = [], 0
    for i, divisor in enumerate((8, 4, 2, 1)):
        x = p.conv(x, f'patch_embed.{2 * i}.c', embed_dims[0] // divisor, 3, 2, bias=False)
        x = p.batch_norm(x, f'patch_embed.{2 * i}.bn')
        x = F.hardswish(x) if divisor > 1 else x
        maps += [x] if i in (1, 2) else []
    x = x.permute(0, 2, 3, 1)

    def mlp(y: Tensor, name: str, channels: int) -> Tensor:
        y = F.hardswish(_linear(p, y, f'{name}.m.0', 2 * channels))
        return _linear(p, y, f'{name}.m.2', channels)

    for stage, channels in enumerate(embed_dims):
        if stage:
            number = embed_dims[stage - 1] // key_dims[0]
            x = _attention(p, x, f'blocks.{index}', channels, key_dims[0], number, 4, side, True)
            side = -(-side // 2)
            x = x + mlp(x, f'blocks.{index + 1}', channels)
            index += 2
        for _ in range(depths[stage]):
            arguments = channels, key_dims[stage], heads[stage], ratios[stage], side
            x = x + _attention(p, x, f'blocks.{index}.m', *arguments, False)
            x = x + mlp(x, f'blocks.{index + 1}', channels)
            index += 2
        maps.append(x.permute(0, 3, 1, 2))
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    maps = forward(
        p,
        x,
        config['embed_dim'],
        [config['key_dim']] * 3,
        config['num_heads'],
        config['depth'],
        side=config['img_size'] // 16,
    )
    return maps[2:]


_NET = dict(embed_dims=[16, 24, 32], key_dims=[4, 4, 4], heads=[2, 3, 4], depths=[1, 2, 1])
_SIZES = dict(_NET, shrink_heads=[None, 4, 6], shrink_key_dims=[None, 4, 4])
KNOWN = {'backbone': _known}
CASES = {
    'net': dict(
        network='LeViT',
        config=dict(sizes=_SIZES, out_indices=[0, 1, 2, 3, 4]),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 37, 70),
        seed=11,
        notes='biases of 14 x 14 distances on a map of 3 x 5, aligned at their ends',
    )
}
