"""PVT, version 1 (arXiv 2102.12122)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.acmix import convolution
from plain.parts import mlp

EPS = 1e-6  # of norms in blocks; norms after an embedding or a reduction have 1e-5


def _attention(
    p: Weights, x: Tensor, name: str, heads: int, ratio: int, size: tuple, mix: bool
) -> Tensor:
    """Attention to a reduced map; ``mix`` adds ACmix's convolution path, by our reading."""
    channels = x.shape[-1]
    q = p.linear(x, f'{name}.q', channels)
    if ratio > 1:
        x = x.transpose(1, 2).unflatten(2, size)
        x = p.conv(x, f'{name}.sr', channels, ratio, ratio, padding=0).flatten(2).transpose(1, 2)
        x = p.layer_norm(x, f'{name}.norm', 1e-5)
    k, v = p.linear(x, f'{name}.kv', 2 * channels).chunk(2, -1)
    q, k, v = (z.unflatten(-1, (heads, -1)).transpose(1, 2) for z in (q, k, v))
    share = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1)
    out = p.linear((share @ v).transpose(1, 2).flatten(2), f'{name}.proj', channels, gain=0.3)
    if not mix:
        return out
    grid, maps = tuple(side // ratio for side in size), []
    for z, own in ((q, size), (k, grid), (v, grid)):
        z = z.transpose(2, 3).flatten(1, 2).unflatten(2, own)
        z = F.interpolate(z, size, mode='bilinear') if own != size else z
        maps.append(z.unflatten(1, (heads, -1)))
    conv = convolution(p, torch.cat(maps, 1), name, heads, 1, True).flatten(2).transpose(1, 2)
    rates = [p.uniform(f'{name}.rate{i}', 1) for i in (1, 2)]
    return rates[0] * out + rates[1] * conv


def forward(
    p: Weights,
    x: Tensor,
    embed_dims: Sequence[int],
    heads: Sequence[int],
    depths: Sequence[int],
    mlp_ratios: Sequence[int] = (8, 8, 4, 4),
    reductions: Sequence[int] = (8, 4, 2, 1),
    side: int = 224,
    mix: bool = False,
) -> list[Tensor]:
    """Dense network without output norms; positions are made for images of ``side``."""
    maps = []
    for stage, channels in enumerate(embed_dims):
        i, patch = stage + 1, 2 if stage else 4
        x = p.conv(x, f'patch_embed{i}.proj', channels, patch, patch, padding=0)
        size = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)
        x = p.layer_norm(x, f'patch_embed{i}.norm', 1e-5, size=0.1)
        grid, last = side // 2 ** (stage + 2), stage == len(embed_dims) - 1
        place = p.normal(f'pos_embed{i}', 1, grid**2 + last, channels, std=0.1)
        place = place[:, last:].transpose(1, 2).unflatten(2, (grid, grid))
        if size != (grid, grid):
            place = F.interpolate(place, size=size, mode='bilinear')
        x = x + place.flatten(2).transpose(1, 2)
        for block in range(depths[stage]):
            name = f'block{i}.{block}'
            y = p.layer_norm(x, f'{name}.norm1', EPS)
            x = x + _attention(p, y, f'{name}.attn', heads[stage], reductions[stage], size, mix)
            y = p.layer_norm(x, f'{name}.norm2', EPS)
            hidden = mlp_ratios[stage] * channels
            x = x + mlp(p, y, f'{name}.mlp.fc1', f'{name}.mlp.fc2', hidden, channels)
        x = x.transpose(1, 2).unflatten(2, size)
        maps.append(x)
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    names = 'embed_dims', 'num_heads', 'depths', 'mlp_ratios', 'sr_ratios'
    return forward(p, x, *(config[name] for name in names), config['img_size'])


KNOWN = {'net_native': _known, 'net_interp': _known}
_NET = dict(embed_dims=[8, 8, 16, 24], heads=[1, 2, 2, 3], depths=[1, 2, 1, 1])
CASES = {
    'net': dict(
        network='PVT',
        config=dict(sizes=_NET, img_size=64),
        forward=lambda p, x: forward(p, x, **_NET, side=64),
        shape=(1, 3, 32, 128),
        seed=22,
        notes='maps with as many positions as the squares that the positions are made for',
    ),
    'net_acmix': dict(
        network='PVT',
        config=dict(sizes=_NET, img_size=64, acmix=True),
        forward=lambda p, x: forward(p, x, **_NET, side=64, mix=True),
        shape=(1, 3, 32, 96),
        seed=34,
        notes='nobody has published this network: our reading of the paper',
    ),
}
