"""Attention with a bias per distance, between linear layers with batch norm.

Source: "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference" (arXiv 2104.01136),
sections 4.2 and 4.3, and its code.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.folded_norm import LinearNorm
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.arguments import positive, sides
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.distance_attention import distance_attention, resize_distance_table
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.inference_cache import keeps


class LeViTAttention(SizedTables):
    """Attention of every pixel to all, with narrow queries and keys and wide values.

    Linear layers have a batch norm and no bias; Hardswish comes before the last one. With a
    stride, queries come from every second row and column: the shrinking attention between stages.

    Costs (d + d_v) heads (H W)^2 / s^2 multiplications besides the linear layers.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        key_dim: Width d of a head's queries and keys.
        heads: Number of heads.
        value_ratio: Width of a head's values as a multiple of d.
        resolution: Rows and columns of the map that the table of biases is made for, one number or
            two; it is interpolated for others.
        stride: Distance s of the queries.
        norm_weight: Initial scale of the last norm.
        impl: See :func:`~hybrid_mm.ops.distance_attention.distance_attention`.
    """

    tables = ('distance_bias',)

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        key_dim: int,
        heads: int,
        value_ratio: float,
        resolution: int | Sequence[int],
        stride: int = 1,
        norm_weight: float = 1.0,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'distance_attention')
        positive(self, value_ratio=value_ratio)
        self.key_dim, self.heads, self.stride, self.impl = key_dim, heads, stride, impl
        self.value_dim = int(value_ratio * key_dim)
        width = key_dim + self.value_dim
        if stride == 1:
            self.qkv = LinearNorm(in_channels, heads * (key_dim + width))
        else:
            self.q = LinearNorm(in_channels, heads * key_dim)
            self.kv = LinearNorm(in_channels, heads * width)
        self.proj = LinearNorm(heads * self.value_dim, out_channels, norm_weight)
        self.distance_bias = nn.Parameter(torch.zeros(heads, *sides(self, resolution=resolution)))

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate bilinearly."""
        return resize_distance_table(table, shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, ceil(H / s), ceil(W / s), C')."""
        widths = [self.key_dim, self.value_dim]
        if self.stride == 1:
            q, k, v = self._heads(self.qkv(x), [self.key_dim, *widths])
        else:
            (q,) = self._heads(self.q(x[:, :: self.stride, :: self.stride]), [self.key_dim])
            k, v = self._heads(self.kv(x), widths)
        table = resize_distance_table(self.distance_bias, x.shape[1:3])
        owner = self if table is self.distance_bias else None
        y = distance_attention(q, k, v, table, self.stride, self.impl, owner)
        return self.proj(F.hardswish(y.permute(0, 2, 3, 1, 4).flatten(3), inplace=keeps(self)))

    def _heads(self, x: Tensor, widths: list[int]) -> list[Tensor]:
        """(N, H, W, heads * d) as maps (N, heads, H, W, d) of these widths."""
        maps = x.unflatten(3, (self.heads, -1)).split(widths, 4)
        return [y.permute(0, 3, 1, 2, 4) for y in maps]
