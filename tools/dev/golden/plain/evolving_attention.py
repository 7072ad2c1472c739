"""EA-AA-ResNet (arXiv 2102.12895) by the names of its TensorFlow variables."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.aa_resnet import relative_logits
from plain.lesa import fit

SCOPE = 'resnet_model/'


def _conv(
    p: Weights,
    x: Tensor,
    name: str,
    channels: int,
    side: int,
    stride: int = 1,
    bias: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Convolution with a kernel (height, width, in, out)."""
    shape = side, side, x.shape[1], channels
    kernel = p.normal(f'{name}/kernel', *shape, std=gain * (side**2 * x.shape[1]) ** -0.5)
    b = p.normal(f'{name}/bias', channels, std=0.1) if bias else None
    return F.conv2d(x, kernel.permute(3, 2, 0, 1), b, stride, side // 2)


class _Trunk:
    """Numbered convolutions and norms."""

    def __init__(self, p: Weights) -> None:
        self.p, self.convs, self.norms = p, 0, 0

    def conv(self, x: Tensor, channels: int, side: int, stride: int = 1) -> Tensor:
        name = SCOPE + 'conv2d' + (f'_{self.convs}' if self.convs else '')
        self.convs += 1
        return _conv(self.p, x, name, channels, side, stride)

    def norm(self, x: Tensor) -> Tensor:
        name = SCOPE + 'batch_normalization' + (f'_{self.norms}' if self.norms else '')
        self.norms += 1
        c = x.shape[1]
        mean = self.p.normal(f'{name}/moving_mean', c, std=0.1)
        variance = self.p.uniform(f'{name}/moving_variance', c, low=0.02, high=0.2)
        factor = self.p.uniform(f'{name}/gamma', c, low=0.1, high=0.4)
        beta = self.p.normal(f'{name}/beta', c, std=0.2)
        mean, variance, factor, beta = (z.view(-1, 1, 1) for z in (mean, variance, factor, beta))
        return (x - mean) / (variance + 1e-5).sqrt() * factor + beta


def _same_pool(x: Tensor) -> Tensor:
    """3x3 average pooling of stride 2 with padding at the end, which is not averaged."""
    sides = x.shape[2:]
    pad = (sides[1] % 2, 1, sides[0] % 2, 1)
    one = F.pad(torch.ones_like(x[:1, :1]), pad)
    return F.avg_pool2d(F.pad(x, pad), 3, 2) / F.avg_pool2d(one, 3, 2)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, pixel i of the result at i * in / out."""
    for dim, target in ((2, size[0]), (3, size[1])):
        length = x.shape[dim]
        place = torch.arange(target, dtype=torch.float64) * length / target
        low = place.floor().long()
        shape = [1, 1, 1, 1]
        shape[dim] = target
        share = (place - low).view(shape)
        high = (low + 1).clamp(max=length - 1)
        x = x.index_select(dim, low) * (1 - share) + x.index_select(dim, high) * share
    return x


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
    size: Sequence[int] | None,
    previous: Tensor | None,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Augmented convolution, and the logits for the next; ``size`` is that of the tables."""
    conv = _conv(p, x, f'{name}/conv2d', channels - values, 3, stride)
    y = _same_pool(x) if stride == 2 else x
    wanted = tuple(y.shape[2:])
    y = _same_pool(y) if down else y
    y = _conv(p, y, f'{name}/conv2d_1', 2 * keys + values, 1, bias=True, gain=1.5)
    k, q, v = (z.unflatten(1, (heads, -1)) for z in y.split([keys, keys, values], 1))
    q = q * (keys // heads) ** -0.5
    rows, columns = y.shape[2:]
    size = size or (rows, columns)
    tables = [
        fit(p.normal(f'{name}/r_{axis}', 2 * made - 1, keys // heads), length)
        for axis, made, length in (('height', size[0], rows), ('width', size[1], columns))
    ]
    logits = torch.einsum('nhdyx,nhduv->nhyxuv', q, k) + relative_logits(q, *tables)
    logits = logits.flatten(4).flatten(2, 3)
    last = 'conv2d_2'
    if previous is not None:
        mixed = (1 - beta) * logits + beta * previous
        convolved = F.relu(_conv(p, mixed, f'{name}/conv2d_2', heads, 3, bias=True, gain=2))
        logits, last = alpha * convolved + (1 - alpha) * mixed, 'conv2d_3'
    out = torch.einsum('nhij,nhdj->nhdi', logits.softmax(-1), v.flatten(3)).flatten(1, 2)
    out = _conv(p, out.unflatten(2, (rows, columns)), f'{name}/{last}', values, 1, bias=True)
    if down:
        out = _resize(out, wanted)
    return torch.cat([conv, out], 1), logits


def forward(
    p: Weights,
    x: Tensor,
    stem: int,
    depths: Sequence[int],
    widths: Sequence[int],
    out_channels: Sequence[int],
    keys: Sequence[int],
    values: Sequence[int],
    heads: int = 8,
    alpha: float = 1.0,
    beta: float = 0.5,
    sizes: Sequence = (None, (14, 14), (14, 14), (7, 7)),
) -> list[Tensor]:
    """Attention in the last three stages, one chain through the second and third."""
    net = _Trunk(p)
    x = F.relu(net.norm(net.conv(x, stem, 7, 2)))
    sides = x.shape[2:]
    x = F.pad(x, (sides[1] % 2, 1, sides[0] % 2, 1), value=-float('inf'))
    x = F.max_pool2d(x, 3, 2)
    maps, previous = [], None
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            shortcut = x
            if not block:
                shortcut = net.norm(net.conv(x, out_channels[stage], 1, stride))
            y = F.relu(net.norm(net.conv(x, widths[stage], 1)))
            if stage:
                previous = None if not block and stage in (1, 3) else previous
                y, previous = operator(
                    p,
                    y,
                    f'{SCOPE}asconv_{stage}_{block}_0',
                    widths[stage],
                    keys[stage],
                    values[stage],
                    heads,
                    stride,
                    stage == 1,
                    sizes[stage],
                    previous,
                    alpha,
                    beta,
                )
            else:
                y = net.conv(y, widths[stage], 3, stride)
            y = F.relu(net.norm(y))
            y = net.norm(net.conv(y, out_channels[stage], 1))
            x = F.relu(shortcut + y)
        maps.append(x)
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    widths = [config['num_filters'] * 2**i for i in range(4)]
    parts = [[int(config[ratio] * w) for w in widths] for ratio in 'kv']
    return forward(
        p,
        x,
        config['num_filters'],
        config['block_sizes'],
        widths,
        [4 * w for w in widths],
        *parts,
        config['Nh'],
        config['alpha'],
        config['beta'],
        [None] * 4,
    )


KNOWN = {'backbone_reduced': _known}
# shortcuts are recognised by equal input channels of two successive kernels
_NET = dict(stem=6, depths=[1, 2, 2, 1], widths=[8, 32, 32, 32], out_channels=[12, 20, 24, 28])
CASES = {
    'net': dict(
        network='EAAAResNet',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET, keys=[8] * 4, values=[8] * 4),
        shape=(1, 3, 33, 58),
        seed=35,
        notes='tables of 14 x 14 positions on maps of 3 x 4',
    ),
}
