"""CvT (arXiv 2103.15808)."""

from collections.abc import Sequence

import torch
from case import Weights
from torch import Tensor

EPS = 1e-5


def _block(
    p: Weights, x: Tensor, name: str, heads: int, ratio: float, size: tuple[int, int], token: bool
) -> Tensor:
    """Block on tokens (N, L, C), the first of which may be a class token."""
    channels = x.shape[-1]
    y = p.layer_norm(x, f'{name}.norm1', EPS)
    front, tokens = (y[:, :1], y[:, 1:]) if token else (y[:, :0], y)
    grid = tokens.transpose(1, 2).unflatten(2, size)
    parts = []
    for part, stride in (('q', 1), ('k', 2), ('v', 2)):
        z = p.conv(
            grid,
            f'{name}.attn.conv_proj_{part}.conv',
            channels,
            3,
            stride,
            groups=channels,
            bias=False,
        )
        z = p.batch_norm(z, f'{name}.attn.conv_proj_{part}.bn').flatten(2).transpose(1, 2)
        z = p.linear(torch.cat([front, z], 1), f'{name}.attn.proj_{part}', channels)
        parts.append(z.unflatten(-1, (heads, -1)).transpose(1, 2))
    q, k, v = parts
    # the width of all heads, as the checkpoints were trained
    share = (q @ k.transpose(2, 3) * channels**-0.5).softmax(-1)
    y = (share @ v).transpose(1, 2).flatten(2)
    x = x + p.linear(y, f'{name}.attn.proj', channels, gain=0.3)
    y = p.layer_norm(x, f'{name}.norm2', EPS)
    y = p.linear(y, f'{name}.mlp.fc1', int(ratio * channels))
    y = y * torch.sigmoid(1.702 * y)
    return x + p.linear(y, f'{name}.mlp.fc2', channels, gain=0.3)


def forward(
    p: Weights,
    x: Tensor,
    embed_dims: Sequence[int],
    depths: Sequence[int],
    heads: Sequence[int],
    mlp_ratios: Sequence[float] = (4, 4, 4),
    patch_sizes: Sequence[int] = (7, 3, 3),
    patch_strides: Sequence[int] = (4, 2, 2),
    patch_paddings: Sequence[int] = (2, 1, 1),
    classes: int = 0,
) -> list[Tensor]:
    """Raw maps of three stages without the class token, which the last one has."""
    maps = []
    for stage, channels in enumerate(embed_dims):
        name = f'stage{stage}'
        x = p.conv(
            x,
            f'{name}.patch_embed.proj',
            channels,
            patch_sizes[stage],
            patch_strides[stage],
            padding=patch_paddings[stage],
        )
        size = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)
        x = p.layer_norm(x, f'{name}.patch_embed.norm', EPS, size=0.2)
        token = stage == len(embed_dims) - 1
        if token:
            first = p.normal(f'{name}.cls_token', 1, 1, channels, std=0.3)
            x = torch.cat([first.expand(len(x), -1, -1), x], 1)
        for block in range(depths[stage]):
            x = _block(p, x, f'{name}.blocks.{block}', heads[stage], mlp_ratios[stage], size, token)
        front, x = (x[:, :1], x[:, 1:]) if token else (None, x)
        x = x.transpose(1, 2).unflatten(2, size)
        maps.append(x)
    if classes:
        maps.append(p.linear(p.layer_norm(front[:, 0], 'norm', EPS), 'head', classes))
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    names = 'DIM_EMBED', 'DEPTH', 'NUM_HEADS', 'MLP_RATIO'
    return forward(p, x, *(config[name] for name in names), classes=config['num_classes'])


KNOWN = {'backbone': _known}
_NET = dict(embed_dims=[8, 12, 24], depths=[1, 2, 2], heads=[1, 3, 4])
CASES = {
    'net': dict(
        network='CvT',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 37, 70),
        seed=20,
        notes='the class token takes part in the last stage',
    )
}
