"""HaloNet (arXiv 2103.12731)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.byobnet import network


def operator(
    p: Weights,
    x: Tensor,
    name: str,
    heads: int,
    stride: int,
    block: int,
    halo: int,
    values: float = 1.0,
) -> Tensor:
    """Attention of every block to itself and its halo, with zeros outside the map.

    ``values`` is the width of the values as a multiple of that of the queries.
    """
    channels, height, width = x.shape[1:]
    dim, window = channels // heads, block + 2 * halo
    wide = round(channels * values) // heads
    x = F.pad(x, (0, -width % block, 0, -height % block))
    q = p.conv(x, f'{name}.q', channels, 1, stride, bias=False, gain=1.5)
    kv = p.conv(x, f'{name}.kv', heads * (dim + wide), 1, bias=False, gain=1.5)
    kv = F.pad(kv, [halo] * 4).unflatten(1, (heads, dim + wide))
    q = q.unflatten(1, (heads, dim))
    rel_h, rel_w = (
        p.normal(f'{name}.pos_embed.{axis}_rel', 2 * window - 1, dim)
        for axis in ('height', 'width')
    )
    side = block // stride
    offset = torch.arange(window) - torch.arange(side)[:, None] + window - 1
    out = q.new_zeros(*q.shape[:2], wide, *q.shape[3:])
    for i in range(x.shape[2] // block):
        for j in range(x.shape[3] // block):
            a = q[..., i * side : (i + 1) * side, j * side : (j + 1) * side]
            part = kv[..., i * block : i * block + window, j * block : j * block + window]
            k, v = part.split([dim, wide], 2)
            logits = torch.einsum('nhdyx,nhduv->nhyxuv', a, k) * dim**-0.5
            logits = logits + torch.einsum('nhdyx,yud->nhyxu', a, rel_h[offset])[..., None]
            logits = logits + torch.einsum('nhdyx,xvd->nhyxv', a, rel_w[offset])[..., None, :]
            share = logits.flatten(4).softmax(-1).view_as(logits)
            mixed = torch.einsum('nhyxuv,nhduv->nhdyx', share, v)
            out[..., i * side : (i + 1) * side, j * side : (j + 1) * side] = mixed
    return out[..., : -(-height // stride), : -(-width // stride)].flatten(1, 2)


def forward(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    channels: Sequence[int],
    stem: int,
    attention: Sequence,
    ratio: float = 0.25,
    block: int = 8,
    halo: int = 3,
    heads: Sequence[int] = (8,) * 4,
    values: float = 1.0,
    **kwargs,
) -> list[Tensor]:
    """Maps of a network with attention in some stages."""

    def attend(y: Tensor, name: str, stage: int, index: int, stride: int) -> Tensor:
        return operator(p, y, name, heads[stage], stride, block, halo, values)

    return network(
        p, x, depths, channels, stem, ratio, lambda stage, _: attention[stage], attend, **kwargs
    )


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    return forward(p, x, [1, 1, 2, 1], [16, 32, 32, 48], 16, [True] * 4, 1.0, 2, 2)


KNOWN = {'net_halonet_h1_tiny': _known}
_NET = dict(depths=[1, 2, 1, 2], channels=[16, 16, 24, 64])
_H6 = dict(depths=[1, 1, 2, 1], channels=[22, 22, 44, 44])
CASES = {
    'net': dict(
        network='HaloNet',
        config=dict(sizes=dict(_NET, stem=dict(kind='7x7', channels=8, pool=True))),
        forward=lambda p, x: forward(
            p, x, **_NET, stem=8, attention=[False, False, False, True], act=F.silu, excite=True
        ),
        shape=(1, 3, 33, 138),
        seed=37,
        notes='squeeze and excitation after the last norm: our reading of the paper',
    ),
    'net_h6': dict(
        network='HaloNet',
        config=dict(arch='h6', sizes=dict(_H6, stem=dict(kind='7x7', channels=8, pool=True))),
        forward=lambda p, x: forward(
            p, x, **_H6, stem=8, attention=[True] * 4, ratio=1 / 2.75, halo=4, values=3.0,
            heads=[4, 8, 8, 8],
        ),
        shape=(1, 3, 33, 58),
        seed=38,
    ),
}  # fmt: skip
