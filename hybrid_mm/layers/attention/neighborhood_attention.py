"""Neighborhood attention, also dilated.

Sources: "Neighborhood Attention Transformer" (arXiv 2204.07143), equations 2 to 4, and "Dilated
Neighborhood Attention Transformer" (arXiv 2209.15001), equations 2 to 5.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.export import has_symbols, numbers
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.local_attention import local_attention
from hybrid_mm.ops.positions import resize_window_table


class NeighborhoodAttention2d(SizedTables):
    """Attention of every pixel to the k x k pixels around it, moved inwards at the border.

    With dilation D, each residue class of rows and columns modulo D is a separate map. A map
    with fewer than k D rows or columns is padded with zeros at its lower and right border before
    the projection, so that padded pixels still contribute its bias, as in the operators that the
    published checkpoints were trained with.

    Attention costs 2 k^2 C multiplications per pixel. Kept for the backward pass: queries, keys and
    values.

    Args:
        dim: Channels C.
        heads: Number of heads.
        kernel_size: Window k, odd, at least 3.
        dilation: Dilation D, the distance of the window's pixels.
        relative_bias: Have a bias per head and offset of key and query.
        qkv_bias: Bias of the projection to queries, keys and values.
        qk_scale: Factor of the logits, by default (C / heads)^-0.5.
        impl: Algorithm, see :func:`~hybrid_mm.ops.local_attention.local_attention`.

    Raises:
        ValueError: Heads that do not divide C, an even window, a dilation below 1.
    """

    tables = ('relative_bias',)

    @sized_arguments
    def __init__(
        self,
        dim: int,
        heads: int,
        kernel_size: int = 7,
        dilation: int = 1,
        relative_bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention')
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        if kernel_size < 3 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and at least 3, got {kernel_size}')
        self.heads, self.kernel_size, self.dilation = heads, kernel_size, dilation
        self.scale, self.impl = qk_scale, impl
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_bias = None
        if relative_bias:
            side = 2 * kernel_size - 1
            self.relative_bias = nn.Parameter(torch.empty(heads, side, side))
            nn.init.trunc_normal_(self.relative_bias, std=0.02)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate by cubes."""
        return resize_window_table(table, (shape[-1] + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        height, width = numbers(x.shape[1:3])
        needed = self.kernel_size * self.dilation
        missing: list[Any] = [torch.sym_max(0, needed - side) for side in (height, width)]
        down, right = missing
        if has_symbols((height, width)) or down or right:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        maps = self.qkv(x).unflatten(3, (3, self.heads, -1))
        q, k, v = (x.permute(0, 3, 1, 2, 4) for x in maps.unbind(3))
        out = local_attention(
            q,
            k,
            v,
            self.kernel_size,
            dilation=self.dilation,
            border='shift',
            scale=self.scale,
            bias=self.relative_bias,
            impl=self.impl,
        )
        out = out[:, :, :height, :width].permute(0, 2, 3, 1, 4).flatten(3)
        return self.proj(out)

    def extra_repr(self) -> str:
        """Window and dilation, for printing."""
        return f'heads={self.heads}, kernel_size={self.kernel_size}, dilation={self.dilation}'
