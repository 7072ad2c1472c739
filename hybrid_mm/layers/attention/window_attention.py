"""Window attention of Swin, on maps of any size that its windows divide.

Source: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv
2103.14030), section 3.2.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.local_attention import partition_attention
from hybrid_mm.ops.positions import resize_window_table
from hybrid_mm.ops.windows import roll


class WindowAttention(SizedTables):
    """Attention within windows side by side, with a bias by relative position.

    Args:
        dim: Channels C.
        window: Pixels of a window on each side.
        heads: Number of heads.
        qkv_bias: Bias of the projection to queries, keys and values.
        qk_scale: Factor of the logits, by default (C / heads)^-0.5.
        attn_drop: Dropout rate of the attention weights.
        proj_drop: Dropout rate of the result.
        impl: Algorithm, see :func:`~hybrid_mm.ops.local_attention.partition_attention`.

    Raises:
        ValueError: Heads that do not divide C, an unknown impl.
    """

    tables = ('relative_bias',)
    any_size: ClassVar[bool] = False  # whether windows at the right and bottom may be smaller

    @sized_arguments
    def __init__(
        self,
        dim: int,
        window: int,
        heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'partition_attention')
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        self.window, self.heads, self.width, self.impl = window, heads, dim // heads, impl
        self.scale = self.width**-0.5 if qk_scale is None else qk_scale
        self.attn_drop, self.proj_drop = attn_drop, proj_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_bias = nn.Parameter(torch.empty(heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.relative_bias, std=0.02)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate by cubes."""
        return resize_window_table(table, (shape[-1] + 1) // 2)

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """Map (N, H, W, C), H and W multiples of the window, to the same shape.

        Args:
            x: Normalised tokens.
            shift: By how much the windows are shifted, 0..window - 1; symbolic if that depends on a
                symbolic size.

        Raises:
            ValueError: H or W is not a multiple of the window.
        """
        height, width = x.shape[1:3]
        fits = has_symbols((height, width)) or not (height % self.window or width % self.window)
        if not fits and not self.any_size:
            raise ValueError(
                f'H and W must be multiples of the window {self.window}, got {height} x {width}'
            )
        moved = has_symbols((shift,)) or shift != 0
        x = roll(x, -shift) if moved else x
        maps = self.qkv(x).unflatten(3, (3, self.heads, self.width))
        dropout = self.attn_drop if self.training else 0.0
        q, k, v = (x.permute(0, 3, 1, 2, 4) for x in maps.unbind(3))
        out = partition_attention(
            q,
            k,
            v,
            self.window,
            shift=shift,
            scale=self.scale,
            bias=self.relative_bias,
            impl=self.impl,
            dropout=dropout,
        )
        out = self.proj(out.permute(0, 2, 3, 1, 4).flatten(3))
        out = self.combine(out, maps)
        out = roll(out, shift) if moved else out
        return F.dropout(out, self.proj_drop, self.training)

    def combine(self, attention: Tensor, maps: Tensor) -> Tensor:
        """What a subclass makes of the result and (N, H, W, q|k|v, heads, d), both rolled."""
        return attention
