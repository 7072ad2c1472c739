"""VAN (arXiv 2202.09741) and its separable attention (LSKA, arXiv 2309.01439)."""

from collections.abc import Sequence

import torch.nn.functional as F
from case import Weights
from torch import Tensor

EPS = 1e-5


def _lka(p: Weights, x: Tensor, name: str) -> Tensor:
    """Large kernel attention of 23 x 23."""
    c = x.shape[1]
    y = p.conv(x, f'{name}.conv0', c, 5, groups=c)
    y = p.conv(y, f'{name}.conv_spatial', c, 7, padding=9, dilation=3, groups=c)
    return x * p.conv(y, f'{name}.conv1', c, 1)


def _lska(p: Weights, x: Tensor, name: str) -> Tensor:
    """The separable form."""
    c = x.shape[1]
    y = p.conv(x, f'{name}.conv0h', c, (1, 5), groups=c)
    y = p.conv(y, f'{name}.conv0v', c, (5, 1), groups=c)
    y = p.conv(y, f'{name}.conv_spatial_h', c, (1, 7), padding=(0, 9), dilation=3, groups=c)
    y = p.conv(y, f'{name}.conv_spatial_v', c, (7, 1), padding=(9, 0), dilation=3, groups=c)
    return x * p.conv(y, f'{name}.conv1', c, 1)


def forward(
    p: Weights,
    x: Tensor,
    embed_dims: Sequence[int],
    depths: Sequence[int],
    mlp_ratios: Sequence[int] = (8, 8, 4, 4),
    attend=_lka,
) -> list[Tensor]:
    """Dense network: the normalised map of a stage is its output and the next stage's input."""
    maps = []
    for stage, (width, depth, ratio) in enumerate(
        zip(embed_dims, depths, mlp_ratios, strict=True), 1
    ):
        name, first = f'patch_embed{stage}', stage == 1
        x = p.conv(x, f'{name}.proj', width, 7 if first else 3, 4 if first else 2)
        x = p.batch_norm(x, f'{name}.norm')
        for i in range(depth):
            name = f'block{stage}.{i}'
            scales = [p.uniform(f'{name}.layer_scale_{k}', width).view(-1, 1, 1) for k in (1, 2)]
            y = p.batch_norm(x, f'{name}.norm1')
            z = F.gelu(p.conv(y, f'{name}.attn.proj_1', width, 1))
            z = attend(p, z, f'{name}.attn.spatial_gating_unit')
            y = y + p.conv(z, f'{name}.attn.proj_2', width, 1)
            x = x + scales[0] * y
            y = p.conv(p.batch_norm(x, f'{name}.norm2'), f'{name}.mlp.fc1', ratio * width, 1)
            y = p.conv(y, f'{name}.mlp.dwconv.dwconv', ratio * width, 3, groups=ratio * width)
            x = x + scales[1] * p.conv(F.gelu(y), f'{name}.mlp.fc2', width, 1)
        x = p.layer_norm_2d(x, f'norm{stage}', EPS)
        maps.append(x)
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    return forward(p, x, config['embed_dims'], config['depths'], config['mlp_ratios'])


KNOWN = {'backbone_dense_a': _known}
_NET = dict(embed_dims=[4, 8, 12, 16], depths=[1, 2, 1, 1])
CASES = {
    'net': dict(
        network='VAN',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 37, 70),
        seed=32,
    ),
    'net_lska': dict(
        network='VAN',
        config=dict(sizes=_NET, attention='lska'),
        forward=lambda p, x: forward(p, x, **_NET, attend=_lska),
        shape=(1, 3, 37, 70),
        seed=33,
    ),
}
