"""Blocked local self-attention with a halo, in place of a 3x3 convolution.

Source: "Scaling Local Self-Attention for Parameter Efficient Visual Backbones" (arXiv 2103.12731),
sections 2.2 and 2.3.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import head_widths, laid_out, merge_heads, split_heads
from hybrid_mm.layers.relative_position import RelativePosition2d
from hybrid_mm.ops.argument_types import typed_arguments
from hybrid_mm.ops.arguments import not_negative, positive
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.export import ceil_div
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.local_attention import block_attention


class _WindowPosition2d(RelativePosition2d):
    """Tables of one block and halo, which are not resized."""

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Refuse tables of another window.

        Their middle is offset 0 of a query and the corner of its window, not of two pixels: both
        the block and the halo would have to be known, and a file tells only their sum.

        Raises:
            ValueError: Always, if only their length differs.
        """
        if (*table.shape[:1], *table.shape[2:]) != (*shape[:1], *shape[2:]):
            return table
        raise ValueError(
            f'{table.shape[1]} entries are of another block or halo than our {shape[1]}; give the '
            'block_size and halo_size that these weights were trained with'
        )


class HaloAttention(nn.Module):
    """Attention of the pixels of a block to the block and the halo around it.

    With w = block + 2 halo keys on each side, query row i of a block and key row j of its window
    have the logit ``scale * q.k + q.rel_h[j - i + w - 1]`` plus the same of the columns, scale
    being the width of a head's query to the power of -1/2. Attention costs 2 w^2 C H W
    multiplications.

    A map of any size is taken as one that zeros on the right and below bring to whole blocks; the
    result is cut. These zeros, like those beyond the border, contribute to the softmax (k = 0,
    v = 0, or the biases if there are any), unless ``mask_padding`` leaves them out.

    With stride 2 and blocks of even size the queries are every second pixel, and i counts queries
    (not pixels) as in the released weights. With ``avg_down``, or blocks of odd size, attention
    runs at full resolution and is average-pooled.

    There is no projection after the heads: the 1x1 convolution of the block follows.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels C of the output, by default those of the input.
        stride: 1 or 2.
        heads: Number of heads; they share the relative tables.
        dim_head: Width of a head's queries and keys; by default from ``qk_ratio``.
        block_size: Pixels of a block on each side.
        halo_size: Pixels around it that it sees.
        qk_ratio: Channels of all queries as a part of C, rounded to a multiple of 8.
        qkv_bias: Biases of the projections.
        avg_down: Pool instead of leaving queries out.
        scale_pos_embed: Scale the position terms like the content term.
        mask_padding: Leave everything beyond the border of the map out of the softmax.
        impl: Algorithm, see :mod:`hybrid_mm.ops.local_attention`.

    Raises:
        ValueError: A stride other than 1 and 2, heads that do not divide C.
    """

    @typed_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        stride: int = 1,
        heads: int = 8,
        dim_head: int | None = None,
        block_size: int = 8,
        halo_size: int = 3,
        qk_ratio: float = 1.0,
        qkv_bias: bool = False,
        avg_down: bool = False,
        scale_pos_embed: bool = False,
        mask_padding: bool = False,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention')
        positive(self, in_channels=in_channels, block_size=block_size)
        not_negative(self, halo_size=halo_size)
        if stride not in (1, 2):
            raise ValueError(f'stride of HaloAttention must be 1 or 2, got {stride}')
        out_channels = out_channels or in_channels
        self.dims = head_widths(out_channels, heads, dim_head, qk_ratio)
        self.heads, self.block_size, self.halo_size = heads, block_size, halo_size
        pooled = avg_down or block_size % stride > 0
        self.query_stride, self.pool = (1, stride) if pooled else (stride, 1)
        self.mask_padding, self.impl = mask_padding, impl
        self.scale = self.dims[0] ** -0.5
        self.position_scale = self.scale if scale_pos_embed else 1.0
        self.q = nn.Conv2d(
            in_channels, heads * self.dims[0], 1, stride=self.query_stride, bias=qkv_bias
        )
        self.kv = nn.Conv2d(in_channels, heads * sum(self.dims), 1, bias=qkv_bias)
        window = block_size + 2 * halo_size
        # entry by key minus query; the first window - queries entries are never read, but they
        # are in the released weights
        self.relative = _WindowPosition2d((window, window), self.dims[0])
        for conv in (self.q, self.kv):
            nn.init.trunc_normal_(conv.weight, std=in_channels**-0.5)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        height, width = x.shape[2:]
        # where padded pixels have a say beyond being zero keys they have to be there
        zeros = is_plain(self.q, self.kv) and self.q.bias is None
        if not self.mask_padding and (self.pool > 1 or not zeros):
            x = F.pad(x, (0, -width % self.block_size, 0, -height % self.block_size))
        x = laid_out(x)
        q = split_heads(self.q(x), self.heads)
        maps = self.kv(x).unflatten(1, (self.heads, -1)).split(self.dims, 2)
        k, v = (y.permute(0, 1, 3, 4, 2) for y in maps)
        out = block_attention(
            q,
            k,
            v,
            self.block_size,
            self.halo_size,
            stride=self.query_stride,
            border='mask' if self.mask_padding else 'zero',
            scale=self.scale,
            rel_h=self.relative.rel_h * self.position_scale,
            rel_w=self.relative.rel_w * self.position_scale,
            impl=self.impl,
        )
        out = merge_heads(out)
        if self.pool > 1:
            out = F.avg_pool2d(out, self.pool, ceil_mode=True, count_include_pad=False)
        stride = self.query_stride * self.pool
        return out[..., : ceil_div(height, stride), : ceil_div(width, stride)].contiguous()
