"""ResNet with attention-augmented convolutions (arXiv 1904.09925)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain import resnet
from plain.lesa import fit


def relative_logits(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """(N, heads, d, H, W) with tables (2 H - 1, d) and (2 W - 1, d): (N, heads, H, W, H, W)."""
    height, width = q.shape[3:]
    rows = torch.arange(height) - torch.arange(height)[:, None] + height - 1
    columns = torch.arange(width) - torch.arange(width)[:, None] + width - 1
    return (
        torch.einsum('nhdyx,yud->nhyxu', q, rel_h[rows])[..., None]
        + torch.einsum('nhdyx,xvd->nhyxv', q, rel_w[columns])[..., None, :]
    )


def operator(
    p: Weights,
    x: Tensor,
    name: str,
    channels: int,
    keys: int,
    values: int,
    heads: int,
    stride: int,
    down: bool,
    size: Sequence[int],
) -> Tensor:
    """Convolution and attention side by side; the tables are made for maps of ``size``."""
    conv = p.conv(x, f'{name}.conv_out', channels - values, 3, stride, bias=False)
    y = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False) if down else x
    y = p.conv(y, f'{name}.qkv_conv', 2 * keys + values, 1, stride, bias=False, gain=1.5)
    q, k, v = (z.unflatten(1, (heads, -1)) for z in y.split([keys, keys, values], 1))
    q = q * (keys // heads) ** -0.5
    tables = [
        fit(p.normal(f'{name}.key_rel_{axis}', 2 * made - 1, keys // heads), length)
        for axis, made, length in zip('hw', size, y.shape[2:], strict=True)
    ]
    logits = torch.einsum('nhdyx,nhduv->nhyxuv', q, k) + relative_logits(q, *tables)
    share = logits.flatten(4).softmax(-1).view_as(logits)
    out = torch.einsum('nhyxuv,nhduv->nhdyx', share, v).flatten(1, 2)
    out = p.conv(out, f'{name}.attn_out', values, 1, bias=False)
    if out.shape[2:] != conv.shape[2:]:
        out = F.interpolate(out, conv.shape[2:], mode='bilinear', align_corners=False)
    return torch.cat([conv, out], 1)


def forward(
    p: Weights,
    x: Tensor,
    stem: int,
    depths: Sequence[int],
    widths: Sequence[int],
    out_channels: Sequence[int],
    keys: Sequence[int],
    values: Sequence[int],
    heads: Sequence[int] = (8,) * 4,
    down: Sequence[bool] = (False, True, False, False),
    augmented: Sequence[bool] = (False, True, True, True),
    sizes: Sequence[Sequence[int]] = ((56, 56), (14, 14), (14, 14), (7, 7)),
) -> list[Tensor]:
    """ResNet with attention in the last three stages, in the second at half the resolution."""

    def place(y: Tensor, name: str, width: int, stride: int, stage: int, _: int) -> Tensor:
        if augmented[stage]:
            y = operator(
                p,
                y,
                f'{name}.conv2',
                width,
                keys[stage],
                values[stage],
                heads[stage],
                stride,
                down[stage],
                sizes[stage],
            )
        else:
            y = p.conv(y, f'{name}.conv2', width, 3, stride, bias=False)
        return p.batch_norm(y, f'{name}.bn2')

    return resnet.trunk(p, x, stem, depths, widths, out_channels, place)


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    parts = [part or dict(dk=0, dv=0, Nh=1, size=None) for part in config['aa_per_stage']]
    planes = config['planes']
    return forward(
        p,
        x,
        config['stem'],
        config['depths'],
        planes,
        [4 * c for c in planes],
        *([part[key] for part in parts] for key in ('dk', 'dv', 'Nh')),
        [part.get('attn_down', False) for part in parts],
        [part['size'] is not None for part in parts],
        [part['size'] for part in parts],
    )


KNOWN = {'net_aa_resnet_tiny': _known}
_NET = dict(stem=8, depths=[1, 1, 2, 1], widths=[8, 16, 16, 16], out_channels=[8, 12, 16, 16])
CASES = {
    'net': dict(
        network='AAResNet',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET, keys=[160] * 4, values=[8] * 4),
        shape=(1, 3, 33, 58),
        seed=30,
        notes='20 key channels a head at least; tables of 14 x 14 positions on maps of 3 x 4',
    ),
}
