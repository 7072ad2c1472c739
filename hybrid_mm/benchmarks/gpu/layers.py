"""Every kind of layer, which needs neither MMEngine nor mmcv."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from torch import nn

from hybrid_mm.benchmarks.gpu import modules
from hybrid_mm.benchmarks.gpu.compare import DTYPES, HALF, name_of
from hybrid_mm.benchmarks.gpu.task import Options, Task
from hybrid_mm.layers import (
    ELSA,
    LSKA,
    AAConv2d,
    AttentionStem,
    BottleneckAttention,
    DepthwiseConv2d,
    HaloAttention,
    LocalSelfAttention2d,
    PairwiseAttention2d,
    PatchwiseAttention2d,
    PoolingAttention,
    QuadraticAttention2d,
    RecursiveGatedConv,
)
from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d

_TINY, _SMALL = (5, 6), (21, 27)


class Layer(NamedTuple):
    """A layer to check.

    Attributes:
        make: Makes it.
        channels: Channels of its input.
        channels_last: Whether that is (N, H, W, C).
        size: Rows and columns, where not any will do.
        first: No pattern of an operator stands for what it computes.
    """

    make: Callable[..., nn.Module]
    channels: int = 64
    channels_last: bool = False
    size: tuple[int, int] | None = None
    first: bool = False


LAYERS = {
    'pairwise 7 (SAN)': Layer(partial(PairwiseAttention2d, 64, 16, 64), first=True),
    'patchwise 7 (SAN)': Layer(partial(PatchwiseAttention2d, 64, 16, 64), first=True),
    'pairwise with convolutions (SAN-ACmix)': Layer(
        partial(PairwiseAttention2d, 64, 16, 64, mix=True), first=True
    ),
    'neighborhood 7 (NAT)': Layer(partial(NeighborhoodAttention2d, 64, 2), channels_last=True),
    'window 7 over the border (SASA)': Layer(partial(LocalSelfAttention2d, 64, 64)),
    'stem (SASA)': Layer(partial(AttentionStem, 3, 64), channels=3),
    'block and halo (HaloNet)': Layer(partial(HaloAttention, 64, heads=4)),
    'whole map (BoTNet)': Layer(partial(BottleneckAttention, 64, (21, 27))),
    'augmented convolution (AA-ResNet)': Layer(
        partial(AAConv2d, 64, 64, key_channels=32, value_channels=32, heads=4, size=(21, 27))
    ),
    'attention and convolution (ACmix)': Layer(partial(ACmix2d, 64, 64)),
    'windows and convolution (ACmix-Swin)': Layer(
        partial(ACmixWindowAttention, 64, 7, 2), channels_last=True, size=(14, 21)
    ),
    'windows of 7 (Swin)': Layer(
        partial(WindowAttention, 64, 7, 2), channels_last=True, size=(14, 21)
    ),
    'windows of 7 (MaxViT)': Layer(partial(PartitionAttention, 64, (7, 7)), channels_last=True),
    'grid of 7 (MaxViT)': Layer(
        partial(PartitionAttention, 64, (7, 7), kind='grid'), channels_last=True
    ),
    'by distance (LeViT)': Layer(
        partial(LeViTAttention, 64, 64, 16, 4, 2.0, 14), channels_last=True
    ),
    'local enhancement (LESA)': Layer(partial(LESA2d, 64, (21, 27), groups=4)),
    'ghost head (ELSA)': Layer(
        partial(ELSA, 96, 3, 7, group_width=4), channels=96, channels_last=True
    ),
    'learned queries (QnA)': Layer(
        partial(LearnedQueryAttention2d, 64, 64, 8, 3), channels_last=True
    ),
    'pooling attention (MViTv2)': Layer(
        partial(PoolingAttention, 64, 64, 2, (21, 27)), channels_last=True
    ),
    'quadratic attention': Layer(partial(QuadraticAttention2d, 64, 64, 4)),
    'peripheral 51 (PeLK)': Layer(partial(PeripheralConv2d, 64, 51)),
    'depthwise 31 (RepLKNet)': Layer(partial(DepthwiseConv2d, 64, 31)),
    'depthwise 51 x 5 (SLaK)': Layer(partial(DepthwiseConv2d, 64, (51, 5))),
    'separable large kernel (LSKA)': Layer(partial(LSKA, 64)),
    'recursive gates (HorNet)': Layer(partial(RecursiveGatedConv, 64, 64, 64)),
}


def tasks(options: Options) -> Iterator[Task]:
    """Layers in all types; those that no pattern stands for among the first."""
    for name, layer in LAYERS.items():
        n, (height, width) = (1, _TINY) if options.dry else (2, _SMALL)
        height, width = layer.size or (height, width)
        shape = (n, height, width, layer.channels)
        if not layer.channels_last:
            shape = (n, layer.channels, height, width)
        impl = modules.algorithm(options)
        for dtype in DTYPES:
            run = partial(modules.check, layer.make, shape, options, dtype, impl=impl)
            order = float(dtype != HALF) if layer.first else 8
            yield Task(f'layers/{name}/{name_of(dtype)}', run, 90.0, order=order)
        if layer.first:
            run = partial(modules.check, layer.make, shape, options, HALF, 'CUDA graph', impl)
            yield Task(f'layers/{name}/{name_of(HALF)}/CUDA graph', run, 90.0, order=4)
