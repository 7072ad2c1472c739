"""QnA-ViT (arXiv 2112.11435) by the names of the published Flax tree."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.parts import offsets

EPS = 1e-6


def dense(p: Weights, x: Tensor, name: str, channels: int, bias: bool, gain: float = 1.0) -> Tensor:
    """Linear layer with a kernel (in, out)."""
    inputs = x.shape[-1]
    out = x @ p.normal(f'{name}/kernel', inputs, channels, std=gain * inputs**-0.5)
    return out + p.normal(f'{name}/bias', channels, std=0.1) if bias else out


def norm(p: Weights, x: Tensor, name: str) -> Tensor:
    """Layer norm by Flax's names."""
    mean = x.mean(-1, keepdim=True)
    x = (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + EPS).sqrt()
    channels = x.shape[-1]
    return x * p.uniform(f'{name}/scale', channels) + p.normal(f'{name}/bias', channels, std=0.3)


def queries(
    p: Weights,
    x: Tensor,
    name: str,
    channels: int,
    heads: int,
    kernel: int,
    stride: int,
    normalize: bool = True,
    scale: str = 'normal',
) -> Tensor:
    """Attention of two learned queries to every window, on (N, H, W, C)."""
    n, height, width, inputs = x.shape
    dim, number, reach = channels // heads, 2, kernel // 2
    q = p.normal(f'{name}/query', number, channels).unflatten(1, (heads, dim))
    q = q / (q.norm(dim=-1, keepdim=True) + 1e-6) if normalize else q
    q = q * dim**-0.5
    k = x @ p.normal(f'{name}/Wk', inputs, channels, std=2 * inputs**-0.5)
    v = dense(p, x, f'{name}/to_v', channels, False).unflatten(-1, (heads, dim))
    scores = torch.einsum('qgd,nyxgd->nyxqg', q, k.unflatten(-1, (heads, dim)))
    shape = kernel, kernel, number, heads
    bias = p.normal(f'{name}/rpe_bias', kernel**2, number * heads, std=0.5).view(shape)
    factor = torch.ones(shape, dtype=x.dtype)
    if scale == 'normal':
        factor = p.normal(f'{name}/attn_scale_weights', 1, 1, kernel**2, number * heads).view(shape)
    rows, columns = -(-height // stride), -(-width // stride)
    out = torch.zeros(n, rows, columns, heads, dim, dtype=x.dtype)
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride - reach, j * stride - reach
            y, z = max(top, 0), max(left, 0)
            inside = slice(y, top + kernel), slice(z, left + kernel)
            a, b = scores[:, inside[0], inside[1]], v[:, inside[0], inside[1]]
            taps = slice(y - top, y - top + a.shape[1]), slice(z - left, z - left + a.shape[2])
            e = (a + bias[taps]).exp()
            share = e * factor[taps] / e.sum((1, 2), keepdim=True)
            out[:, i, j] = torch.einsum('nyxqg,nyxgd->ngd', share, b)
    return dense(p, out.flatten(3), f'{name}/to_out', channels, False, gain=0.3)


def windows(p: Weights, x: Tensor, name: str, heads: int, window: int) -> Tensor:
    """Window attention; padding is masked."""
    height, width, channels = x.shape[1:]
    maps = dense(p, x, f'{name}/to_qkv', 3 * channels, False).unflatten(-1, (heads, 3, -1))
    side = 2 * window - 1
    table = p.normal(f'{name}/RelativePositionalEmbedding_0/rpe_bias', side**2, heads, std=0.5)
    dy, dx = offsets(window) + window - 1
    bias = table[side * dy + dx].permute(2, 0, 1)
    scale = (channels // heads) ** -0.5
    out = torch.zeros_like(maps[..., 0, :])
    for top in range(0, height, window):
        for left in range(0, width, window):
            part = slice(None), slice(top, top + window), slice(left, left + window)
            q, k, v = maps[part].flatten(1, 2).permute(3, 0, 2, 1, 4)
            shape = min(window, height - top), min(window, width - left)
            inside = torch.arange(window**2).view(window, window)[: shape[0], : shape[1]].flatten()
            logits = q @ k.transpose(2, 3) * scale + bias[:, inside[:, None], inside]
            mixed = logits.softmax(-1) @ v
            out[part] = mixed.transpose(1, 2).unflatten(1, shape)
    return dense(p, out.flatten(3), f'{name}/to_out', channels, False, gain=0.3)


def forward(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    qna_depths: Sequence[int],
    qna_heads: Sequence[int],
    kernel_sizes: Sequence[int],
    window_depths: Sequence[int],
    window_sizes: Sequence[int],
    window_heads: Sequence[int],
    norms: bool = True,
    normalize: Sequence[bool] = (True, True, True, True),
    scale: str = 'normal',
) -> list[Tensor]:
    """Maps before the blocks that halve them, after layer norms that are our own addition."""
    height, width = x.shape[2:]
    down, right = -height % 4, -width % 4
    x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
    kernel = p.normal('params/StemBlock_0/conv_1x1/kernel', 4, 4, 3, embed_dim, std=0.02)
    x = F.conv2d(x, kernel.permute(3, 2, 0, 1), stride=4).permute(0, 2, 3, 1)

    def block(y: Tensor, name: str, mixer: str, run, skip=None) -> Tensor:
        z = run(norm(p, y, f'{name}/LayerNorm_0'), f'{name}/{mixer}')
        y = (y if skip is None else skip(y)) + z
        z = norm(p, y, f'{name}/LayerNorm_1')
        z = dense(p, z, f'{name}/MlpBlock_0/Dense_0', 4 * y.shape[-1], True)
        z = F.gelu(z, approximate='tanh')
        return y + dense(p, z, f'{name}/MlpBlock_0/Dense_1', y.shape[-1], True, gain=0.3)

    maps = []
    for stage, (depth, heads, size) in enumerate(
        zip(qna_depths, qna_heads, kernel_sizes, strict=True)
    ):
        channels = embed_dim * 2**stage
        for j in range(window_depths[stage]):
            name = f'params/LSAStage_{stage}/MSA_Block_{j + 1}'
            number, window = window_heads[stage], window_sizes[stage]
            x = block(
                x,
                name,
                'MultiHeadSelfAttention_0',
                lambda y, n, number=number, window=window: windows(p, y, n, number, window),
            )
        for j in range(depth):
            x = block(
                x,
                f'params/QnAStage_{stage}/QnA_Block_{j + 1}',
                'FusedKQnA_0',
                lambda y, n, c=channels, h=heads, k=size, u=normalize[stage]: queries(
                    p, y, n, c, h, k, 1, u, scale
                ),
            )
        maps.append(x.permute(0, 3, 1, 2))
        if stage < len(qna_depths) - 1:
            name = f'params/QnAStage_{stage}/QnA_Block_{depth + 1}_stride_2'

            def skip(y: Tensor, name: str = name, channels: int = channels) -> Tensor:
                shape = 1, 1, channels, 2 * channels
                weight = p.normal(f'{name}/Conv_0/kernel', *shape, std=0.5 * channels**-0.5)
                return y[:, ::2, ::2] @ weight[0, 0]

            x = block(
                x,
                name,
                'FusedKQnA_0',
                lambda y, n, c=2 * channels, h=2 * heads, k=size, u=normalize[stage]: queries(
                    p, y, n, c, h, k, 2, u, scale
                ),
                skip,
            )
    if norms:
        maps = [p.layer_norm_2d(x, f'own/stages.{stage}.norm', EPS) for stage, x in enumerate(maps)]
    return maps


def _known(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    names = (
        'base_dim',
        'qna_layers',
        'qna_heads',
        'qna_receptive_field',
        'lsa_layers',
        'lsa_window',
        'lsa_heads',
    )
    return forward(p, x, *(config[name] for name in names), norms=False)


_NET = dict(
    embed_dim=4,
    qna_depths=[1, 2, 1, 0],
    qna_heads=[2, 2, 4, 4],
    kernel_sizes=[3, 7, 3, 3],
    window_depths=[0, 0, 2, 1],
    window_sizes=[7, 7, 3, 2],
    window_heads=[1, 1, 2, 4],
)
_OPTIONS = dict(
    base_dim=4,
    qna_layers=[1, 1, 0],
    qna_heads=[2, 2, 4],
    qna_receptive_field=[3, 3, 3],
    lsa_layers=[0, 0, 1],
    lsa_window=[7, 7, 3],
    lsa_heads=[1, 1, 2],
    qna_normalize_q=[False, True, False],
    qna_attention_scale='none',
)
KNOWN = {'backbone_k3': _known}
CASES = {
    'net': dict(
        network='QnAViT',
        config=dict(sizes=_NET),
        forward=lambda p, x: forward(p, x, **_NET),
        shape=(1, 3, 37, 70),
        seed=6,
    ),
    'net_options': dict(
        module='QnAViT',
        config=_OPTIONS,
        forward=lambda p, x: forward(
            p,
            x,
            *list(_OPTIONS.values())[:7],
            norms=False,
            normalize=[False, True, False],
            scale='none',
        ),
        shape=(1, 3, 26, 40),
        seed=7,
        notes='queries of one stage are normalised; what they read has no scale',
    ),
}
