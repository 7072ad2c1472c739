"""ViT (arXiv 2010.11929) and ViTDet (arXiv 2203.16527)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from case import Weights
from torch import Tensor

from plain.parts import by_windows, decomposed_attention, mlp

EPS = 1e-6


def _attention(
    p: Weights,
    x: Tensor,
    name: str,
    heads: int,
    table: int | None,
    window: int | None,
    size: tuple[int, int],
) -> Tensor:
    """Attention on tokens (N, L, C); windows are padded with zeros before the projection."""
    channels = x.shape[-1]
    if window is None:
        maps = p.linear(x, f'{name}.qkv', 3 * channels).unflatten(-1, (3, heads, -1))
        q, k, v = maps.permute(2, 0, 3, 1, 4)
        if table is None:
            share = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(-1)
            out = (share @ v).transpose(1, 2).flatten(2)
            return p.linear(out, f'{name}.proj', channels, gain=0.3)
        side, padded = table, size
    else:
        side = window
        padded = tuple(-(-s // window) * window for s in size)
        x = x.unflatten(1, size)
        x = F.pad(x, (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0])).flatten(1, 2)
        maps = p.linear(x, f'{name}.qkv', 3 * channels).unflatten(-1, (3, heads, -1))
        q, k, v = maps.permute(2, 0, 3, 1, 4)
    q, k, v = (z.unflatten(2, padded) for z in (q, k, v))
    tables = [None, None]
    if table is not None:
        tables = [
            p.normal(f'{name}.rel_pos_{axis}', 2 * side - 1, q.shape[-1], std=0.4) for axis in 'hw'
        ]

    def attend(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return decomposed_attention(a, b, c, *tables)

    out = attend(q, k, v) if window is None else by_windows([q, k, v], [window] * 3, attend)
    out = out[:, :, : size[0], : size[1]].permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2)
    return p.linear(out, f'{name}.proj', channels, gain=0.3)


def forward(
    p: Weights,
    x: Tensor,
    embed_dim: int,
    heads: int,
    depths: Sequence[int],
    patch: int = 16,
    pretrained: int = 14,
    class_token: bool = True,
    table: int | None = None,
    window: int | None = None,
    global_blocks: Sequence[int] = (),
    residual: Sequence[int] = (),
    prefix: str = '',
    pad: bool = True,
) -> list[Tensor]:
    """Maps of the last blocks of all subsets.

    Args:
        p: Weights.
        x: Image.
        embed_dim: Channels.
        heads: Heads.
        depths: Blocks of each subset.
        patch: Side of a patch.
        pretrained: Side of the map that the absolute positions are made for.
        class_token: With a class token.
        table: Side of the map that the relative positions are made for, or None for none.
        window: Side of the windows.
        global_blocks: Blocks without windows.
        residual: Blocks that are followed by convolutions.
        prefix: Prefix of all names.
        pad: Pad the image to whole patches.
    """
    if pad:
        x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch))
    x = p.conv(x, f'{prefix}patch_embed.proj', embed_dim, patch, patch, padding=0, gain=0.05)
    size = tuple(x.shape[2:])
    x = x.flatten(2).transpose(1, 2)
    place = p.normal(f'{prefix}pos_embed', 1, 1 + pretrained**2, embed_dim, std=0.05)
    grid = place[:, 1:].transpose(1, 2).unflatten(2, (pretrained, pretrained))
    if size != (pretrained, pretrained):
        grid = F.interpolate(grid, size=size, mode='bicubic')
    x = x + grid.flatten(2).transpose(1, 2)
    if class_token:
        token = p.normal(f'{prefix}cls_token', 1, 1, embed_dim, std=0.05)
        x = torch.cat([(token + place[:, :1]).expand(len(x), -1, -1), x], 1)
    maps, index = [], 0
    for depth in depths:
        for _ in range(depth):
            name = f'{prefix}blocks.{index}'
            y = p.layer_norm(x, f'{name}.norm1', EPS)
            side = None if index in global_blocks else window
            x = x + _attention(p, y, f'{name}.attn', heads, table, side, size)
            y = p.layer_norm(x, f'{name}.norm2', EPS)
            x = x + mlp(p, y, f'{name}.mlp.fc1', f'{name}.mlp.fc2', 4 * embed_dim, embed_dim)
            if index in residual:
                z = x.transpose(1, 2).unflatten(2, size)
                for i, (width, kernel) in enumerate(
                    [(embed_dim // 2, 1), (embed_dim // 2, 3), (embed_dim, 1)], 1
                ):
                    z = F.gelu(z) if i > 1 else z
                    z = p.conv(z, f'{name}.residual.conv{i}', width, kernel, bias=False, gain=0.2)
                    z = p.layer_norm_2d(z, f'{name}.residual.norm{i}', EPS)
                x = x + z.flatten(2).transpose(1, 2)
            index += 1
        tokens = x[:, -size[0] * size[1] :]
        maps.append(tokens.transpose(1, 2).unflatten(2, size))
    return maps


def _known_plain(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    maps = forward(
        p,
        x,
        config['embed_dim'],
        config['num_heads'],
        [1] * config['depth'],
        config['patch_size'],
        config['img_size'] // config['patch_size'],
    )
    return maps


def _level(p: Weights, x: Tensor, name: str, channels: int) -> Tensor:
    number = int(name[-1])
    for kernel in (1, 3):
        x = p.conv(x, f'{name[:-1]}{number}', channels, kernel, bias=False)
        x = p.layer_norm_2d(x, f'{name[:-1]}{number}.norm', EPS)
        number += 1
    return x


def _up(p: Weights, x: Tensor, name: str) -> Tensor:
    channels = x.shape[1]
    weight = p.normal(f'{name}.weight', channels, channels // 2, 2, 2, std=0.3 * channels**-0.5)
    return F.conv_transpose2d(x, weight, p.normal(f'{name}.bias', channels // 2, std=0.1), 2)


def _known_detector(p: Weights, x: Tensor, config: dict) -> list[Tensor]:
    blocks = range(config['depth'])
    side = config['img_size'] // config['patch_size']
    (x,) = forward(
        p,
        x,
        config['embed_dim'],
        config['num_heads'],
        [config['depth']],
        config['patch_size'],
        config['pretrain_img_size'] // config['patch_size'],
        False,
        side,
        config['window_size'],
        [b for b in blocks if b not in config['window_block_indexes']],
        prefix='net.',
        pad=False,
    )
    channels = config['out_channels']
    y = F.gelu(p.layer_norm_2d(_up(p, x, 'simfp_2.0'), 'simfp_2.1', EPS))
    maps = [_level(p, _up(p, y, 'simfp_2.3'), 'simfp_2.4', channels)]
    maps.append(_level(p, _up(p, x, 'simfp_3.0'), 'simfp_3.1', channels))
    maps.append(_level(p, x, 'simfp_4.0', channels))
    maps.append(_level(p, F.max_pool2d(x, 2), 'simfp_5.1', channels))
    return [*maps, maps[-1][:, :, ::2, ::2]]


KNOWN = {'vitdet_simple_fpn': _known_detector, 'vit_plain_timm': _known_plain}
_PLAIN = dict(embed_dim=16, heads=2, depths=[1, 2, 1, 1])
_WINDOWS = dict(embed_dim=16, heads=2, depths=[2, 1, 2, 1])
CASES = {
    'net': dict(
        network='ViT',
        config=dict(sizes=_PLAIN),
        forward=lambda p, x: forward(p, x, **_PLAIN),
        shape=(1, 3, 43, 90),
        seed=9,
    ),
    'net_vitdet': dict(
        network='ViT',
        config=dict(
            sizes=_WINDOWS, window_size=3, relative=True, class_token=False, img_size=96,
            pretrain_img_size=64, residual_blocks=[3],
        ),
        forward=lambda p, x: forward(
            p, x, **_WINDOWS, class_token=False, pretrained=4, table=6, window=3,
            global_blocks=(1, 2, 4, 5), residual=(3,),
        ),
        shape=(1, 3, 31, 122),
        seed=10,
        notes='windows to fill up, relative positions of 6 x 6 patches on a map of 2 x 8, '
        'which has as many as the 4 x 4 that the absolute positions are made for',
    ),
}  # fmt: skip
