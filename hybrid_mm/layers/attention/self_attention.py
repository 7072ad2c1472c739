"""Attention of plain vision transformers: of all tokens, or within windows of a map.

Sources: "An Image is Worth 16x16 Words" (arXiv 2010.11929) and "Exploring Plain Vision Transformer
Backbones for Object Detection" (arXiv 2203.16527), section 3. Biases: "BEiT: BERT
Pre-Training of Image Transformers" (arXiv 2106.08254), as MMSegmentation's MAE has them.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.relative_position import DecomposedPosition2d, TokenBias2d
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.arguments import one_of
from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.windows import cut_windows, join_windows


class SelfAttention(nn.Module):
    """Multi-head attention of the tokens of a map, and of others that may come before them.

    The last windows are zero-padded before the projection, so that the padding has its bias and
    contributes to the softmax, as in the published code.

    Attention costs 2 C (H W)^2 multiplications, or with windows 2 C H W window^2. Biases are formed
    for all pairs, (H W)^2 per head.

    Args:
        dim: Channels C.
        heads: Number of heads.
        size: Rows and columns of the map that relative positions are made for; for other maps they
            are interpolated. None: no relative positions.
        window: Pixels of a window on each side, to which relative positions belong then; None for
            attention to all tokens.
        qkv_bias: Bias of the projection to queries, keys and values.
        impl: See :func:`~hybrid_mm.ops.decomposed_attention.decomposed_attention`.
        relative: 'decomposed' positions; a 'bias', a number per head and offset; or 'token_bias',
            with numbers for a class token too, which comes before the others.

    Raises:
        ValueError: Heads that do not divide C, a window below 1, an unknown impl or relative, a
            class token with windows.
    """

    @sized_arguments
    def __init__(
        self,
        dim: int,
        heads: int,
        size: tuple[int, int] | None = None,
        window: int | None = None,
        qkv_bias: bool = True,
        impl: str = 'auto',
        relative: str = 'decomposed',
    ) -> None:
        super().__init__()
        one_of(self, ('decomposed', 'bias', 'token_bias'), relative=relative)
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        if window is not None and window < 1:
            raise ValueError(f'window must be positive, got {window}')
        if window is not None and relative == 'token_bias':
            raise ValueError("relative='token_bias' excludes window: all windows have one token")
        check_impl(impl, 'decomposed_attention')
        self.heads, self.window, self.impl = heads, window, impl
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative: DecomposedPosition2d | TokenBias2d | None = None
        if size is not None:
            size = (window, window) if window else size
            if relative == 'decomposed':
                self.relative = DecomposedPosition2d(size, size, dim // heads)
            else:
                self.relative = TokenBias2d(size, heads, relative == 'token_bias')

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) to the same shape.

        Args:
            x: H W tokens row by row; without windows and relative positions, others may come
                before them; with biases for a class token, that one.
            size: (H, W).
        """
        if self.window is None:
            return self.proj(self.attend(self.qkv(x), size))
        window = self.window
        x = cut_windows(x.unflatten(1, size), window).flatten(1, 2)
        x = self.proj(self.attend(self.qkv(x), (window, window)))
        return join_windows(x.unflatten(1, (window, window)), size).flatten(1, 2)

    def attend(self, qkv: Tensor, size: tuple[int, int]) -> Tensor:
        """Attention (N, L, C) of the projections (N, L, 3 C)."""
        q, k, v = (x.transpose(1, 2) for x in qkv.unflatten(2, (3, self.heads, -1)).unbind(2))
        if self.relative is None:
            out = F.scaled_dot_product_attention(q, k, v)
        elif isinstance(self.relative, TokenBias2d):
            bias = self.relative(*size)[None].to(q.dtype)
            out = F.scaled_dot_product_attention(q, k, v, bias)
            if not out.numel():  # torch leaves the mask of an empty batch without a gradient
                out = out + 0 * bias.sum()
        else:
            q, k, v = (x.unflatten(2, size) for x in (q, k, v))
            tables = self.relative.rel_h, self.relative.rel_w
            out = decomposed_attention(q, k, v, *tables, impl=self.impl).flatten(2, 3)
        return out.transpose(1, 2).flatten(2)
