"""BoTNet (arXiv 2101.11605)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.aa_resnet import relative_logits
from plain.byobnet import network
from plain.lesa import fit


def operator(
    p: Weights, x: Tensor, name: str, heads: int, stride: int, size: Sequence[int], scaled: bool
) -> Tensor:
    """Attention over the whole map; the tables are made for maps of ``size``."""
    channels = x.shape[1]
    dim = channels // heads
    qkv = p.conv(x, f'{name}.qkv', 3 * channels, 1, bias=False, gain=1.5)
    q, k, v = (z.unflatten(1, (heads, dim)) for z in qkv.chunk(3, 1))
    tables = [
        fit(p.normal(f'{name}.pos_embed.{axis}_rel', 2 * made - 1, dim), length)
        for axis, made, length in zip(('height', 'width'), size, x.shape[2:], strict=True)
    ]
    content, place = torch.einsum('nhdyx,nhduv->nhyxuv', q, k), relative_logits(q, *tables)
    logits = content * dim**-0.5 + place * (dim**-0.5 if scaled else 1.0)
    share = logits.flatten(4).softmax(-1).view_as(logits)
    out = torch.einsum('nhyxuv,nhduv->nhdyx', share, v).flatten(1, 2)
    if stride > 1:
        out = F.avg_pool2d(out, 2, 2, ceil_mode=True, count_include_pad=False)
    return out


def forward(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    channels: Sequence[int],
    stem: int,
    canvas: Sequence[int],
    attention: Sequence = (False, False, False, True),
    scaled: bool = True,
    tiered: bool = False,
) -> list[Tensor]:
    """Maps of a network whose tables are made for images of ``canvas``."""

    def attends(stage: int, block: int) -> bool:
        blocks = attention[stage]
        return blocks if isinstance(blocks, bool) else block in blocks

    def attend(y: Tensor, name: str, stage: int, block: int, stride: int) -> Tensor:
        size = [-(-side // (2 ** (stage + 2) // stride)) for side in canvas]
        return operator(p, y, name, 4, stride, size, scaled)

    return network(p, x, depths, channels, stem, 0.25, attends, attend, tiered=tiered)


def _known_paper(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    return forward(p, x, [1, 1, 1, 3], [32, 48, 64, 128], 16, x.shape[2:])


KNOWN = {'net_bot50_layout_tiny': _known_paper}
_NET = dict(depths=[1, 2, 1, 2], channels=[16, 16, 24, 64])
_26T = dict(depths=[1, 1, 2, 1], channels=[16, 16, 32, 64])
CASES = {
    'net': dict(
        network='BoTNet',
        config=dict(
            sizes=dict(_NET, stem=dict(kind='7x7', channels=8, pool=True)), canvas_size=[96, 64]
        ),
        forward=lambda p, x: forward(p, x, **_NET, stem=8, canvas=[96, 64]),
        shape=(1, 3, 45, 74),
        seed=36,
        notes='tables of 6 x 4 positions on a map of 3 x 5: cut on one axis, stretched on one',
    ),
    'net_26t': dict(
        network='BoTNet',
        config=dict(
            arch='botnet26t', canvas_size=[64, 96],
            sizes=dict(_26T, stem=dict(kind='tiered', channels=16, pool=True)),
        ),
        forward=lambda p, x: forward(
            p, x, **_26T, stem=16, canvas=[64, 96], attention=[False, False, (1,), True],
            scaled=False, tiered=True,
        ),
        shape=(1, 3, 45, 74),
        seed=39,
    ),
}  # fmt: skip
