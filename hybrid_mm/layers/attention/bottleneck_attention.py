"""Attention over the whole map with 2-D positions, in place of a 3x3 convolution.

Source: "Bottleneck Transformers for Visual Recognition" (arXiv 2101.11605), section 3.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import head_widths, laid_out, merge_heads, split_heads
from hybrid_mm.layers.relative_position import RelativePosition2d
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.local_attention import global_attention
from hybrid_mm.ops.positions import resize_decomposed_table


class AbsolutePosition2d(SizedTables):
    """A vector per position, the sum of one of its row and one of its column.

    Args:
        size: Rows and columns (S_h, S_w) that the tables are made for; at another size they are
            interpolated linearly.
        dim: Width d of a head's queries.
    """

    tables = ('emb_h', 'emb_w')

    @sized_arguments
    def __init__(self, size: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.size = tuple(size)
        self.emb_h = nn.Parameter(torch.empty(size[0], dim))
        self.emb_w = nn.Parameter(torch.empty(size[1], dim))
        nn.init.normal_(self.emb_h, std=dim**-0.5)
        nn.init.normal_(self.emb_w, std=dim**-0.5)

    def forward(self, height: int, width: int) -> Tensor:
        """Vectors (height, width, d)."""
        emb_h = resize_decomposed_table(self.emb_h, height)
        return emb_h[:, None] + resize_decomposed_table(self.emb_w, width)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate linearly."""
        return resize_decomposed_table(table, shape[0])


class BottleneckAttention(nn.Module):
    """Attention of every pixel to all, by content and relative position (figure 4).

    The logit of query (y, x) and key (v, u) is ``scale * (q.k + q.rel_h[v - y + H - 1] +
    q.rel_w[u - x + W - 1])``, scale being the width of a head's query to the power of -1/2.
    Attention costs 2 C (H W)^2 multiplications.

    The tables follow the size of the map: their entries about the middle for a smaller one, linear
    interpolation for a larger one. With stride 2, attention runs at full resolution and is
    average-pooled in 2x2 cells, of which those at the border may be smaller.

    There is no projection after the heads: the 1x1 convolution of the block follows.

    Args:
        in_channels: Channels of the input.
        size: Rows and columns of the map that the tables are made for.
        out_channels: Channels C of the output, by default those of the input.
        stride: Stride.
        heads: Number of heads; they share the tables.
        dim_head: Width of a head's queries and keys; by default from ``qk_ratio``.
        qk_ratio: Channels of all queries as a part of C, rounded to a multiple of 8.
        qkv_bias: Biases of the projections.
        scale_pos_embed: Scale the position term like the content term; False for timm's weights.
        position: 'relative' as above, 'absolute' for q.(e_h[v] + e_w[u]), or 'none'.
        content: With the term q.k; without it there are no key projections.
        impl: Algorithm, see :mod:`hybrid_mm.ops.local_attention`.

    Raises:
        ValueError: Heads that do not divide C, an unknown kind of position, or no term at all.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        out_channels: int | None = None,
        stride: int = 1,
        heads: int = 4,
        dim_head: int | None = None,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        scale_pos_embed: bool = True,
        position: str = 'relative',
        content: bool = True,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention')
        if position not in ('relative', 'absolute', 'none'):
            raise ValueError(f"position must be 'relative', 'absolute' or 'none', got {position!r}")
        if position == 'none' and not content:
            raise ValueError("attention without content needs a position, got position='none'")
        out_channels = out_channels or in_channels
        dim, dim_v = head_widths(out_channels, heads, dim_head, qk_ratio)
        self.heads, self.stride, self.content, self.impl = heads, stride, content, impl
        self.scale = dim**-0.5
        self.position_scale = self.scale if scale_pos_embed else 1.0
        self.widths = [heads * dim] * (1 + content) + [heads * dim_v]
        self.qkv = nn.Conv2d(in_channels, sum(self.widths), 1, bias=qkv_bias)
        self.relative = RelativePosition2d(size, dim) if position == 'relative' else None
        self.absolute = AbsolutePosition2d(size, dim) if position == 'absolute' else None
        nn.init.trunc_normal_(self.qkv.weight, std=in_channels**-0.5)
        if self.qkv.bias is not None:
            nn.init.zeros_(self.qkv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        height, width = x.shape[2:]
        maps = self.qkv(laid_out(x))
        q, *keys, v = (split_heads(y, self.heads) for y in maps.split(self.widths, dim=1))
        k = keys[0] if self.content else torch.zeros_like(q)
        rel_h = rel_w = None
        if self.relative is not None:
            rel_h, rel_w = (table * self.position_scale for table in self.relative(height, width))
        elif self.absolute is not None:
            k = k + self.absolute(height, width) * (self.position_scale / self.scale)
        out = global_attention(q, k, v, scale=self.scale, rel_h=rel_h, rel_w=rel_w, impl=self.impl)
        out = merge_heads(out)
        if self.stride > 1:
            out = F.avg_pool2d(out, self.stride, ceil_mode=True, count_include_pad=False)
        return out
