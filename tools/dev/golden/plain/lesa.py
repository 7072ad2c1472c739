"""ResNet with LESA (arXiv 2107.05637), positions by rows and columns."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain import resnet


def deformable(p: Weights, x: Tensor, name: str, groups: int = 1, stride: int = 1) -> Tensor:
    """3x3 convolution whose taps are moved by offsets (row, column), with zeros outside."""
    n, channels, height, width = x.shape
    offset = p.conv(x, f'{name}.conv_offset', 18, 3, stride, gain=0.6)
    rows, columns = offset.shape[2:]
    weight = p.normal(
        f'{name}.weight', channels, channels // groups, 3, 3, std=(9 * channels / groups) ** -0.5
    )
    padded = F.pad(x, (2, 2, 2, 2))
    taps = []
    for tap in range(9):
        y = torch.arange(rows)[:, None] * stride + tap // 3 - 1 + offset[:, 2 * tap]
        z = torch.arange(columns) * stride + tap % 3 - 1 + offset[:, 2 * tap + 1]
        top, left = y.floor(), z.floor()
        value = 0
        for i in (0, 1):
            for j in (0, 1):
                share = (1 - (y - top - i).abs()) * (1 - (z - left - j).abs())
                # pixels outside the map are clamped to a border of zeros
                a = (top + i).clamp(-1, height).long() + 2
                b = (left + j).clamp(-1, width).long() + 2
                image = torch.arange(n)[:, None, None]
                value = value + share[:, None] * padded[image, :, a, b].permute(0, 3, 1, 2)
        taps.append(value)
    columns_of_taps = torch.stack(taps, 2).unflatten(1, (groups, -1))
    kernels = weight.flatten(2).unflatten(0, (groups, -1))
    return torch.einsum('ngctyx,goct->ngoyx', columns_of_taps, kernels).flatten(1, 2)


def fit(table: Tensor, size: int) -> Tensor:
    """The middle entries for a smaller map, linear interpolation for a larger one."""
    stored, needed = len(table), 2 * size - 1
    if needed <= stored:
        return table[(stored - needed) // 2 : (stored - needed) // 2 + needed]
    return F.interpolate(table.t()[None], needed, mode='linear', align_corners=True)[0].t()


def operator(
    p: Weights,
    x: Tensor,
    name: str,
    groups: int,
    stride: int,
    side: tuple[int, int],
    deform: bool,
) -> Tensor:
    """LESA; its tables are made for maps of ``side``."""
    channels, height, width = x.shape[1:]
    dim = channels // (2 * groups)
    if deform:
        local = deformable(p, x, f'{name}.x_transform.0', groups)
    else:
        local = p.conv(x, f'{name}.x_transform.0', channels, 3, groups=groups, bias=False)
    local = p.conv(local, f'{name}.x_transform.1', channels, 1, bias=False)
    local = p.batch_norm(local, f'{name}.bn_x')
    weight = p.normal(f'{name}.qkv_transform.weight', 2 * channels, channels, 1, std=channels**-0.5)
    qkv = p.batch_norm(weight[:, :, 0] @ x.flatten(2), f'{name}.bn_qkv')
    q, k, v = (
        z.unflatten(-1, (height, width))
        for z in qkv.unflatten(1, (groups, -1)).split([dim, dim, 2 * dim], 2)
    )
    rel_h, rel_w = (
        fit(p.normal(f'{name}.rel_{axis}', 2 * made - 1, dim, std=2 * dim**-0.5), length)
        for axis, made, length in (('height', side[0], height), ('width', side[1], width))
    )
    content = torch.einsum('ngdyx,ngduv->ngyxuv', q, k)
    rows = torch.arange(height) - torch.arange(height)[:, None] + height - 1
    columns = torch.arange(width) - torch.arange(width)[:, None] + width - 1
    place = torch.einsum('ngdyx,yud->ngyxu', q, rel_h[rows])[..., None]
    place = place + torch.einsum('ngdyx,xvd->ngyxv', q, rel_w[columns])[..., None, :]
    logits = torch.cat([content, place], 1).flatten(4).flatten(2, 3)
    logits = p.batch_norm(logits, f'{name}.bn_similarity')
    share = (logits[:, :groups] + logits[:, groups:]).softmax(-1)
    context = torch.einsum('ngij,ngcj->ngci', share, v.flatten(3)).flatten(1, 2)
    context = p.batch_norm(context, f'{name}.bn_output').unflatten(2, (height, width))
    gate = F.relu(torch.cat([local, context], 1))
    gate = p.conv(gate, f'{name}.reasoning.1', channels, 1, bias=False)
    gate = F.relu(p.batch_norm(gate, f'{name}.reasoning.2'))
    gate = p.conv(gate, f'{name}.projection.0', channels, 1, bias=False)
    gate = torch.sigmoid(p.batch_norm(gate, f'{name}.projection.1'))
    out = local + gate * context
    return F.avg_pool2d(out, stride, ceil_mode=True) if stride > 1 else out


def forward(
    p: Weights,
    x: Tensor,
    stem: int,
    depths: Sequence[int],
    widths: Sequence[int],
    out_channels: Sequence[int],
    groups: int = 8,
    size: tuple[int, int] = (224, 224),
    deform: Sequence[bool] = (False,) * 4,
) -> list[Tensor]:
    """LESA in the third stage but for its first block, and in the fourth."""

    def place(y: Tensor, name: str, width: int, stride: int, stage: int, block: int) -> Tensor:
        if stage == 3 or (stage == 2 and block):
            side = tuple(s * stride // 2 ** (stage + 2) for s in size)
            return operator(p, y, f'{name}.conv2', groups, stride, side, deform[stage])
        if deform[stage]:
            y = deformable(p, y, f'{name}.conv2', stride=stride)
        else:
            y = p.conv(y, f'{name}.conv2', width, 3, stride, bias=False)
        return p.batch_norm(y, f'{name}.bn2')

    return resnet.trunk(p, x, stem, depths, widths, out_channels, place)


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    planes = [config['base_channels'] * 2**i for i in range(4)]
    return forward(
        p,
        x,
        config['base_channels'],
        config['stage_blocks'],
        planes,
        [4 * c for c in planes],
        config['lesa']['groups'],
        (4 * config['stage_spatial_res'][0],) * 2,
    )


def _known_operator(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    inner = Weights(given={f'x.{key}': value for key, value in p.given.items()})
    out = operator(
        inner,
        x,
        'x',
        config['lesa']['groups'],
        config['stride'],
        (config['kernel_size'],) * 2,
        True,
    )
    p.used = p.given
    return [out]


KNOWN = {'lesa_resnet_det_qr': _known, 'lesa_op_det_qr_dcn': _known_operator}
_NET = dict(stem=8, depths=[1, 1, 2, 2], widths=[8, 16, 32, 32], out_channels=[16, 16, 24, 32])
CASES = {
    'net': dict(
        network='LESAResNet',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 33, 58),
        seed=14,
        notes='tables of 14 x 14 positions on maps of 3 x 4',
    ),
    'net_deformable': dict(
        network='LESAResNet',
        config=dict(
            sizes=_NET, deformable=[False, True, True, True], canvas_size=[64, 96]
        ),
        forward=lambda p, x: forward(
            p, x, **_NET, size=(64, 96), deform=[False, True, True, True]
        ),
        shape=(1, 3, 33, 58),
        seed=15,
        notes='offsets of about half a pixel',
    ),
}  # fmt: skip
