"""Layers as the networks of the papers have them, whose kernels the report compiles.

Images of 2 x 800 x 1216: maps of 200 x 304 pixels at stride 4, half of that at each later stage.
Layers rather than operators, because they decide how the maps of an operator lie in memory.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn

from hybrid_mm.backbones.qna_vit import PaddedWindowAttention
from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention
from hybrid_mm.layers.attention.augmented_convolution import AAConv2d
from hybrid_mm.layers.attention.bottleneck_attention import BottleneckAttention
from hybrid_mm.layers.attention.elsa import ELSA
from hybrid_mm.layers.attention.evolving_augmented_convolution import EvolvingAAConv2d
from hybrid_mm.layers.attention.global_relative_attention import GlobalRelativeAttention
from hybrid_mm.layers.attention.halo_attention import HaloAttention
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d
from hybrid_mm.layers.attention.pairwise_patchwise import PairwiseAttention2d, PatchwiseAttention2d
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.attention.spatial_reduction_attention import ACmixSpatialReductionAttention
from hybrid_mm.layers.attention.stand_alone_attention import AttentionStem, LocalSelfAttention2d
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.convolution.depthwise import DepthwiseConv2d
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d

IMAGE = (800, 1216)
BATCH = 2
STRIDES = (4, 8, 16, 32)


class Case(NamedTuple):
    """A layer and what it is called with.

    Attributes:
        name: Network and stride of the map.
        layer: Makes the layer.
        shape: Of its input: maps (N, C, H, W) or tokens (N, H, W, C).
        more: Further arguments; a ``torch.Size`` stands for a tensor.
    """

    name: str
    layer: Callable[[], nn.Module]
    shape: tuple[int, ...]
    more: tuple[Any, ...] = ()


def cases() -> Iterator[Case]:
    """Layers of all papers whose operators may have kernels."""
    for make in (_windows, _blocks, _whole, _partitions, _convolutions, _taps):
        yield from make()


def _size(stride: int) -> tuple[int, int]:
    height, width = (-(-side // stride) for side in IMAGE)
    return height, width


def _map(
    name: str,
    stride: int,
    channels: int,
    layer: Callable[..., nn.Module],
    /,
    *args: Any,
    **kwargs: Any,
) -> Case:
    """A layer with these arguments on a map (N, C, H, W)."""
    shape = (BATCH, channels, *_size(stride))
    return Case(f'{name} 1/{stride}', lambda: layer(*args, **kwargs), shape)


def _tokens(
    name: str,
    stride: int,
    channels: int,
    layer: Callable[..., nn.Module],
    /,
    *args: Any,
    **kwargs: Any,
) -> Case:
    """A layer with these arguments on tokens (N, H, W, C)."""
    shape = (BATCH, *_size(stride), channels)
    return Case(f'{name} 1/{stride}', lambda: layer(*args, **kwargs), shape)


def _windows() -> Iterator[Case]:
    """Windows that move with the pixel."""
    for stride, n in zip(STRIDES, (1, 2, 4, 8), strict=True):
        c = 64 * n
        nat = NeighborhoodAttention2d
        yield _tokens('NAT-M', stride, c, nat, c, 2 * n)
        yield _tokens('DiNAT-M', stride, c, nat, c, 2 * n, dilation=16 // n)
        yield _map('SASA-R50', stride, c, LocalSelfAttention2d, c, c)
        yield _map('ACmix-R50', stride, c, ACmix2d, c, c)
        if n > 1:
            yield _map('SASA-R50 to', stride // 2, c, LocalSelfAttention2d, c, c, stride=2)
            yield _map('ACmix-R50 to', stride // 2, c, ACmix2d, c, c, stride=2)


def _blocks() -> Iterator[Case]:
    """Blocks with a halo around them."""
    yield Case('SASA-R50 stem 1/1', lambda: AttentionStem(3, 64), (BATCH, 3, *IMAGE))
    yield _map('Halo-R50 to', 16, 512, HaloAttention, 512, stride=2)
    yield _map('Halo-R50', 32, 512, HaloAttention, 512)
    for stride, c in zip(STRIDES, (64, 128, 256, 512), strict=True):
        settings = dict(heads=4 if c == 64 else 8, block_size=12, halo_size=2)
        yield _map('HaloNet-H4', stride, c, HaloAttention, c, **settings)
    yield _map('halonet50ts', 8, 128, HaloAttention, 128, heads=4)


def _whole() -> Iterator[Case]:
    """All pixels see each other."""
    yield _map('BoT50 to', 16, 512, BottleneckAttention, 512, (64, 64), stride=2)
    yield _map('BoT50', 32, 512, BottleneckAttention, 512, (32, 32))
    yield _map('eca_botnext26ts', 16, 256, BottleneckAttention, 256, (64, 64), dim_head=16)
    for stride, c, values in ((8, 128, 16), (16, 256, 24), (32, 512, 48)):
        settings = dict(key_channels=160, value_channels=values, heads=8, size=(14, 14))
        yield _map('AA-R50', stride, c, AAConv2d, c, c, **settings)
    settings = dict(key_channels=128, value_channels=64, heads=8, size=(42, 42))
    first = _map('EA-AA-R50 first', 32, 512, EvolvingAAConv2d, 512, 512, evolves=False, **settings)
    yield first
    height, width = _size(32)
    logits = torch.Size((BATCH, 8, height * width, height * width))
    later = _map('EA-AA-R50', 32, 512, EvolvingAAConv2d, 512, 512, evolves=True, **settings)
    yield later._replace(more=(logits,))
    for stride, c in ((16, 384), (32, 768)):
        yield _tokens('CoAtNet-0', stride, c, GlobalRelativeAttention, c, (14, 14))
    for name, key, heads, widths in (
        ('LeViT-128S', 16, (4, 6, 8), (128, 256, 384)),
        ('LeViT-384', 32, (6, 9, 12), (384, 512, 768)),
    ):
        for i, (stride, side) in enumerate(((16, 14), (32, 7), (64, 4))):
            c = widths[i]
            yield _tokens(name, stride, c, LeViTAttention, c, c, key, heads[i], 2, side)
            if i < 2:
                shrink = (c, widths[i + 1], key, c // key, 4, side, 2)
                yield _tokens(f'{name} to', stride, c, LeViTAttention, *shrink)
    yield _map('LESA-R50', 16, 256, LESA2d, 256, (14, 14))
    yield _map('LESA-R50', 32, 512, LESA2d, 512, (7, 7))


def _partitions() -> Iterator[Case]:
    """Windows that cut the map, and grids."""
    for stride, n in zip(STRIDES, (1, 2, 4, 8), strict=True):
        yield _swin('Swin-T', stride, 0, WindowAttention, 96 * n, 7, 3 * n)
        yield _swin('Swin-T shifted', stride, 3, WindowAttention, 96 * n, 7, 3 * n)
        yield _swin('ACmix-Swin-T', stride, 3, ACmixWindowAttention, 96 * n, 7, 3 * n)
        for kind in ('block', 'grid'):
            c = 64 * n
            yield _tokens(f'MaxViT-T {kind}', stride, c, PartitionAttention, c, (7, 7), kind=kind)
    yield _swin('Swin-L', 4, 6, WindowAttention, 192, 12, 6)
    yield _tokens('QnA-T windows', 16, 256, PaddedWindowAttention, 256, 14, 8)


def _swin(
    name: str,
    stride: int,
    shift: int,
    layer: Callable[..., nn.Module],
    channels: int,
    window: int,
    heads: int,
) -> Case:
    """Attention in windows on a map that is padded to full windows."""
    case = _tokens(name, stride, channels, layer, channels, window, heads)
    sides = (-(-side // window) * window for side in _size(stride))
    return case._replace(shape=(BATCH, *sides, channels), more=(shift,))


def _convolutions() -> Iterator[Case]:
    """Large depthwise kernels."""
    sizes = (31, 29, 27, 13), (51, 49, 47, 13)
    for stride, n, plain, long in zip(STRIDES, (1, 2, 4, 8), *sizes, strict=True):
        c = 128 * n
        yield _map(f'RepLKNet-31B {plain}', stride, c, DepthwiseConv2d, c, plain, bias=False)
        c = int(96 * n * 1.3)
        for kernel in ((long, 5), (5, long)):
            name = f'SLaK-T {kernel[0]}x{kernel[1]}'
            yield _map(name, stride, c, DepthwiseConv2d, c, kernel, bias=False)
        c = {1: 46, 2: 93, 4: 187, 8: 374}[n]
        yield _map(f'PeLK-T {long}', stride, c, PeripheralConv2d, c, long)
        yield _map('HorNet-T 7', stride, 128 * n - 32, DepthwiseConv2d, 128 * n - 32, 7)
    yield _map('RepLKNet 5', 4, 128, DepthwiseConv2d, 128, 5, bias=False)
    yield _map('PeLK-B 101', 4, 62, PeripheralConv2d, 62, 101, center_size=7)
    yield _map('PeLK-B 151', 4, 62, PeripheralConv2d, 62, 151)


def _taps() -> Iterator[Case]:
    """Weighted sums of the pixels around."""
    vector = PairwiseAttention2d, PatchwiseAttention2d
    for layer, name in zip(vector, ('pairwise', 'patchwise'), strict=True):
        yield _map(f'SAN10 {name}', 2, 64, layer, 64, 4, 16, kernel_size=3)
    for stride, n in zip(STRIDES, (1, 2, 4, 8), strict=True):
        c = 256 * n
        for layer, name in zip(vector, ('pairwise', 'patchwise'), strict=True):
            for mix in (False, True):
                title = f'SAN10 {name}{" ACmix" if mix else ""}'
                yield _map(title, stride, c, layer, c, c // 16, c // 4, mix=mix)
        c = 96 * n
        settings = dict(group_width=4, lam=0, gamma=1, qk_scale=1.0)
        yield _tokens('ELSA-Swin-T', stride, c, ELSA, c, 3 * n, 7, **settings)
        c = 64 * n
        yield _tokens('QnA-T', stride, c, LearnedQueryAttention2d, c, c, 8 * n, 3)
        down = (c, 2 * c, 16 * n, 3, 2)
        yield _tokens('QnA-T to', stride, c, LearnedQueryAttention2d, *down)
        c, reduction = {1: (64, 8), 2: (128, 4), 4: (320, 2), 8: (512, 1)}[n]
        pvt = _map('PVT-T-ACmix', stride, c, ACmixSpatialReductionAttention, c, c // 64, reduction)
        height, width = _size(stride)
        yield pvt._replace(shape=(BATCH, height * width, c), more=((height, width),))
    yield _tokens('ELSA-Swin-T lam 1', 4, 96, ELSA, 96, 3, 7, group_width=4)
    yield _tokens('QnA-T 7x7', 4, 64, LearnedQueryAttention2d, 64, 64, 8, 7)
