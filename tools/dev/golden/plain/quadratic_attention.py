"""The encoder of "On the Relationship between Self-Attention and Convolutional Layers"."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain import resnet

EPS = 1e-12


def operator(
    p: Weights,
    x: Tensor,
    heads: int,
    channels: int,
    names: tuple[str, str, str],
    mode: str,
    stride: int = 1,
    positions: int = 16,
    bias: bool = True,
    table_width: int | None = None,
) -> Tensor:
    """Attention by relative position, every head in full width, on (N, C, H, W).

    Args:
        p: Weights.
        x: Map.
        heads: Heads.
        channels: Channels of the output.
        names: Names of centres, spreads and mixing; or of the whole layer first, twice.
        mode: 'isotropic', 'full', 'learned' or 'learned_content'.
        stride: Distance of the queries.
        positions: Positions that the learned tables are made for.
        bias: Bias of the mixing.
        table_width: Channels of the learned tables, by default those of the map.
    """
    n, width, rows, columns = x.shape
    dy = torch.arange(rows) - torch.arange(0, rows, stride)[:, None]
    dx = torch.arange(columns) - torch.arange(0, columns, stride)[:, None]
    dy, dx = dy[:, None, :, None], dx[:, None]
    if mode in ('isotropic', 'full'):
        centers = p.normal(names[0], heads, 2, std=1.5)
        dy, dx = (d.double() - centers[:, i].view(-1, 1, 1, 1, 1) for i, d in enumerate((dy, dx)))
        if mode == 'isotropic':
            spread = p.uniform(names[1], heads, low=0.3, high=1.5).view(-1, 1, 1, 1, 1)
            logits = -0.5 * spread**2 * (dy**2 + dx**2)
        else:
            spread = p.normal(names[1], heads, 2, 2, std=0.8)
            s = spread.view(heads, 2, 2, 1, 1, 1, 1)
            moved = [s[:, 0, i] * dy + s[:, 1, i] * dx for i in (0, 1)]
            logits = -0.5 * (moved[0] ** 2 + moved[1] ** 2)
        logits = logits[None]
    else:
        base, last = names[0], positions - 1
        terms = []
        for axis, offset in (('row', dx), ('col', dy)):
            side = table_width or width
            table = p.normal(f'{base}{axis}_embeddings.weight', 2 * positions - 1, side)
            head = p.normal(f'{base}head_keys_{axis}.weight', heads, side, std=side**-0.5)
            terms.append((table @ head.t())[offset.clamp(-last, last) + last])
        logits = (terms[0] + terms[1]).movedim(-1, 0)[None]
        if mode == 'learned_content':
            tokens = x.permute(0, 2, 3, 1)
            q, k = (
                p.linear(tokens, f'{base}{part}', heads * width).unflatten(-1, (heads, width))
                for part in ('query', 'key')
            )
            logits = logits + torch.einsum('nyxhc,nuvhc->nhyxuv', q, k) * width**-0.5
    share = logits.flatten(4).softmax(-1).view_as(logits).expand(n, *logits.shape[1:])
    mixed = torch.einsum('nhyxuv,ncuv->nyxhc', share, x).flatten(3)
    return p.linear(mixed, names[2], channels, bias=bias).permute(0, 3, 1, 2)


def forward(
    p: Weights,
    x: Tensor,
    channels: int,
    depth: int,
    heads: int,
    hidden: int,
    mode: str,
    patch: int = 2,
) -> list[Tensor]:
    """BERT's encoder on patches."""
    x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
    x = x.permute(0, 2, 3, 1).unflatten(2, (-1, patch)).unflatten(1, (-1, patch))
    x = p.linear(x.transpose(2, 3).flatten(3), 'features_upscale', channels)
    for i in range(depth):
        name = f'encoder.layer.{i}'
        inner = f'{name}.attention.self.'
        names = f'{inner}attention_centers', f'{inner}attention_spreads', f'{inner}value'
        if mode.startswith('learned'):
            names = inner, inner, f'{inner}value'
        y = operator(p, x.permute(0, 3, 1, 2), heads, channels, names, mode).permute(0, 2, 3, 1)
        y = p.linear(y, f'{name}.attention.output.dense', channels)
        x = p.layer_norm(x + y, f'{name}.attention.output.LayerNorm', EPS)
        y = F.gelu(p.linear(x, f'{name}.intermediate.dense', hidden))
        y = p.linear(y, f'{name}.output.dense', channels)
        x = p.layer_norm(x + y, f'{name}.output.LayerNorm', EPS)
    return [x.permute(0, 3, 1, 2)]


def resnet_forward(
    p: Weights,
    x: Tensor,
    stem: int,
    depths: Sequence[int],
    widths: Sequence[int],
    out_channels: Sequence[int],
) -> list[Tensor]:
    """ResNet whose 3x3 convolutions are isotropic attention with nine heads."""

    def place(y: Tensor, name: str, width: int, stride: int, *_: int) -> Tensor:
        names = tuple(f'{name}.conv2.{part}' for part in ('centers', 'spreads', 'value'))
        y = operator(p, y, 9, width, names, 'isotropic', stride, bias=False)
        return p.batch_norm(y, f'{name}.bn2')

    return resnet.trunk(p, x, stem, depths, widths, out_channels, place)


def _known(mode: str):
    def run(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
        names = ('attention_centers', 'attention_spreads', 'value')
        if mode.startswith('learned'):
            names = ('', '', 'value')
        outputs = len(p.given['value.weight'])
        positions, table = config.get('maxpos', 8), config.get('pe')
        return [operator(p, x, config['heads'], outputs, names, mode, 1, positions, True, table)]

    return run


KNOWN = {
    'op_quadratic_isotropic': _known('isotropic'),
    'op_quadratic_generalized': _known('full'),
    'op_learned2d_position': _known('learned'),
    'op_learned2d_content': _known('learned_content'),
}
_NET = dict(stem=8, depths=[1, 2, 1, 1], widths=[4, 4, 8, 8], out_channels=[8, 12, 16, 16])


def _encoder(seed: int, form: str, **config) -> dict:
    return dict(
        network='QuadraticAttentionEncoder',
        config=dict(channels=12, depth=2, hidden_channels=20, **config),
        forward=lambda p, x: forward(p, x, 12, 2, 9, 20, form),
        shape=(1, 3, 23, 36),
        seed=seed,
    )


CASES = {
    'net_isotropic': _encoder(26, 'isotropic'),
    'net_full': _encoder(27, 'full', mode='full'),
    'net_learned_content': _encoder(28, 'learned_content', mode='learned_content'),
    'net_resnet': dict(
        network='QuadraticAttentionResNet',
        config=dict(sizes=_NET),
        forward=lambda p, x: resnet_forward(p, x, **_NET),
        shape=(1, 3, 33, 58),
        seed=29,
        own=True,
        notes='the paper has no such network: our reading, in our own names',
    ),
}
