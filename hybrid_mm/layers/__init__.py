"""Modules made of operators; plain torch."""

from hybrid_mm.layers.attention.augmented_convolution import AAConv2d
from hybrid_mm.layers.attention.bottleneck_attention import BottleneckAttention
from hybrid_mm.layers.attention.elsa import ELSA
from hybrid_mm.layers.attention.evolving_augmented_convolution import EvolvingAAConv2d
from hybrid_mm.layers.attention.halo_attention import HaloAttention
from hybrid_mm.layers.attention.pairwise_patchwise import PairwiseAttention2d, PatchwiseAttention2d
from hybrid_mm.layers.attention.pooling_attention import PoolingAttention
from hybrid_mm.layers.attention.quadratic_attention import QuadraticAttention2d
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.layers.attention.stand_alone_attention import (
    AttentionStem,
    LocalSelfAttention2d,
    PooledAttentionStem,
)
from hybrid_mm.layers.channel_gate import EfficientChannelGate, SqueezeExcite
from hybrid_mm.layers.convolution.depthwise import DepthwiseConv2d
from hybrid_mm.layers.convolution.large_kernel_attention import (
    LKA,
    LSKA,
    DecomposedLKA,
    LKATrivial,
    LSKATrivial,
    build_large_kernel_attention,
    decompose_kernel,
)
from hybrid_mm.layers.convolution.recursive_gated_convolution import (
    GlobalLocalFilter,
    RecursiveGatedConv,
)
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.layers.relative_position import RelativePosition2d
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.positions import resize_relative_table

__all__ = [
    'ELSA',
    'LKA',
    'LSKA',
    'AAConv2d',
    'AttentionStem',
    'BottleneckAttention',
    'DecomposedLKA',
    'DepthwiseConv2d',
    'DropPath',
    'EfficientChannelGate',
    'EvolvingAAConv2d',
    'GlobalLocalFilter',
    'HaloAttention',
    'LKATrivial',
    'LSKATrivial',
    'LayerNorm2d',
    'LocalSelfAttention2d',
    'PairwiseAttention2d',
    'PatchwiseAttention2d',
    'PooledAttentionStem',
    'PoolingAttention',
    'QuadraticAttention2d',
    'RecursiveGatedConv',
    'RelativePosition2d',
    'SelfAttention',
    'SqueezeExcite',
    'build_large_kernel_attention',
    'decompose_kernel',
    'drop_path_schedule',
    'grid_convolution',
    'resize_relative_table',
]
