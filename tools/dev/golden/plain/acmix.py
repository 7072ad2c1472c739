"""ACmix in ResNet and Swin (arXiv 2111.14556, section 4)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain import resnet, swin
from plain.parts import window_attention


def convolution(p: Weights, maps: Tensor, name: str, heads: int, stride: int, bias: bool) -> Tensor:
    """The convolution path on (N, maps, d, H, W): mix to 9 maps, shift by grouped kernels."""
    n, number, dim, height, width = maps.shape
    weight = p.normal(f'{name}.fc.weight', 9, number, 1, 1, std=number**-0.5)
    mixed = torch.einsum('os,nsdhw->nodhw', weight[:, :, 0, 0], maps)
    if bias:
        mixed = mixed + p.normal(f'{name}.fc.bias', 9, std=0.1).view(9, 1, 1, 1)
    mixed = mixed.transpose(1, 2).reshape(n, 9 * dim, height, width)
    return p.conv(
        mixed, f'{name}.dep_conv', heads * dim, 3, stride, padding=1, groups=dim, bias=False
    )


def operator(
    p: Weights, x: Tensor, name: str, channels: int, stride: int, k_att: int = 7, head: int = 4
) -> Tensor:
    """ACmix instead of a 3x3 convolution."""
    dim, reach = channels // head, k_att // 2
    q, k, v = (
        p.conv(x, f'{name}.conv{i}', channels, 1).unflatten(1, (head, dim)) for i in (1, 2, 3)
    )
    maps = torch.cat([q, k, v], 1)
    height, width = x.shape[2:]
    rows, columns = (torch.linspace(-1, 1, side, dtype=x.dtype) for side in (height, width))
    place = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)])[None]
    place = p.conv(place, f'{name}.conv_p', dim, 1)[0]

    def padded(z: Tensor) -> Tensor:
        shape = z.shape
        z = F.pad(z.reshape(-1, 1, height, width), [reach] * 4, mode='reflect')
        return z.view(*shape[:-2], *z.shape[-2:])

    keys, values, places = padded(k), padded(v), padded(place)
    out = torch.zeros(*x.shape[:1], head, dim, -(-height // stride), -(-width // stride)).double()
    for i in range(out.shape[3]):
        for j in range(out.shape[4]):
            top, left = i * stride, j * stride
            window = slice(top, top + k_att), slice(left, left + k_att)
            here = place[:, top, left, None, None]
            shifted = keys[..., window[0], window[1]] + here - places[:, window[0], window[1]]
            logits = torch.einsum('nad,nadyx->nayx', q[..., top, left], shifted) * dim**-0.5
            share = logits.flatten(2).softmax(-1).view_as(logits)
            out[..., i, j] = torch.einsum(
                'nayx,nadyx->nad', share, values[..., window[0], window[1]]
            )
    rate = [p.uniform(f'{name}.rate{i}', 1) for i in (1, 2)]
    return rate[0] * out.flatten(1, 2) + rate[1] * convolution(p, maps, name, head, stride, False)


def resnet_forward(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    widths: Sequence[int],
    out_channels: Sequence[int],
    stem: int,
    k_att: int = 7,
    head: int = 4,
) -> list[Tensor]:
    """ResNet with ACmix."""

    def place(y: Tensor, name: str, width: int, stride: int, *_: int) -> Tensor:
        y = operator(p, y, f'{name}.conv2', width, stride, k_att, head)
        return p.batch_norm(y, f'{name}.bn2')

    return resnet.trunk(p, x, stem, depths, widths, out_channels, place)


def _known_resnet(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    planes = [64, 128][: config['num_stages']]
    widths = [config['width_per_group'] * plane // 64 for plane in planes]
    return resnet_forward(
        p,
        x,
        config['layers'],
        widths,
        [4 * plane for plane in planes],
        64,
        config['k_att'],
        config['head'],
    )


def swin_forward(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    depths: Sequence[int],
    heads: Sequence[int],
    window: int = 7,
    norms: bool = True,
) -> list[Tensor]:
    """Swin with ACmix, maps padded to whole windows."""

    def place(y: Tensor, name: str, stage: int, block: int) -> Tensor:
        height, width, channels = y.shape[1:]
        number = heads[stage]
        shift = window // 2 * (block % 2) if min(height, width) > window else 0
        y = F.pad(y, (0, 0, 0, -width % window, 0, -height % window)).roll((-shift, -shift), (1, 2))
        qkv = p.linear(y, f'{name}.qkv', 3 * channels).unflatten(-1, (3, number, -1))
        maps = qkv.flatten(3, 4).permute(0, 3, 4, 1, 2)
        conv = convolution(p, maps, name, number, 1, True).permute(0, 2, 3, 1)
        scale = (channels // number) ** -0.5
        bias = swin.window_bias(p, name, window, number)
        y = window_attention(*qkv.unbind(3), window, shift, scale, bias)
        y = p.linear(y, f'{name}.proj', channels, gain=0.4)
        rates = [p.uniform(f'{name}.rate{i}', 1) for i in (1, 2)]
        y = rates[0] * y + rates[1] * conv
        return y.roll((shift, shift), (1, 2))[:, :height, :width]

    return swin.trunk(p, x, embed_dim, depths, place, norms=norms)


def _known_swin(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    maps = swin_forward(
        p,
        x,
        config['embed_dim'],
        config['depths'],
        config['num_heads'],
        config['window_size'],
        norms=False,
    )
    last = p.layer_norm(maps[-1].permute(0, 2, 3, 1), 'norm', swin.EPS).mean((1, 2))
    return [*maps, p.linear(last, 'head', config['num_classes'])]


KNOWN = {'resnet_net': _known_resnet, 'swin_net': _known_swin}
_RESNET = dict(stem=8, depths=[1, 2, 1, 1], widths=[8, 8, 16, 16], out_channels=[16, 16, 24, 32])
_SWIN = dict(embed_dim=4, depths=[1, 2, 1, 2], heads=[1, 2, 2, 4])
CASES = {
    'net_resnet': dict(
        network='ACmixResNet',
        config=dict(sizes=_RESNET),
        forward=lambda p, x: resnet_forward(p, x, **_RESNET),
        shape=(1, 3, 64, 74),
        seed=1,
    ),
    'net_swin': dict(
        network='ACmixSwin',
        config=dict(sizes=_SWIN),
        forward=lambda p, x: swin_forward(p, x, **_SWIN),
        shape=(1, 3, 58, 70),
        seed=2,
    ),
}
