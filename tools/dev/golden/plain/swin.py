"""Trunk of the Swin Transformers: blocks whose attention is an operator."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.parts import mlp, nchw, nhwc, offsets

EPS = 1e-5


def window_bias(p: Weights, name: str, window: int, heads: int) -> Tensor:
    """Bias (heads, window^2, window^2) of Swin's table."""
    table = p.normal(f'{name}.relative_position_bias_table', (2 * window - 1) ** 2, heads, std=0.5)
    dy, dx = offsets(window) + window - 1
    return table[(2 * window - 1) * dy + dx].permute(2, 0, 1)


def trunk(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    depths: Sequence[int],
    operator: Callable,
    mlp_ratio: float = 4.0,
    norms: bool = True,
) -> list[Tensor]:
    """Maps of all stages.

    Args:
        p: Weights.
        x: Image.
        embed_dim: Channels of the first stage.
        depths: Blocks per stage.
        operator: ``operator(x, name, stage, block)`` on normalised tokens (N, H, W, C).
        mlp_ratio: Width of the feed-forward networks.
        norms: Normalise the returned maps.
    """
    x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
    x = nhwc(p.conv(x, 'patch_embed.proj', embed_dim, 4, 4, padding=0))
    x = p.layer_norm(x, 'patch_embed.norm', EPS, size=0.2)
    maps = []
    for stage, depth in enumerate(depths):
        for block in range(depth):
            name = f'layers.{stage}.blocks.{block}'
            x = x + operator(p.layer_norm(x, f'{name}.norm1', EPS), f'{name}.attn', stage, block)
            y = p.layer_norm(x, f'{name}.norm2', EPS)
            width = x.shape[-1]
            hidden = int(mlp_ratio * width)
            x = x + mlp(p, y, f'{name}.mlp.fc1', f'{name}.mlp.fc2', hidden, width)
        maps.append(nchw(p.layer_norm(x, f'norm{stage}', EPS) if norms else x))
        if stage < len(depths) - 1:
            x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
            x = torch.cat(
                [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1
            )
            name = f'layers.{stage}.downsample'
            x = p.layer_norm(x, f'{name}.norm', EPS)
            x = p.linear(x, f'{name}.reduction', x.shape[-1] // 2, bias=False, gain=0.3)
    return maps
