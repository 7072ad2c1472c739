"""Attention within windows or grids of a map, with a bias by relative position.

Source: "MaxViT: Multi-Axis Vision Transformer" (arXiv 2204.01697), section 3.2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.relative_position import LogRelativeBias2d, RelativeBias2d
from hybrid_mm.ops.dispatch import check_impl, is_reference
from hybrid_mm.ops.export import require_fixed_size
from hybrid_mm.ops.local_attention import partition_attention
from hybrid_mm.ops.positions import bias_matrix

_LARGE = 14**2  # pixels of a window above which its weights are not kept
_FEW = 4  # windows of a map up to which the bias of all their pairs costs more than it gives


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, reference: bool = False) -> Tensor:
    """Attention with a bias that is added to the logits.

    Args:
        q: Queries, (B, heads, L, d).
        k: Keys, likewise.
        v: Values, likewise.
        bias: (heads, L, L), or (B, heads, L, L).
        reference: The published formulation in any case.
    """
    learned = bias.requires_grad and torch.is_grad_enabled()
    if not reference and (q.is_cuda or not learned):
        bias = bias if bias.ndim == 4 else bias[None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
    # what torch does on the CPU with a learned bias keeps scaled copies of queries and keys
    logits = torch.add(bias, q @ k.transpose(-1, -2), alpha=q.shape[-1] ** -0.5)
    return logits.softmax(-1).to(v.dtype) @ v


class PartitionAttention(nn.Module):
    """Attention of each pixel to those of its window or of its grid.

    A window has P x Q pixels side by side. A grid has P x Q pixels too, ceil(H / P) rows and
    ceil(W / Q) columns apart, spread over the whole map. On maps that they do not divide, those at
    the right and bottom have fewer pixels; that is the same as zeros there that no pixel attends
    to.

    H W P Q multiplications per channel for the logits and as many for the result. For windows of
    more than 14 x 14 pixels the backward pass needs queries, keys and values only; for smaller ones
    the weights, P Q per pixel and head, are kept, which is faster there.

    Args:
        in_channels: Channels of the input.
        window: Pixels of a window on each side, (P, Q).
        head_width: Channels of a head.
        kind: 'block' for windows, 'grid' for grids.
        channels: Channels of the output, by default those of the input.
        hidden_channels: Channels of all values, by default those of the output.
        relative: 'table' of numbers, or 'log', a network of logarithmic offsets.
        impl: 'auto', or 'reference', the published formulation step by step.

    Raises:
        ValueError: Heads that do not fill the channels, an empty window, an unknown kind,
            relative or impl.
    """

    def __init__(
        self,
        in_channels: int,
        window: tuple[int, int],
        head_width: int = 32,
        kind: str = 'block',
        channels: int | None = None,
        hidden_channels: int | None = None,
        relative: str = 'table',
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'window_attention')
        channels = channels or in_channels
        hidden = hidden_channels or channels
        if head_width < 1 or hidden % head_width:
            raise ValueError(
                f'head_width must divide the {hidden} channels of the attention, got {head_width}'
            )
        if min(window) < 1:
            raise ValueError(f'a window must have pixels, got {window}')
        if kind not in ('block', 'grid') or relative not in ('table', 'log'):
            raise ValueError(
                "kind must be 'block' or 'grid' and relative 'table' or 'log', "
                f'got {kind!r} and {relative!r}'
            )
        self.grid = kind == 'grid'
        self.window, self.width, self.impl = tuple(window), head_width, impl
        self.heads = hidden // head_width
        self.qkv = nn.Linear(in_channels, 3 * hidden)
        if relative == 'table':
            self.relative_bias = RelativeBias2d(self.window, self.heads)
        else:
            self.relative_bias = LogRelativeBias2d(self.heads)
        self.proj = nn.Linear(hidden, channels)

    def window_of(self, height: int, width: int) -> tuple[int, int]:
        """Window on a map."""
        return self.window

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, in_channels) to (N, H, W, channels)."""
        height, width = x.shape[1:3]
        require_fixed_size((height, width), 'attention within windows')
        window = self.window_of(height, width)
        table = self.relative_bias(*window)
        qkv = self.qkv(x)
        if is_reference(self.impl, 'window_attention') or not self._tiled(qkv, window):
            return self.proj(self._batched(qkv, table, window))
        maps = qkv.unflatten(3, (3, self.heads, self.width))
        out = self.engine(*maps.permute(3, 0, 4, 1, 2, 5), table)
        return self.proj(out.permute(0, 2, 3, 1, 4).flatten(3))

    def _tiled(self, qkv: Tensor, window: tuple[int, int]) -> bool:
        """Whether the engine is the better algorithm, as measured on CPUs."""
        size = math.prod(window)
        few = math.prod(qkv.shape[1:3]) <= _FEW * size
        return size > _LARGE and (few or (torch.is_grad_enabled() and qkv.requires_grad))

    def engine(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
        """Attention of (N, heads, H, W, d) that keeps nothing else."""
        return partition_attention(q, k, v, self.window, grid=self.grid, bias=table)

    def _batched(self, qkv: Tensor, table: Tensor, window: tuple[int, int]) -> Tensor:
        """All windows at once, (N, H, W, 3 hidden) to (N, H, W, hidden)."""
        n, height, width, _ = qkv.shape
        down, right = -height % window[0], -width % window[1]
        bias = bias_matrix(table)
        if down or right:
            qkv = F.pad(qkv, (0, 0, 0, right, 0, down))
            outside = torch.ones(1, *qkv.shape[1:3], 1, dtype=torch.bool, device=qkv.device)
            outside[:, :height, :width] = False
            outside = self._cut(outside, window).transpose(1, 2).unsqueeze(1)
            # (windows of all images, heads, queries, keys)
            bias = bias.masked_fill(outside.repeat(n, 1, 1, 1), -math.inf)
        maps = self._cut(qkv, window).unflatten(-1, (3, self.heads, self.width))
        out = attend(
            *maps.permute(2, 0, 3, 1, 4),
            bias,
            is_reference(self.impl, 'window_attention'),
        )
        out = self._uncut(out.transpose(1, 2).flatten(2), window, qkv.shape)
        return out[:, :height, :width]

    def _cut(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        """(N, H, W, C) to (N * windows, P * Q, C); the window divides the map."""
        if self.grid:
            x = x.unflatten(2, (window[1], -1)).unflatten(1, (window[0], -1))
            x = x.permute(0, 2, 4, 1, 3, 5)
        else:
            x = x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))
            x = x.permute(0, 1, 3, 2, 4, 5)
        return x.flatten(3, 4).flatten(0, 2)

    def _uncut(self, x: Tensor, window: tuple[int, int], shape: torch.Size) -> Tensor:
        """The reverse, for a map of a shape (N, H, W, any)."""
        rows, columns = (side // size for side, size in zip(shape[1:3], window, strict=True))
        x = x.unflatten(1, window).unflatten(0, (shape[0], rows, columns))
        order = (0, 3, 1, 4, 2, 5) if self.grid else (0, 1, 3, 2, 4, 5)
        return x.permute(order).flatten(3, 4).flatten(1, 2)
