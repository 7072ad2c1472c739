"""SAN (arXiv 2004.13621), and ACmix on it by our reading of arXiv 2111.14556."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.acmix import convolution


def _mirrored(length: int, reach: int) -> Tensor:
    """Pixels at -reach .. length - 1 + reach, mirrored as often as needed."""
    period = max(2 * (length - 1), 1)
    place = torch.arange(-reach, length + reach).abs() % period
    return torch.minimum(place, (period - place) % period if length > 1 else place)


def _taps(x: Tensor, kernel: int) -> Tensor:
    """(N, C, H, W) to (N, C, k^2, H, W)."""
    height, width = x.shape[2:]
    x = x[:, :, _mirrored(height, kernel // 2)][..., _mirrored(width, kernel // 2)]
    return torch.stack(
        [x[..., i : i + height, j : j + width] for i in range(kernel) for j in range(kernel)], 2
    )


def operator(
    p: Weights,
    x: Tensor,
    name: str,
    attention: str,
    rel: int,
    channels: int,
    kernel: int,
    share: int = 8,
    mix: bool = False,
) -> Tensor:
    """Pairwise or patchwise self-attention."""
    n, _, height, width = x.shape
    groups = channels // share
    q, k = (p.conv(x, f'{name}.conv{i}', rel, 1, gain=2) for i in (1, 2))
    v = p.conv(x, f'{name}.conv3', channels, 1)
    if attention == 'pairwise':
        rows, columns = (torch.linspace(-1, 1, side, dtype=x.dtype) for side in (height, width))
        place = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)])[None]
        place = p.conv(place, f'{name}.conv_p', 2, 1)
        relation = torch.cat(
            [z[:, :, None] - _taps(w, kernel) for z, w in ((q, k), (place, place))], 1
        )
        y = relation.flatten(3)
    else:
        y = torch.cat([q, _taps(k, kernel).flatten(1, 2)], 1).flatten(2)[:, :, None]
    y = F.relu(p.batch_norm(y, f'{name}.conv_w.0'))
    y = p.conv(y, f'{name}.conv_w.2', rel if attention == 'pairwise' else groups, 1, bias=False)
    y = F.relu(p.batch_norm(y, f'{name}.conv_w.3'))
    if attention == 'pairwise':
        weights = p.conv(y, f'{name}.conv_w.5', groups, 1, gain=3).softmax(2)
    else:
        weights = p.conv(y, f'{name}.conv_w.5', groups * kernel**2, 1, gain=0.3)
    weights = weights.reshape(n, 1, groups, kernel**2, height, width)
    values = _taps(v, kernel).unflatten(1, (share, groups))
    out = (weights * values).sum(3).flatten(1, 2)
    if not mix:
        return out
    maps = torch.cat([q, k, v], 1).unflatten(1, (-1, rel))
    rates = [p.uniform(f'{name}.rate{i}', 1) for i in (1, 2)]
    return rates[0] * out + rates[1] * convolution(p, maps, name, channels // rel, 1, False)


def block(
    p: Weights,
    x: Tensor,
    name: str,
    attention: str,
    kernel: int,
    rel: int,
    mid: int,
    mix: bool = False,
) -> Tensor:
    """Bottleneck."""
    y = F.relu(p.batch_norm(x, f'{name}bn1'))
    y = operator(p, y, f'{name}sam', attention, rel, mid, kernel, mix=mix)
    y = F.relu(p.batch_norm(y, f'{name}bn2'))
    return x + p.conv(y, f'{name}conv', x.shape[1], 1)


def forward(
    p: Weights,
    x: Tensor,
    stem_channels: int,
    stem_depth: int,
    depths: Sequence[int],
    channels: Sequence[int],
    attention: str,
    mix: bool = False,
) -> list[Tensor]:
    """Maps at strides 4 to 32 after norm and ReLU; sides are rounded up."""
    x = F.relu(p.batch_norm(p.conv(x, 'conv_in', stem_channels, 1, bias=False), 'bn_in'))
    maps = []
    for stage, (depth, width, kernel) in enumerate(
        zip(
            [stem_depth, *depths],
            [stem_channels, *channels],
            [3, 7, 7, 7, 7],
            strict=True,
        )
    ):
        x = p.conv(F.max_pool2d(x, 2, ceil_mode=True), f'conv{stage}', width, 1, bias=False)
        for i in range(depth):
            x = block(p, x, f'layer{stage}.{i}.', attention, kernel, width // 16, width // 4, mix)
        x = F.relu(p.batch_norm(x, f'bn{stage}'))
        maps.append(x)
    return maps[1:]


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    attention = ('pairwise', 'patchwise')[config['sa_type']]
    rel, mid = config['rel_planes'], config['mid_planes']
    return [block(p, x, '', attention, config['kernel_size'], rel, mid)]


KNOWN = {'bottleneck_pairwise': _known, 'bottleneck_patchwise': _known}
_NET = dict(stem_channels=32, stem_depth=1, depths=[1, 2, 1, 1], channels=[32, 32, 32, 64])
CASES = {
    'net_pairwise': dict(
        network='SAN',
        config=dict(sizes=_NET, attention='pairwise'),
        forward=lambda p, x: forward(p, x, **_NET, attention='pairwise'),
        shape=(1, 3, 33, 58),
        seed=23,
    ),
    'net_patchwise': dict(
        network='SAN',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET, attention='patchwise'),
        shape=(1, 3, 33, 58),
        seed=24,
    ),
    'net_acmix': dict(
        network='SAN',
        config=dict(sizes=_NET, acmix=True),
        forward=lambda p, x: forward(p, x, **_NET, attention='patchwise', mix=True),
        shape=(1, 3, 33, 58),
        seed=25,
        notes='nobody has published this network: our reading of the paper',
    ),
}
