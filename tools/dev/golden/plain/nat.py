"""NAT (arXiv 2204.07143), DiNAT and DiNAT_s (arXiv 2209.15001)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain import swin
from plain.parts import mlp

EPS = 1e-5


def _reach(place: int, length: int, kernel: int, dilation: int) -> tuple[list[int], int]:
    """Keys of a query on one axis, and the offset of the first in steps of the dilation."""
    group = list(range(place % dilation, length, dilation))
    own = place // dilation
    first = min(max(own - kernel // 2, 0), len(group) - kernel)
    return group[first : first + kernel], first - own


def operator(p: Weights, x: Tensor, name: str, heads: int, kernel: int, dilation: int) -> Tensor:
    """Neighborhood attention on (N, H, W, C); a map smaller than the window is zero-padded."""
    height, width, channels = x.shape[1:]
    least = kernel * dilation
    x = F.pad(x, (0, 0, 0, max(0, least - width), 0, max(0, least - height)))
    maps = p.linear(x, f'{name}.qkv', 3 * channels).unflatten(-1, (3, heads, -1))
    q, k, v = maps.unbind(3)
    table = p.normal(f'{name}.rpb', heads, 2 * kernel - 1, 2 * kernel - 1, std=0.5)
    out = torch.zeros_like(q)
    for i in range(x.shape[1]):
        rows, dy = _reach(i, x.shape[1], kernel, dilation)
        for j in range(x.shape[2]):
            columns, dx = _reach(j, x.shape[2], kernel, dilation)
            a, b = (z[:, rows][:, :, columns] for z in (k, v))
            logits = torch.einsum('nhd,nyxhd->nhyx', q[:, i, j], a) * q.shape[-1] ** -0.5
            y, z = dy + kernel - 1, dx + kernel - 1
            logits = logits + table[:, y : y + kernel, z : z + kernel]
            share = logits.flatten(2).softmax(-1).view_as(logits)
            out[:, i, j] = torch.einsum('nhyx,nyxhd->nhd', share, b)
    out = out[:, :height, :width].flatten(3)
    return p.linear(out, f'{name}.proj', channels, gain=0.4)


def forward(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    mlp_ratio: float = 3.0,
    dilations: Sequence[Sequence[int]] = ((1, 1),) * 4,
    kernel: int = 7,
    scaled: bool = False,
) -> list[Tensor]:
    """Dense NAT or DiNAT."""
    x = p.conv(x, 'patch_embed.proj.0', embed_dim // 2, 3, 2)
    x = p.conv(x, 'patch_embed.proj.1', embed_dim, 3, 2).permute(0, 2, 3, 1)
    x = p.layer_norm(x, 'patch_embed.norm', EPS, size=0.2)
    maps = []
    for stage, depth in enumerate(depths):
        channels = embed_dim * 2**stage
        for block in range(depth):
            name = f'levels.{stage}.blocks.{block}'
            gammas = [1.0, 1.0]
            if scaled:
                gammas = [p.uniform(f'{name}.gamma{i}', channels) for i in (1, 2)]
            y = p.layer_norm(x, f'{name}.norm1', EPS)
            dilation = dilations[stage][block]
            y = operator(p, y, f'{name}.attn', heads[stage], kernel, dilation)
            x = x + gammas[0] * y
            y = p.layer_norm(x, f'{name}.norm2', EPS)
            hidden = int(mlp_ratio * channels)
            y = mlp(p, y, f'{name}.mlp.fc1', f'{name}.mlp.fc2', hidden, channels)
            x = x + gammas[1] * y
        maps.append(p.layer_norm(x, f'norm{stage}', EPS).permute(0, 3, 1, 2))
        if stage < len(depths) - 1:
            name = f'levels.{stage}.downsample'
            x = x.permute(0, 3, 1, 2)
            x = p.conv(x, f'{name}.reduction', 2 * channels, 3, 2, bias=False)
            x = p.layer_norm(x.permute(0, 2, 3, 1), f'{name}.norm', EPS, size=0.3)
    return maps


def forward_s(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    dilations: Sequence[Sequence[int]],
    kernel: int = 7,
) -> list[Tensor]:
    """Dense DiNAT_s: Swin with neighborhood attention."""

    def place(y: Tensor, name: str, stage: int, block: int) -> Tensor:
        return operator(p, y, name, heads[stage], kernel, dilations[stage][block])

    return swin.trunk(p, x, embed_dim, depths, place)


def known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    """NAT or DiNAT by official arguments."""
    dilations = config.get('dilations') or [[1] * depth for depth in config['depths']]
    return forward(
        p,
        x,
        config['embed_dim'],
        config['depths'],
        config['num_heads'],
        config['mlp_ratio'],
        dilations,
        config['kernel_size'],
        'layer_scale' in config,
    )


KNOWN = {'backbone_noscale': known, 'backbone_layerscale_k5': known}
_NET = dict(embed_dim=4, depths=[1, 2, 1, 1], heads=[1, 2, 2, 4])
CASES = {
    'net': dict(
        network='NAT',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 37, 70),
        seed=16,
        notes='the last two maps are smaller than the kernel',
    ),
    'net_scaled': dict(
        network='NAT',
        config=dict(sizes=dict(_NET, layer_scale=1e-5), kernel_size=5),
        forward=lambda p, x: forward(p, x, **_NET, kernel=5, scaled=True),
        shape=(1, 3, 37, 70),
        seed=17,
    ),
}
