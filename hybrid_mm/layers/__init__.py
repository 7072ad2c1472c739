"""Operators in plain torch."""

from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.layers.large_kernel_attention import (
    LKA,
    LSKA,
    LKATrivial,
    LSKATrivial,
    build_large_kernel_attention,
    decompose_kernel,
)
from hybrid_mm.layers.norm import LayerNorm2d

__all__ = [
    'LKA',
    'LSKA',
    'DropPath',
    'LKATrivial',
    'LSKATrivial',
    'LayerNorm2d',
    'build_large_kernel_attention',
    'decompose_kernel',
    'drop_path_schedule',
]
