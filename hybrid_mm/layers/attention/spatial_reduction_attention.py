"""Attention to keys and values at lower resolution, alone and with ACmix's convolution path.

Sources: "Pyramid Vision Transformer" (arXiv 2102.12122), section 3.3, and "On the Integration of
Self-Attention and Convolution" (arXiv 2111.14556).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.ops.argument_types import sized_arguments


class SpatialReductionAttention(nn.Module):
    """Attention of every pixel to a map reduced by a strided convolution.

    With reduction R it costs 2 C (H W)^2 / R^2 multiplications; the attention weights are neither
    kept nor, where torch has a fused kernel, ever stored. The reduction drops rows and columns that
    fill no cell of R x R, as the published code does.

    Args:
        dim: Channels C.
        heads: Number of heads.
        reduction: R, the stride of the reduction; 1 for none.
        qkv_bias: Biases of the projections to queries, keys and values.

    Raises:
        ValueError: Heads that do not divide C.
    """

    @sized_arguments
    def __init__(self, dim: int, heads: int, reduction: int = 1, qkv_bias: bool = True) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        if reduction > 1:
            self.reduce = nn.Conv2d(dim, dim, reduction, reduction)
            self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) to the same shape.

        Args:
            x: H W tokens row by row; without reduction, a class token may come before them.
            size: (H, W).
        """
        return self.proj(self.attend(*self.project(x, size)))

    def project(self, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (N, heads, L, d), keys and values (N, heads, L', d)."""
        q = self.q(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        if self.reduction > 1:
            maps = x.transpose(1, 2).unflatten(2, size)
            x = self.norm(self.reduce(maps).flatten(2).transpose(1, 2))
        maps = self.kv(x).unflatten(2, (2, self.heads, -1)).unbind(2)
        k, v = (y.transpose(1, 2) for y in maps)
        return q, k, v

    @staticmethod
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of all heads, (N, L, C)."""
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class ACmixSpatialReductionAttention(SpatialReductionAttention):
    """Attention to a reduced map, and ACmix's convolution path on its queries, keys and values.

    ``rate1 * projection(attention) + rate2 * convolution``. The authors published no code of this
    host. The convolution path needs maps of one size: here keys and values are interpolated to that
    of the queries (bilinear), which is what leaves the multiply-adds where the paper prints them; a
    class token has no place in a map and gets the attention only.

    Args:
        dim: Channels C.
        heads: Number of heads.
        reduction: Stride of the reduction; 1 for none.
        qkv_bias: Biases of the projections to queries, keys and values.
        impl: Algorithm, see :mod:`hybrid_mm.ops.dispatch`.

    Raises:
        ValueError: Heads that do not divide C, an unknown impl.
    """

    @sized_arguments
    def __init__(
        self, dim: int, heads: int, reduction: int = 1, qkv_bias: bool = True, impl: str = 'auto'
    ) -> None:
        super().__init__(dim, heads, reduction, qkv_bias)
        self.mix = MixedShift(3 * heads, dim // heads, heads, bias=True, impl=impl)
        self.rate1 = nn.Parameter(torch.full((1,), 0.5))
        self.rate2 = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) to the same shape, see the base class."""
        q, k, v = self.project(x, size)
        attention = self.proj(self.attend(q, k, v))
        extra = x.shape[1] - size[0] * size[1]  # the class token
        reduced = size[0] // self.reduction, size[1] // self.reduction
        grids = (size, reduced, reduced)
        if extra:  # there is no reduction then
            q, k, v = (t[:, :, extra:] for t in (q, k, v))
        maps = [self._map(t, grid, size) for t, grid in zip((q, k, v), grids, strict=True)]
        conv = self.mix(torch.cat(maps, 1), self.rate2).flatten(2).transpose(1, 2)
        conv = F.pad(conv, (0, 0, extra, 0)) if extra else conv
        return torch.addcmul(conv, attention, self.rate1.to(conv.dtype))

    @staticmethod
    def _map(tokens: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
        """Tokens (N, heads, L, d) as maps (N, heads, d, H, W)."""
        maps = tokens.transpose(2, 3)
        if grid == size:
            return maps.unflatten(3, size)
        flat = maps.flatten(1, 2).unflatten(2, grid)
        resized = F.interpolate(flat, size=size, mode='bilinear', align_corners=False)
        return resized.unflatten(1, maps.shape[1:3])
