"""Pooling attention: queries, keys and values pooled by strided convolutions (MViTv2).

Source: "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection" (arXiv
2112.01526), sections 3.1 to 4, and the official code for what they leave open.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.relative_position import DecomposedPosition2d
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.windows import cut_windows, join_windows

_EPS = 1e-6


class PoolingAttention(nn.Module):
    """Attention between pooled queries and pooled keys and values, plus the pooled queries.

    Every head is pooled by the same depthwise 3 x 3 convolution and layer norm, of which queries,
    keys and values have one each. Within windows, queries and keys and values are cut side by side;
    the last windows are zero-padded, and the softmax includes the zeros, as in the published
    code.

    Attention costs 2 C (H W)^2 / (stride_q stride_kv)^2 multiplications, C being out_channels, or
    with windows 2 C H W window^2 / (stride_q stride_kv)^2.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels C of queries, keys, values and the output.
        heads: Number of heads.
        size: Rows and columns of the map that the relative positions are made for; for other maps
            and windows they are interpolated.
        stride_q: Stride of the queries and so of the output.
        stride_kv: Stride of keys and values.
        window: Pixels of a window on each side, a multiple of the strides; None for attention to
            the whole map.
        qkv_bias: Bias of the projection to queries, keys and values.
        relative: With decomposed relative positions.
        residual: Add the pooled queries to the result.
        impl: See :func:`~hybrid_mm.ops.decomposed_attention.decomposed_attention`.

    Raises:
        ValueError: Heads that do not divide the channels, strides that do not divide the window, an
            unknown impl.
    """

    pool_q: nn.Conv2d
    pool_k: nn.Conv2d
    pool_v: nn.Conv2d

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        size: tuple[int, int],
        stride_q: int = 1,
        stride_kv: int = 1,
        window: int | None = None,
        qkv_bias: bool = True,
        relative: bool = True,
        residual: bool = True,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        if heads < 1 or out_channels % heads:
            raise ValueError(f'heads must divide the {out_channels} channels, got {heads}')
        if window is not None and (window < 1 or window % stride_q or window % stride_kv):
            raise ValueError(
                f'window must be a positive multiple of the strides {stride_q} of queries and '
                f'{stride_kv} of keys, got {window}'
            )
        check_impl(impl, 'decomposed_attention')
        self.heads, self.width, self.impl = heads, out_channels // heads, impl
        self.strides = stride_q, stride_kv, stride_kv
        self.window, self.residual = window, residual
        self.qkv = nn.Linear(in_channels, 3 * out_channels, bias=qkv_bias)
        self.proj = nn.Linear(out_channels, out_channels)
        for name in 'qkv':
            stride = stride_q if name == 'q' else stride_kv
            pool = nn.Conv2d(
                self.width, self.width, 3, stride, padding=1, groups=self.width, bias=False
            )
            self.add_module(f'pool_{name}', pool)
            self.add_module(f'norm_{name}', nn.LayerNorm(self.width, eps=_EPS))
        self.relative = None
        if relative:
            queries = size[0] // stride_q, size[1] // stride_q
            keys = size[0] // stride_kv, size[1] // stride_kv
            self.relative = DecomposedPosition2d(queries, keys, self.width, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, in_channels) to (N, ceil(H / stride_q), ceil(W / stride_q), C)."""
        q, k, v = self.pool(self.qkv(x))
        out = self.attend(q, k, v)
        if self.residual:
            out = out + q
        return self.proj(out)

    def pool(self, qkv: Tensor) -> list[Tensor]:
        """Pool maps (N, H, W, 3 C) to queries, keys and values (N, H', W', C)."""
        if is_plain(self.pool_q, self.pool_k, self.pool_v):
            pooled = self._pooled_together(qkv)
        else:
            pooled = self._pooled_by_layers(qkv)
        return [
            getattr(self, f'norm_{name}')(maps.unflatten(-1, (self.heads, -1))).flatten(-2)
            for name, maps in zip('qkv', pooled, strict=True)
        ]

    def _pooled_by_layers(self, qkv: Tensor) -> list[Tensor]:
        """The convolutions of maps (N, H, W, 3 C), every layer called with all heads."""
        pooled = []
        for name, part in zip('qkv', qkv.chunk(3, -1), strict=True):
            heads = part.permute(0, 3, 1, 2).unflatten(1, (self.heads, -1)).flatten(0, 1)
            maps = getattr(self, f'pool_{name}')(heads).unflatten(0, (-1, self.heads))
            pooled.append(maps.permute(0, 3, 4, 1, 2).flatten(3))
        return pooled

    def _pooled_together(self, qkv: Tensor) -> list[Tensor]:
        """The same with the weights of the layers."""
        dim = self.heads * self.width
        # one convolution for all maps of one stride: it moves more bytes than it multiplies
        groups = ('qkv',) if self.strides[0] == self.strides[1] else ('q', 'kv')
        pooled = []
        for names, part in zip(groups, qkv.split([dim * len(g) for g in groups], -1), strict=True):
            weight = torch.cat(
                [getattr(self, f'pool_{name}').weight.repeat(self.heads, 1, 1, 1) for name in names]
            )
            stride = self.strides['qkv'.index(names[0])]
            maps = F.conv2d(
                part.permute(0, 3, 1, 2), weight, stride=stride, padding=1, groups=len(weight)
            )
            pooled += maps.permute(0, 2, 3, 1).split(dim, -1)
        return pooled

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attention of maps (N, H, W, C) to others, of the whole map or within windows."""
        size = q.shape[1:3]
        if self.window is not None:
            q, k, v = (
                cut_windows(x, self.window // stride)
                for x, stride in zip((q, k, v), self.strides, strict=True)
            )
        q, k, v = (x.unflatten(-1, (self.heads, -1)).permute(0, 3, 1, 2, 4) for x in (q, k, v))
        if self.relative is None:
            shape = q.shape[2:4]
            q, k, v = (x.flatten(2, 3) for x in (q, k, v))
            maps = F.scaled_dot_product_attention(q, k, v).unflatten(2, shape)
        else:
            tables = self.relative.rel_h, self.relative.rel_w
            maps = decomposed_attention(q, k, v, *tables, impl=self.impl)
        maps = maps.permute(0, 2, 3, 1, 4).flatten(3)
        return maps if self.window is None else join_windows(maps, size)
