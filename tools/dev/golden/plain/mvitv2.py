"""MViTv2 (arXiv 2112.01526) as detectron2 has it for detection."""

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.parts import by_windows, decomposed_attention, mlp

EPS = 1e-6


def attention(
    p: Weights,
    x: Tensor,
    name: str,
    channels: int,
    heads: int,
    size: tuple[int, int],
    strides: tuple[int, int],
    window: int | None,
) -> Tensor:
    """Pooling attention; ``size`` is that of the map that the tables are made for."""
    dim = channels // heads
    maps = p.linear(x, f'{name}.qkv', 3 * channels).unflatten(-1, (3, heads, dim))
    pooled = []
    for i, stride in enumerate((strides[0], strides[1], strides[1])):
        y = maps[..., i, :, :].permute(0, 3, 4, 1, 2)
        n = y.shape[0]
        y = y.flatten(0, 1)
        y = p.conv(y, f'{name}.pool_{"qkv"[i]}', dim, 3, stride, groups=dim, bias=False)
        y = p.layer_norm(y.permute(0, 2, 3, 1), f'{name}.norm_{"qkv"[i]}', EPS)
        pooled.append(y.unflatten(0, (n, heads)))
    tables = [
        p.normal(
            f'{name}.rel_pos_{axis}', 2 * max(s // strides[0], s // strides[1]) - 1, dim, std=0.4
        )
        for axis, s in zip('hw', size, strict=True)
    ]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return decomposed_attention(q, k, v, *tables)

    if window is None:
        out = attend(*pooled)
    else:
        sides = [window // stride for stride in (strides[0], strides[1], strides[1])]
        out = by_windows(pooled, sides, attend)
    out = (out + pooled[0]).permute(0, 2, 3, 1, 4).flatten(3)
    return p.linear(out, f'{name}.proj', channels, gain=0.3)


def forward(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    heads: int,
    depths: Sequence[int],
    size: tuple[int, int] = (224, 224),
    window: int | None = 56,
    kv_stride: int = 4,
) -> list[Tensor]:
    """Normalised maps of the four stages."""
    x = p.conv(x, 'patch_embed.proj', embed_dim, 7, 4, gain=0.1).permute(0, 2, 3, 1)
    maps, index, grid = [], 0, tuple(side // 4 for side in size)
    for stage, depth in enumerate(depths):
        channels, number = embed_dim * 2**stage, heads * 2**stage
        for block in range(depth):
            name = f'blocks.{index}'
            first, last = stage > 0 and block == 0, block == depth - 1
            stride_kv = max(kv_stride // 2**stage, 1) * (2 if last and stage in (1, 2) else 1)
            strides = 2 if first else 1, stride_kv
            side = None if window is None or (last and stage) else window
            y = p.layer_norm(x, f'{name}.norm1', EPS)
            if first:
                x = p.linear(y, f'{name}.proj', channels, gain=0.3).permute(0, 3, 1, 2)
                x = F.max_pool2d(x, 3, 2, 1).permute(0, 2, 3, 1)
            x = x + attention(p, y, f'{name}.attn', channels, number, grid, strides, side)
            if first:
                grid = tuple(side // 2 for side in grid)
                window = window and window // 2
            y = p.layer_norm(x, f'{name}.norm2', EPS)
            x = x + mlp(p, y, f'{name}.mlp.fc1', f'{name}.mlp.fc2', 4 * channels, channels)
            index += 1
        maps.append(p.layer_norm(x, f'scale{stage + 2}_norm', EPS).permute(0, 3, 1, 2))
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    ends = [-1, *config['last_block_indexes']]
    depths = [b - a for a, b in pairwise(ends)]
    return forward(
        p,
        x,
        config['embed_dim'],
        config['num_heads'],
        depths,
        (config['img_size'],) * 2,
        config['adaptive_window_size'] or None,
        config['adaptive_kv_stride'],
    )


KNOWN = {'backbone_det': _known, 'backbone_det_nowindow': _known}
_NET = dict(embed_dim=6, heads=1, depths=[1, 2, 2, 1])
_WINDOWS = dict(embed_dim=4, heads=1, depths=[2, 2, 2, 2])
CASES = {
    'net': dict(
        network='MViTv2',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 37, 70),
        seed=7,
    ),
    'net_windows': dict(
        network='MViTv2',
        config=dict(sizes=_WINDOWS, img_size=[64, 96], window_size=8),
        forward=lambda p, x: forward(p, x, **_WINDOWS, size=(64, 96), window=8),
        shape=(1, 3, 45, 74),
        seed=8,
        notes='tables for a map of another ratio of its sides',
    ),
}
