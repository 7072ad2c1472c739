"""Modules made of operators; plain torch."""

from hybrid_mm.layers.attention.acmix import ACmix2d, ACmixWindowAttention
from hybrid_mm.layers.attention.augmented_convolution import AAConv2d
from hybrid_mm.layers.attention.bottleneck_attention import AbsolutePosition2d, BottleneckAttention
from hybrid_mm.layers.attention.convolutional_projection import ConvolutionalProjectionAttention
from hybrid_mm.layers.attention.elsa import ELSA
from hybrid_mm.layers.attention.evolving_augmented_convolution import EvolvingAAConv2d
from hybrid_mm.layers.attention.global_relative_attention import GlobalRelativeAttention
from hybrid_mm.layers.attention.halo_attention import HaloAttention
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d
from hybrid_mm.layers.attention.pairwise_patchwise import (
    PairwiseAttention2d,
    PatchwiseAttention2d,
    VectorAttention2d,
)
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.attention.pooling_attention import PoolingAttention
from hybrid_mm.layers.attention.quadratic_attention import QuadraticAttention2d
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.layers.attention.spatial_reduction_attention import (
    ACmixSpatialReductionAttention,
    SpatialReductionAttention,
)
from hybrid_mm.layers.attention.stand_alone_attention import (
    AttentionStem,
    LocalSelfAttention2d,
    PooledAttentionStem,
)
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.channel_gate import EfficientChannelGate, SqueezeExcite
from hybrid_mm.layers.convolution.deform_conv import DeformConv2d
from hybrid_mm.layers.convolution.depthwise import DepthwiseConv2d, DilatedDepthwiseConv2d
from hybrid_mm.layers.convolution.large_kernel_attention import (
    LKA,
    LSKA,
    DecomposedLKA,
    LKATrivial,
    LSKATrivial,
    build_large_kernel_attention,
    decompose_kernel,
)
from hybrid_mm.layers.convolution.mbconv import Conv3x3, MBConv
from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d, sharing_grid
from hybrid_mm.layers.convolution.recursive_gated_convolution import (
    GlobalLocalFilter,
    RecursiveGatedConv,
)
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.layers.folded_norm import Conv2dNorm, LinearNorm, fold_norms
from hybrid_mm.layers.heads import head_widths, make_divisible, merge_heads, split_heads
from hybrid_mm.layers.initialisation import lecun_normal_
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.layers.relative_position import (
    DecomposedPosition2d,
    LogRelativeBias2d,
    RelativeBias2d,
    RelativePosition2d,
    TokenBias2d,
)

__all__ = [
    'ELSA',
    'LKA',
    'LSKA',
    'AAConv2d',
    'ACmix2d',
    'ACmixSpatialReductionAttention',
    'ACmixWindowAttention',
    'AbsolutePosition2d',
    'AttentionStem',
    'BottleneckAttention',
    'Conv2dNorm',
    'Conv3x3',
    'ConvolutionalProjectionAttention',
    'DecomposedLKA',
    'DecomposedPosition2d',
    'DeformConv2d',
    'DepthwiseConv2d',
    'DilatedDepthwiseConv2d',
    'DropPath',
    'EfficientChannelGate',
    'EvolvingAAConv2d',
    'GlobalLocalFilter',
    'GlobalRelativeAttention',
    'HaloAttention',
    'LESA2d',
    'LKATrivial',
    'LSKATrivial',
    'LayerNorm2d',
    'LeViTAttention',
    'LearnedQueryAttention2d',
    'LinearNorm',
    'LocalSelfAttention2d',
    'LogRelativeBias2d',
    'MBConv',
    'MixedShift',
    'NeighborhoodAttention2d',
    'PairwiseAttention2d',
    'PartitionAttention',
    'PatchwiseAttention2d',
    'PeripheralConv2d',
    'PooledAttentionStem',
    'PoolingAttention',
    'QuadraticAttention2d',
    'RecursiveGatedConv',
    'RelativeBias2d',
    'RelativePosition2d',
    'SelfAttention',
    'SpatialReductionAttention',
    'SqueezeExcite',
    'TokenBias2d',
    'VectorAttention2d',
    'WindowAttention',
    'build_large_kernel_attention',
    'decompose_kernel',
    'drop_path_schedule',
    'fold_norms',
    'head_widths',
    'lecun_normal_',
    'make_divisible',
    'merge_heads',
    'sharing_grid',
    'split_heads',
]
