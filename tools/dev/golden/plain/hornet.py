"""HorNet (arXiv 2207.14284)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.parts import convnext_downsample, mlp, nchw, nhwc

EPS = 1e-6


def _filter(p: Weights, x: Tensor, name: str, size: tuple[int, int]) -> Tensor:
    """Half of the channels by a 3x3 kernel, half by a learned spectrum, interleaved."""
    channels = x.shape[1]
    x = p.layer_norm_2d(x, f'{name}.pre_norm', EPS)
    a, b = x.chunk(2, 1)
    a = p.conv(a, f'{name}.dw', channels // 2, 3, groups=channels // 2, bias=False, gain=0.1)
    spectrum = p.normal(f'{name}.complex_weight', channels // 2, *size, 2, std=0.05)
    height, width = b.shape[2:]
    wanted = height, width // 2 + 1
    if tuple(size) != wanted:
        spectrum = F.interpolate(
            spectrum.permute(3, 0, 1, 2), size=wanted, mode='bilinear', align_corners=True
        ).permute(1, 2, 3, 0)
    spectrum = torch.view_as_complex(spectrum.contiguous())
    b = torch.fft.irfft2(
        torch.fft.rfft2(b, norm='ortho') * spectrum, s=(height, width), norm='ortho'
    )
    x = torch.stack([a, b], 2).flatten(1, 2)
    return p.layer_norm_2d(x, f'{name}.post_norm', EPS)


def _gated(
    p: Weights, x: Tensor, name: str, order: int, size: Sequence[int] | None, scale: float
) -> Tensor:
    """Recursive gated convolution."""
    channels = x.shape[1]
    dims = [channels // 2**i for i in reversed(range(order))]
    gain = 1.0 if size is None else 0.2  # for the norms of the filter to have little to divide by
    first, rest = p.conv(x, f'{name}.proj_in', 2 * channels, 1, gain=gain).split(
        [dims[0], sum(dims)], 1
    )
    if size is None:
        rest = p.conv(rest, f'{name}.dwconv', sum(dims), 7, groups=sum(dims))
    else:
        rest = _filter(p, rest, f'{name}.dwconv', tuple(size))
    parts = (rest * scale).split(dims, 1)
    x = first * parts[0]
    for i in range(order - 1):
        x = p.conv(x, f'{name}.pws.{i}', dims[i + 1], 1) * parts[i + 1]
    return p.conv(x, f'{name}.proj_out', channels, 1)


def forward(
    p: Weights,
    x: Tensor,
    depths: Sequence[int],
    dims: Sequence[int],
    orders: Sequence[int] = (2, 3, 4, 5),
    filter_sizes: Sequence = (None,) * 4,
    scale: float = 1 / 3,
) -> list[Tensor]:
    """Dense HorNet."""
    maps = []
    for stage, (depth, width) in enumerate(zip(depths, dims, strict=True)):
        x = convnext_downsample(p, x, stage, width, EPS)
        for block in range(depth):
            name = f'stages.{stage}.{block}'
            y = p.layer_norm_2d(x, f'{name}.norm1', EPS)
            y = _gated(p, y, f'{name}.gnconv', orders[stage], filter_sizes[stage], scale)
            gammas = [p.uniform(f'{name}.gamma{i}', width, low=0.1, high=0.5) for i in (1, 2)]
            x = x + gammas[0].view(-1, 1, 1) * y
            y = p.layer_norm(nhwc(x), f'{name}.norm2', EPS)
            y = mlp(p, y, f'{name}.pwconv1', f'{name}.pwconv2', 4 * width, width)
            x = x + nchw(gammas[1] * y)
        maps.append(p.layer_norm_2d(x, f'norm{stage}', EPS))
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    filters = [f and (f['h'], f['w']) for f in config.get('gf') or [None] * 4]
    dims = [config['base_dim'] * 2**i for i in range(4)]
    return forward(p, x, config['depths'], dims, config['orders'], filters, config['s'])


KNOWN = {'backbone_7x7': _known, 'backbone_gf': _known}
_NET = dict(depths=[1, 2, 1, 1], dims=[4, 8, 16, 32])
_FILTERS = [None, None, [6, 4], [3, 3]]
CASES = {
    'net': dict(
        network='HorNet',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 37, 70),
        seed=12,
    ),
    'net_filter': dict(
        network='HorNet',
        config=dict(sizes=_NET, filter_sizes=_FILTERS),
        forward=lambda p, x: forward(p, x, **_NET, filter_sizes=_FILTERS),
        shape=(1, 3, 37, 70),
        seed=13,
        notes='spectra for 6 x 6 and 3 x 4 pixels on maps of 2 x 4 and 1 x 2',
    ),
}
