"""ResNet with stand-alone self-attention (arXiv 1906.05909)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain import resnet


def operator(
    p: Weights, x: Tensor, name: str, channels: int, heads: int, kernel: int, stride: int
) -> Tensor:
    """Local attention; zeros beyond the border take part."""
    height, width = x.shape[2:]
    q, k, v = (
        p.conv(x, f'{name}.{part}_conv', channels, 1, bias=False).unflatten(1, (heads, -1))
        for part in ('query', 'key', 'value')
    )
    dim = channels // heads
    rel_h, rel_w = (p.normal(f'{name}.rel_{axis}', 1, kernel, dim // 2)[0] for axis in 'hw')
    k, v = (F.pad(z, [kernel // 2] * 4) for z in (k, v))
    logits, values = [], []
    for i in range(kernel):
        for j in range(kernel):
            part = slice(i, i + height), slice(j, j + width)
            place = torch.cat([rel_h[i], rel_w[j]])[:, None, None]
            logits.append((q * (k[..., part[0], part[1]] + place)).sum(2))
            values.append(v[..., part[0], part[1]])
    share = torch.stack(logits, -1).softmax(-1)
    out = (share[:, :, None] * torch.stack(values, -1)).sum(-1).flatten(1, 2)
    if stride > 1:
        out = F.avg_pool2d(out, 2, 2, ceil_mode=True, count_include_pad=False)
    return out


def forward(
    p: Weights,
    x: Tensor,
    stem: int,
    depths: Sequence[int],
    widths: Sequence[int],
    out_channels: Sequence[int],
    heads: Sequence[int] = (8,) * 4,
    kernel: int = 7,
) -> list[Tensor]:
    """ResNet with a convolution stem and attention in all stages."""

    def place(y: Tensor, name: str, width: int, stride: int, stage: int, _: int) -> Tensor:
        y = operator(p, y, f'{name}.conv2', width, heads[stage], kernel, stride)
        return p.batch_norm(y, f'{name}.bn2')

    return resnet.trunk(p, x, stem, depths, widths, out_channels, place)


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    planes = config['planes']
    return forward(
        p,
        x,
        config['stem'],
        config['depths'],
        planes,
        [4 * c for c in planes],
        config['heads'],
        config['k'],
    )


KNOWN = {'net_sasa_convstem_tiny': _known}
_NET = dict(stem=8, depths=[1, 2, 1, 1], widths=[16, 16, 16, 32], out_channels=[8, 16, 24, 32])
CASES = {
    'net': dict(
        network='SASAResNet',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 33, 58),
        seed=31,
    ),
}
