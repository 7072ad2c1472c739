"""Window attention of Swin, on maps of any size that its windows divide.

Source: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv
2103.14030), section 3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.dispatch import check_impl, is_reference
from hybrid_mm.ops.export import exporting, require_fixed_size
from hybrid_mm.ops.local_attention import partition_attention
from hybrid_mm.ops.positions import window_index

_LARGE = 2**13  # pixels of a map from which memory counts more than time


class WindowAttention(nn.Module):
    """Attention within windows side by side, with a bias by relative position.

    Args:
        dim: Channels C.
        window: Pixels of a window on each side.
        heads: Number of heads.
        qkv_bias: Bias of the projection to queries, keys and values.
        qk_scale: Factor of the logits, by default (C / heads)^-0.5.
        attn_drop: Dropout rate of the attention weights; above 0, attention is not the engine's.
        proj_drop: Dropout rate of the result.
        impl: 'auto', or 'reference', the published formulation step by step.

    Raises:
        ValueError: Heads that do not divide C, an unknown impl.
    """

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
        check_impl(impl, 'window_attention')
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        self.window, self.heads, self.width, self.impl = window, heads, dim // heads, impl
        self.scale = self.width**-0.5 if qk_scale is None else qk_scale
        self.attn_drop, self.proj_drop = attn_drop, proj_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_bias = nn.Parameter(torch.empty(heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.relative_bias, std=0.02)

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """Map (N, H, W, C), H and W multiples of the window, to the same shape.

        Args:
            x: Normalised tokens.
            shift: By how much the windows are shifted, 0..window - 1.

        Raises:
            ValueError: H or W is no multiple of the window.
        """
        n, height, width, dim = x.shape
        require_fixed_size((height, width), 'window attention')
        if height % self.window or width % self.window:
            raise ValueError(
                f'H and W must be multiples of the window {self.window}, got {height} x {width}'
            )
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        maps = self.qkv(x).view(n, height, width, 3, self.heads, self.width)
        attend = self._engine if height * width > _LARGE else self._batched
        if is_reference(self.impl, 'window_attention') or self.attn_drop or exporting():
            attend = self._reference
        out = attend(*maps.permute(3, 0, 4, 1, 2, 5), shift)
        out = self.proj(out.permute(0, 2, 3, 1, 4).reshape(n, height, width, dim))
        out = self.combine(out, maps)
        if shift:
            out = out.roll((shift, shift), (1, 2))
        return F.dropout(out, self.proj_drop, self.training)

    def combine(self, attention: Tensor, maps: Tensor) -> Tensor:
        """What a subclass makes of the result and (N, H, W, q|k|v, heads, d), both rolled."""
        return attention

    def _engine(self, q: Tensor, k: Tensor, v: Tensor, shift: int) -> Tensor:
        return partition_attention(
            q, k, v, self.window, shift=shift, scale=self.scale, bias=self.relative_bias
        )

    def _batched(self, q: Tensor, k: Tensor, v: Tensor, shift: int) -> Tensor:
        """All windows at once, for small maps: it keeps the weights and is faster there."""
        logits = (self._cut(q) * self.scale) @ self._cut(k).transpose(-1, -2)
        logits += self._bias().to(logits.dtype)
        if shift:
            logits += self._mask(q, shift)
        return self._uncut(logits.softmax(-1).to(v.dtype) @ self._cut(v))

    def _reference(self, q: Tensor, k: Tensor, v: Tensor, shift: int) -> Tensor:
        """The published formulation: windows, bias, Swin's mask, softmax."""
        logits = (self._cut(q) * self.scale) @ self._cut(k).transpose(-1, -2)
        logits = logits + self._bias()
        if shift:
            logits = logits + self._mask(q, shift)
        weights = F.dropout(logits.softmax(-1), self.attn_drop, self.training)
        return self._uncut(weights.to(v.dtype) @ self._cut(v))

    def _cut(self, x: Tensor) -> Tensor:
        """(N, heads, H, W, d) to (N, heads, rows, columns of windows, window^2, d)."""
        x = x.unflatten(3, (-1, self.window)).unflatten(2, (-1, self.window))
        return x.transpose(3, 4).flatten(4, 5)

    def _uncut(self, x: Tensor) -> Tensor:
        """The reverse."""
        x = x.unflatten(4, (self.window, self.window))
        return x.transpose(3, 4).flatten(4, 5).flatten(2, 3)

    def _bias(self) -> Tensor:
        """Bias of query and key, (heads, 1, 1, window^2, window^2)."""
        index = window_index(self.window).t()  # Swin's counts query minus key, ours key minus query
        bias = self.relative_bias.flatten(1)[:, index.to(self.relative_bias.device)]
        return bias[:, None, None]

    def _mask(self, q: Tensor, shift: int) -> Tensor:
        """-100 for pixels that the roll made neighbours, (rows, columns, window^2, window^2)."""
        rows, columns = (
            (torch.arange(s, device=q.device) >= s - self.window).long()
            + (torch.arange(s, device=q.device) >= s - shift)
            for s in q.shape[2:4]
        )
        region = self._cut((3 * rows[:, None] + columns)[None, None, :, :, None])[0, 0, ..., 0]
        return ((region.unsqueeze(-1) != region.unsqueeze(-2)) * -100.0).to(q.dtype)
