"""Attention within windows side by side or grids, all of them at once.

The weights, one per pixel and pixel of its window, are kept for the backward pass where the bias is
learned: faster than tiles for small windows, and the published formulation.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.local_attention.pattern import Pattern, PatternType
from hybrid_mm.ops.positions import bias_matrix

_LARGE = 14**2  # pixels of a window above which its weights are not kept
_FEW = 4  # windows of a map up to which the bias of all their pairs costs more than it saves


def preferred(q: Tensor, pattern: Pattern) -> bool:
    """Whether this algorithm beats tiles, as measured on CPUs.

    Args:
        q: Queries, (N, heads, H, W, d).
        pattern: Windows side by side or grids.
    """
    height, width = q.shape[2:4]
    size = math.prod(window_size(pattern, height, width))
    few = height * width <= _FEW * size
    return size <= _LARGE or not (few or (torch.is_grad_enabled() and q.requires_grad))


def window_size(pattern: Pattern, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a window on a map, no more than the map has."""
    if pattern.type == PatternType.WHOLE:
        return height, width
    return min(pattern.rows.size, height), min(pattern.columns.size, width)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    pattern: Pattern,
    dropout: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """Output (N, heads, H, W, d_v).

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, likewise.
        v: Values, (N, heads, H, W, d_v).
        bias: By key minus query, (heads or 1, rows, columns), or None.
        scale: Factor of q.k.
        pattern: Windows side by side, grids, or the whole map.
        dropout: Rate at which weights are dropped.
        fused: Allow torch's fused attention; without, standard products and a softmax, as for a
            learned bias on a CPU.
    """
    size = q.shape[2:4]
    window = window_size(pattern, *size)
    grid = pattern.type == PatternType.GRID
    q, k, v = (_cut(x, window, grid) for x in (q, k, v))
    if bias is not None:
        rows, columns = (
            (n - 2 * side + 1) // 2 for n, side in zip(bias.shape[1:], window, strict=True)
        )
        bias = bias[:, rows : bias.shape[1] - rows, columns : bias.shape[2] - columns]
        bias = bias_matrix(bias)
    hidden = _hidden(pattern, size, window, q.device)
    learned = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    if fused and not dropout and (q.is_cuda or not learned):
        out = _fused(q, k, v, bias, hidden, scale)
    else:
        out = _plain(q, k, v, bias, hidden, scale, dropout)
    return _join(out, window, size, grid)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, hidden: Tensor | None, scale: float
) -> Tensor:
    """Attention of (N, windows, heads, L, d) by torch's scaled_dot_product_attention."""
    n, windows = q.shape[:2]
    if hidden is not None:
        bias = q.new_zeros(1, 1, 1) if bias is None else bias.to(q.dtype)
        bias = bias.masked_fill(hidden[:, None], -math.inf).repeat(n, 1, 1, 1)
    elif bias is not None:
        bias = bias.to(q.dtype)[None]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=scale)
    return out.unflatten(0, (n, windows))


def _plain(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    hidden: Tensor | None,
    scale: float,
    dropout: float,
) -> Tensor:
    """Attention of (N, windows, heads, L, d), step by step."""
    if q.dtype in (torch.float16, torch.bfloat16):  # products may overflow unless they are scaled
        q, scale = q * scale, 1.0
    logits = q @ k.transpose(-1, -2)
    # not q * scale: that would be one more map to keep
    logits = logits * scale if bias is None else torch.add(bias, logits, alpha=scale)
    if hidden is not None:
        logits.masked_fill_(hidden[:, None], -math.inf)
    return F.dropout(logits.softmax(-1), dropout).to(v.dtype) @ v


def _hidden(
    pattern: Pattern, size: tuple[int, int], window: tuple[int, int], device: torch.device
) -> Tensor | None:
    """Pairs of pixels of a window that do not see each other, (windows, L, L), or None.

    They are pixels that a roll made neighbours, and pixels of the map and of its padding.
    """
    height, width = size
    padded = any(n % side for n, side in zip(size, window, strict=True))
    if not (padded or pattern.rows.shift or pattern.columns.shift):
        return None
    rows = torch.arange(height, device=device) >= height - pattern.rows.shift
    columns = torch.arange(width, device=device) >= width - pattern.columns.shift
    region = 1 + 2 * rows[:, None].long() + columns  # 0 is the padding
    region = _cut(region[None, None, :, :, None], window, pattern.type == PatternType.GRID)
    region = region.flatten(1)[0].view(-1, math.prod(window))
    return region[:, :, None] != region[:, None]


def _cut(x: Tensor, window: tuple[int, int], grid: bool) -> Tensor:
    """Maps (N, heads, H, W, d), padded by zeros, as (N, windows, heads, pixels of a window, d)."""
    down, right = (-n % side for n, side in zip(x.shape[2:4], window, strict=True))
    if down or right:
        x = F.pad(x, (0, 0, 0, right, 0, down))
    if grid:
        x = x.unflatten(3, (window[1], -1)).unflatten(2, (window[0], -1))
        x = x.permute(0, 3, 5, 1, 2, 4, 6)
    else:
        x = x.unflatten(3, (-1, window[1])).unflatten(2, (-1, window[0]))
        x = x.permute(0, 2, 4, 1, 3, 5, 6)
    return x.flatten(4, 5).flatten(1, 2)


def _join(x: Tensor, window: tuple[int, int], size: tuple[int, int], grid: bool) -> Tensor:
    """Inverse of :func:`_cut`, a view of (N, H, W, heads, d)."""
    number = [-(-n // side) for n, side in zip(size, window, strict=True)]
    x = x.unflatten(3, window).unflatten(1, number)  # rows and columns of windows, heads, of pixels
    x = x.permute(0, 4, 1, 5, 2, 3, 6) if grid else x.permute(0, 1, 4, 2, 5, 3, 6)
    x = x.flatten(3, 4).flatten(1, 2)
    return x[:, : size[0], : size[1]].permute(0, 3, 1, 2, 4)
