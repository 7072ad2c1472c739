"""Operators in plain torch."""

from hybrid_mm.layers.augmented_convolution import AAConv2d
from hybrid_mm.layers.bottleneck_attention import BottleneckAttention
from hybrid_mm.layers.channel_gate import EfficientChannelGate, SqueezeExcite
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.layers.elsa import ELSA
from hybrid_mm.layers.evolving_convolution import EvolvingAAConv2d
from hybrid_mm.layers.grid_convolution import DepthwiseConv2d, grid_convolution
from hybrid_mm.layers.halo_attention import HaloAttention
from hybrid_mm.layers.large_kernel_attention import (
    LKA,
    LSKA,
    LKATrivial,
    LSKATrivial,
    build_large_kernel_attention,
    decompose_kernel,
)
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.layers.pooling_attention import PoolingAttention
from hybrid_mm.layers.quadratic_attention import QuadraticAttention2d
from hybrid_mm.layers.recursive_gated_convolution import GlobalLocalFilter, RecursiveGatedConv
from hybrid_mm.layers.relative_position import RelativePosition2d, resize_relative_table
from hybrid_mm.layers.self_attention import SelfAttention
from hybrid_mm.layers.stand_alone_attention import AttentionStem, LocalSelfAttention2d
from hybrid_mm.layers.vector_attention import PairwiseAttention2d, PatchwiseAttention2d

__all__ = [
    'ELSA',
    'LKA',
    'LSKA',
    'AAConv2d',
    'AttentionStem',
    'BottleneckAttention',
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
